#!/bin/bash
# Tells dracut what goes into an initramfs.lkp.  Sourced by dracut, never run.
#
# It depends only on dracut's base.  dracut's own network, cifs and nfs modules differ from release
# to release, support neither the wire's root=cifs:// nor an overlay, and try one card after the
# other: with one card unplugged and one without a DHCP answer they took more than four minutes.
#
# It contains no kernel modules: modules-<kernel version>.cgz follows as the second initrd.

# shellcheck disable=SC2154  # initdir and moddir are dracut's

check() {
    require_binaries ip dhclient chroot modprobe || return 1
    require_any_binary mount.cifs mount.nfs || return 1
    return 255 # include it only on request
}

depends() {
    echo base
}

install() {
    inst_multiple ip dhclient mount umount chroot modprobe cat sleep mkdir rmdir rm mv uname sync \
        sed head
    inst_multiple -o mount.cifs mount.nfs mount.nfs4
    inst_multiple -o /etc/services /etc/protocols /etc/netconfig /etc/nsswitch.conf
    inst_libdir_file 'libnss_dns.so*' 'libnss_files.so*' 'libcap-ng.so*' 'libnfsidmap*.so*'
    # So that the cards get the same names here as in the new root.
    inst_multiple -o /usr/lib/systemd/network/99-default.link /lib/systemd/network/99-default.link
    mkdir -p "$initdir/var/lib/nfs/rpc_pipefs" "$initdir/var/lib/dhcp" "$initdir/run"

    inst_hook cmdline 91 "$moddir/parse.sh"
    inst_hook mount 10 "$moddir/mount.sh"
    inst_hook pre-pivot 50 "$moddir/deploy.sh"
    inst_hook pre-pivot 60 "$moddir/lease.sh"
    inst_hook emergency 99 "$moddir/emergency.sh"
    inst_hook shutdown-emergency 99 "$moddir/emergency.sh"
    inst_script "$moddir/root.sh" /sbin/appliance-root
    inst_script "$moddir/dhcp.sh" /sbin/appliance-dhcp
    inst_simple "$moddir/lib.sh" /lib/appliance-lib.sh
    inst_simple "$moddir/copy.sh" /lib/appliance-copy.sh
    # No emergency shell, since a box may have no keyboard; the kernel line can still enable it.
    mkdir -p "$initdir/etc/cmdline.d"
    echo "rd.shell=0 rd.emergency=reboot" > "$initdir/etc/cmdline.d/90appliance.conf"
}
