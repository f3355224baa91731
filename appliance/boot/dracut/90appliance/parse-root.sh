#!/bin/sh
# root=cifs://[user[:password]@]host/path[,mount options]; NFS is dracut's own affair.
# Sourced, so $root and $netroot are dracut's.

echo 10 > /proc/sys/kernel/panic

[ -n "$root" ] || root=$(getarg root=)
case "$root" in
    cifs://*)
        netroot=$root
        unset root
        ;;
esac
case "$netroot" in
    cifs://*)
        # shellcheck disable=SC2034  # dracut asks: has anyone understood root=?
        rootok=1
        # shellcheck disable=SC2016,SC2154  # expanded when the initqueue asks whether it is done
        echo '[ -e $NEWROOT/proc ]' > "$hookdir/initqueue/finished/appliance.sh"
        ;;
esac
