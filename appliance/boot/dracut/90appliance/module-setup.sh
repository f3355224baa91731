#!/bin/bash
# dracut's side of the module: what goes into an initramfs.lkp.  Sourced by dracut, never run.
#
# It stands on dracut's base alone.  dracut's own network, cifs and nfs modules differ from release
# to release, know neither the wire's root=cifs:// nor an overlay, and ask one card after the other:
# a box with an unplugged card and one that nobody answers took them more than four minutes.
#
# The kernel's modules are not in here: modules-<kernel version>.cgz follows as the second initrd.

# shellcheck disable=SC2154  # initdir and moddir are dracut's

check() {
    require_binaries ip dhclient chroot modprobe || return 1
    require_any_binary mount.cifs mount.nfs || return 1
    return 255 # only where somebody asks for it
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
    # The names of the cards are those that the new root will give them.
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
    # A box without a keyboard must not wait in a shell; the kernel line can still ask for one.
    mkdir -p "$initdir/etc/cmdline.d"
    echo "rd.shell=0 rd.emergency=reboot" > "$initdir/etc/cmdline.d/90appliance.conf"
}
