#!/bin/bash
# Tells dracut what an appliance initramfs needs: a root over CIFS or NFS under an overlay, the
# job's files laid over it, and a reboot wherever dracut would open a shell.
#
# The kernel's modules are not in here: modules-<kernel version>.cgz follows as the second initrd.

check() {
    require_binaries mount.cifs modprobe find cp || return 1
    return 255 # only where asked for
}

depends() {
    echo network
}

install() {
    inst_multiple mount.cifs mount umount modprobe find cp mkdir uname sleep
    inst_simple "$moddir/appliance-lib.sh" /lib/appliance-lib.sh
    # The network's own module calls "<scheme>root" as soon as an interface is up.
    inst_script "$moddir/mount-cifs.sh" /sbin/cifsroot
    inst_hook cmdline 90 "$moddir/parse-root.sh"
    inst_hook pre-pivot 10 "$moddir/overlay.sh"
    inst_hook pre-pivot 50 "$moddir/deploy.sh"
    inst_hook shutdown-emergency 10 "$moddir/emergency.sh"
    mkdir -p "$initdir/etc/cmdline.d"
    echo "rd.shell=0 rd.emergency=reboot rd.retry=120" > "$initdir/etc/cmdline.d/90-appliance.conf"
    dracut_need_initqueue
}
