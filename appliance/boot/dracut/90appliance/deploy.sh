#!/bin/sh
# What the initrds after ours brought (the job, the runner, packages, modules) into the new root.

. /lib/appliance-lib.sh

# Each file of $1 over the same place in the new root.  One by one: where the new root has a
# symlink to a folder (/lib -> usr/lib), a copy of the whole tree would stumble.
lay_over() {
    (
        cd "$1" || exit 1
        find . -type d -exec sh -c 'for d; do mkdir -p "$NEWROOT/$d" || exit 1; done' sh {} + \
            && find . ! -type d -exec sh -c \
                'for f; do cp -a --remove-destination "$f" "$NEWROOT/$f" || exit 1; done' sh {} +
    )
}

deploy() {
    if [ -d /custom_bootstrap ]; then
        lay_over /custom_bootstrap || return
    fi
    [ -d /lkp ] || return 0 # a plain boot
    cp -a /lkp "$NEWROOT/" || return
    if [ -d /lkp/lkp/src/rootfs/addon ]; then
        lay_over /lkp/lkp/src/rootfs/addon || return
    fi
    for tree in opt usr/local usr/src; do
        [ -d "/$tree" ] || continue
        mkdir -p "$NEWROOT/$tree" && cp -a "/$tree/." "$NEWROOT/$tree/" || return
    done
    say "laid the job's files over the root filesystem"
}

# A folder of /lib, where the new root has none of its own.
lend() {
    [ -d "/lib/$1" ] || return 0
    for theirs in "$NEWROOT/lib/$1/"*; do
        [ -e "$theirs" ] && return 0
    done
    mkdir -p "$NEWROOT/lib/$1" && cp -a "/lib/$1/." "$NEWROOT/lib/$1/"
}

export NEWROOT
deploy || give_up "the job's files do not fit into the root filesystem"
if lend "modules/$(uname -r)" && lend firmware; then :; else
    give_up "the kernel's modules do not fit into the root filesystem"
fi
# The name servers that DHCP told, where the new root knows none.
if [ -s /etc/resolv.conf ] && [ ! -s "$NEWROOT/etc/resolv.conf" ]; then
    rm -f "$NEWROOT/etc/resolv.conf"
    cp /etc/resolv.conf "$NEWROOT/etc/resolv.conf"
fi
