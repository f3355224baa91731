#!/bin/sh
# Hook `pre-pivot`: copies the contents of the later initrds into the new root.
#
#   /lkp                          the job and its runner
#   /lkp/lkp/src/rootfs/addon     copied over /: the service that starts the runner, and more
#   /opt /usr/local /usr/src      where a job's packages unpack to
#   /lib/modules /lib/firmware    if the image has none (modules: none for this kernel)
#
# Without /lkp this is a plain boot of the image.

. /lib/appliance-lib.sh

appliance_copy() { # FOLDER [INTO]
    [ -d "/$1" ] || return 0
    chroot "$NEWROOT" /bin/sh -s "/run/initramfs-files/$1" "${2-$1}" < /lib/appliance-copy.sh ||
        reboot_because "/$1 could not be copied into the root"
}

appliance_deploy() {
    # A folder in the new root's own /run, which the real /run will hide later.
    if ! mkdir -p "$NEWROOT/run/initramfs-files" 2> /dev/null; then
        [ ! -d /lkp ] || reboot_because "the root cannot be written to: is rootovl missing?"
        return
    fi
    mount --bind / "$NEWROOT/run/initramfs-files"
    appliance_copy custom_bootstrap ""
    if [ -d /lkp ]; then
        appliance_copy lkp
        appliance_copy lkp/lkp/src/rootfs/addon ""
        appliance_copy opt
        appliance_copy usr/local
        appliance_copy usr/src
        say "/lkp is in the root"
    fi
    [ -d "$NEWROOT/lib/modules/$(uname -r)" ] || appliance_copy "lib/modules/$(uname -r)"
    [ -d "$NEWROOT/lib/firmware" ] || appliance_copy lib/firmware
    umount "$NEWROOT/run/initramfs-files"
    rmdir "$NEWROOT/run/initramfs-files"
    if [ -s /etc/resolv.conf ] && [ -e "$APPLIANCE/source" ]; then
        rm -f "$NEWROOT/etc/resolv.conf"
        cat /etc/resolv.conf > "$NEWROOT/etc/resolv.conf"
    fi
}

appliance_deploy
