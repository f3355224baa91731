#!/bin/sh
# Hook `pre-pivot`: keeps a DHCP client for as long as the box is up, where the lease has an end.
#
# The address stays on its card whatever becomes of the lease (root.sh).  But a server that hears
# nothing more of this box may give it to another machine, and two that answer for one address
# cost this one its root filesystem.  The client is the new root's own, since nothing of the
# initramfs is left when it is time to renew; and it only talks: its script is `true`.

. /lib/appliance-lib.sh

appliance_keep_lease() {
    [ -e "$APPLIANCE/card" ] || return 0
    read -r card < "$APPLIANCE/card"
    seconds=$(sed -n 's/^seconds=//p' "$APPLIANCE/$card.lease")
    case "$seconds" in
        '' | *[!0-9]* | 4294967295) return 0 ;; # which is for ever
    esac
    place=/var/lib/appliance-lease
    mkdir -p "$NEWROOT$place" &&
        cat "$APPLIANCE/$card.leases" > "$NEWROOT$place/leases" &&
        echo "retry 60;" > "$NEWROOT$place/conf" &&
        mount --bind /proc "$NEWROOT/proc" &&
        chroot "$NEWROOT" dhclient -4 -nw -q -sf /bin/true -cf $place/conf -pf $place/pid \
            -lf $place/leases "$card" > /dev/null 2>&1 ||
        say "no DHCP client in the root: $card may lose its address after $seconds s"
    umount -l "$NEWROOT/proc" 2> /dev/null
}

appliance_keep_lease
