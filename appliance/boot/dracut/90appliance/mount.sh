#!/bin/sh
# Hook `mount`: the root that parse.sh found, once.  Sourced, so the work is done in a child.

if [ -e /run/appliance/source ] && [ ! -e /run/appliance/tried ]; then
    : > /run/appliance/tried
    /sbin/appliance-root "$NEWROOT"
fi
