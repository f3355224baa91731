#!/bin/sh
# Unpacks packages of another Debian release or architecture into a folder.
#
#   fetch_packages.sh FOLDER SUITE ARCH PACKAGE...
#
# The system does not change: this script uses its own one-line sources file, with the system's
# mirror, and its own package lists.  A name ending in "@" means the package that this one depends
# on (linux-image-arm64@ is the current kernel).
set -eu

if [ "$#" -lt 4 ]; then
    echo "usage: fetch_packages.sh FOLDER SUITE ARCH PACKAGE..." >&2
    exit 2
fi
folder=$1 suite=$2 arch=$3
shift 3

fail() {
    echo "fetch_packages.sh: no $* of Debian $suite: $why" >&2
    exit 1
}

why='no apt here'
command -v apt-get >/dev/null || fail "$@"
# shellcheck disable=SC2016 # apt's own variables
mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' |
    sed -n '/security/d; s/^Debian //p' | head -n 1)
why='no Debian mirror in the apt sources'
[ -n "$mirror" ] || fail "$@"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
chmod 755 "$scratch"
mkdir -p "$scratch/lists/partial" "$scratch/got"
chown _apt "$scratch/got" 2>/dev/null || :
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [arch=$arch signed-by=$keyring] $mirror $suite main" >"$scratch/list"

# Uses separate caches: the system's caches have other packages under the same names.
in_suite() {
    program=$1
    shift
    DEBIAN_FRONTEND=noninteractive "$program" -qq \
        -o "Dir::Etc::sourcelist=$scratch/list" -o Dir::Etc::sourceparts=- \
        -o "Dir::State::Lists=$scratch/lists" -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache=" \
        -o "APT::Architecture=$arch" -o "APT::Architectures=$arch" -o Acquire::Languages=none \
        -o Acquire::Retries=3 "$@"
}

why="apt cannot read $mirror $suite"
in_suite apt-get update >/dev/null || fail "$@"
for name; do
    case $name in
        *@)
            meta=${name%@}
            name=$(in_suite apt-cache show --no-all-versions "$meta" |
                sed -n 's/^Depends: \([^ ,]*\).*/\1/p')
            ;;
    esac
    why='apt cannot download it'
    (cd "$scratch/got" && in_suite apt-get download "$name" >/dev/null) || fail "$name"
done
mkdir -p "$folder"
for package in "$scratch"/got/*.deb; do
    dpkg -x "$package" "$folder"
done
