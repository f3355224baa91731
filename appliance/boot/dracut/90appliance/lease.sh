#!/bin/sh
# Hook `pre-pivot`: starts a DHCP client that renews a finite lease for as long as the box is up.
#
# The card keeps its address even if the lease ends (root.sh).  But then the DHCP server may give
# the address to another machine, and with two machines on one address this box loses its root
# filesystem.  The client is run from the new root, since nothing of the initramfs is left when the
# renewal is due.  It only renews and configures nothing: its script is `true`.

. /lib/appliance-lib.sh

appliance_keep_lease() {
    [ -e "$APPLIANCE/card" ] || return 0
    read -r card < "$APPLIANCE/card"
    seconds=$(sed -n 's/^seconds=//p' "$APPLIANCE/$card.lease")
    case "$seconds" in
        '' | *[!0-9]* | 4294967295) return 0 ;; # no end; 4294967295 means infinite
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
