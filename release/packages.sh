#!/bin/sh
# Installs what the demo, the tests and the benchmarks need on Debian.
#
#   packages.sh           install missing packages; if none is missing, do and print nothing
#   packages.sh --list    print the list
#   packages.sh --arm64   also fetch iPXE for arm64 boxes, from a newer Debian if need be
#
# Some of these packages start a daemon when they are installed (samba, sshd, nfs-ganesha and the
# rpcbind that it brings, nginx, redis-server, the DHCP servers).  No daemon is wanted here, so a
# policy-rc.d forbids starts while apt runs.  An existing policy-rc.d is left alone.
set -eu

: "${POLICY:=/usr/sbin/policy-rc.d}"
: "${MTAB:=/etc/mtab}"
: "${IPXE:=/usr/local/lib/appliance/ipxe}"
MARK='# written by packages.sh for the time of one installation'
NEWER=trixie # the first Debian whose ipxe package has arm64

# A line each: virtual hardware and firmware; servers for testboxes; images; the lab; Python, also
# for `make binary`; a server in a container; checks and benchmarks; other DHCP servers and ssh
PACKAGES='
qemu-system-x86 ovmf qemu-system-arm qemu-efi-aarch64
ipxe dnsmasq-base samba nfs-ganesha nfs-ganesha-vfs
mmdebstrap debian-archive-keyring cpio gzip zstd
iproute2 util-linux smbclient nftables iptables
python3 python3-venv libpython3-dev binutils
systemd-container
busybox ca-certificates curl dash groff-base lftp nginx-light perl redis-server shellcheck systemd wget
isc-dhcp-server kea-dhcp4-server openssh-client openssh-server
'

missing() {
    for package in $PACKAGES; do
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || :) in
            installed) ;;
            *) printf '%s ' "$package" ;;
        esac
    done
}

known() {
    for package; do
        apt-cache show --no-all-versions "$package" >/dev/null 2>&1 || return 1
    done
}

end() {
    status=$?
    trap - EXIT
    if [ -n "${ours:-}" ]; then
        rm -f "$POLICY"
    fi
    if [ -n "${scratch:-}" ]; then
        rm -rf "$scratch"
    fi
    exit "$status"
}

forbid_daemons() {
    if [ -e "$POLICY" ] && ! grep -qxF "$MARK" "$POLICY"; then
        echo "packages.sh: $POLICY exists and stays as it is" >&2
        return
    fi
    ours=yes # an existing file with our mark is from a run that was killed
    printf '#!/bin/sh\n%s\nexit 101\n' "$MARK" >"$POLICY"
    chmod 755 "$POLICY"
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=600 "$@" >/dev/null
}

install_packages() {
    # shellcheck disable=SC2046 # words
    set -- $(missing)
    [ "$#" -gt 0 ] || return 0
    echo "packages.sh: installing $*"
    forbid_daemons
    known "$@" || apt update
    apt --no-install-recommends install "$@" </dev/null && return
    # The package lists may be older than the mirror.
    apt update
    apt --no-install-recommends install "$@" </dev/null
}

newer_ipxe() {
    for found in /usr/lib/ipxe/ipxe-arm64.efi "$IPXE/ipxe-arm64.efi"; do
        [ ! -e "$found" ] || return 0
    done
    scratch=$(mktemp -d)
    sh "$(dirname "$0")/../appliance/boot/daemons/fetch_packages.sh" "$scratch" "$NEWER" "$(dpkg --print-architecture)" ipxe
    mkdir -p "$IPXE"
    cp "$scratch/usr/lib/ipxe/ipxe-arm64.efi" "$IPXE/"
    echo "packages.sh: iPXE for arm64 from $NEWER is in $IPXE"
}

case ${1:-} in
    --list)
        # shellcheck disable=SC2086 # words
        printf '%s\n' $PACKAGES
        exit
        ;;
    '') [ -n "$(missing)" ] || exit 0 ;;
    --arm64) ;;
    *)
        echo "usage: packages.sh [--list | --arm64]" >&2
        exit 2
        ;;
esac

if ! command -v apt-get >/dev/null; then
    echo "packages.sh: no apt here; what is needed (Debian's names): $(missing)" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null; then
        exec sudo -- "$0" "$@"
    fi
    echo "packages.sh: root is needed to install: $(missing)" >&2
    exit 1
fi

trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
install_packages
# nfs-ganesha reads $MTAB, which the first boot makes; a container may have none.
[ -e "$MTAB" ] || ln -s ../proc/self/mounts "$MTAB"
if [ "${1:-}" = --arm64 ]; then
    newer_ipxe
fi
