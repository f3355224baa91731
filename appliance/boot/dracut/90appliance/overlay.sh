#!/bin/sh
# rootovl: the root that all boxes share stays as it is; what this box writes stays in its memory.

. /lib/appliance-lib.sh

overlay_root() {
    # /run goes along into the new root, so both layers can be looked at there.
    layers=/run/appliance
    mkdir -p $layers/lower $layers/memory
    modprobe -q overlay
    mount --bind "$NEWROOT" $layers/lower || return
    umount "$NEWROOT" || return
    mount -t tmpfs -o mode=0755,size=80% overlay $layers/memory || return
    mkdir -p $layers/memory/upper $layers/memory/work
    mount -t overlay overlay "$NEWROOT" \
        -o "noatime,lowerdir=$layers/lower,upperdir=$layers/memory/upper,workdir=$layers/memory/work"
}

if getargbool 0 rootovl; then
    overlay_root || give_up "the overlay over the root filesystem does not mount"
    say "an overlay in memory covers the root filesystem"
fi
