#!/bin/sh
# cifsroot INTERFACE ROOT NEWROOT: mount it, trying again while the server is away.

. /lib/appliance-lib.sh

root=${2#cifs://}
newroot=$3
options=ro
case "$root" in
    *,*) options=${root#*,} ;;
esac
share=${root%%,*}
case "$share" in
    *@*)
        user=${share%@*}
        share=${share##*@}
        case "$user" in
            *:*) options="$options,username=${user%%:*},password=${user#*:}" ;;
            *) options="$options,username=$user" ;;
        esac
        ;;
esac

[ -e "$newroot/proc" ] && exit 0

# Two minutes: longer than an smbd needs to restart, shorter than a person's patience.
left=60
while ! complaint=$(mount.cifs "//$share" "$newroot" -o "$options" 2>&1); do
    left=$((left - 1))
    [ "$left" -gt 0 ] || give_up "//$share does not mount: $complaint"
    [ $((left % 10)) -eq 9 ] && say "//$share does not mount, trying again: $complaint"
    sleep 2
done
say "mounted //$share (cifs, $1)"
[ -d "$newroot/proc" ] || give_up "//$share is no root filesystem: it has no /proc"

# dracut's initqueue waits for udev until there is something at /dev/root.
[ -e /dev/root ] || ln -s null /dev/root
