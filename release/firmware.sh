#!/bin/sh
# Fetches, once, files that the tests boot and run and that are not packages of this machine.
#
#   firmware.sh FOLDER
#
#   FOLDER/bookworm, trixie, sid    iPXE: 1.0.0 of 2019, 1.21.1, and the newest (2.0.0 or later)
#   FOLDER/arm64                    a kernel and a busybox for arm64 boxes
#   FOLDER/nfs                      the tools of the kernel's NFS server, unpacked, not installed
set -eu

folder=$1
here=$(dirname "$0")

# $1 = the name of the result, which appears only when it is complete; the rest: fetch_packages.sh's
fetch() {
    name=$1
    shift
    [ ! -e "$folder/$name" ] || return 0
    echo "firmware.sh: fetching $* for $folder/$name"
    rm -rf "$folder/.$name.new"
    sh "$here/../appliance/boot/daemons/fetch_packages.sh" "$folder/.$name.new" "$@"
    mv "$folder/.$name.new" "$folder/$name"
}

mkdir -p "$folder"
for suite in bookworm trixie sid; do
    fetch "$suite" "$suite" amd64 ipxe
done
fetch arm64 bookworm arm64 linux-image-arm64@ busybox-static
fetch nfs bookworm amd64 nfs-kernel-server
