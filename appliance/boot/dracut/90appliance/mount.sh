#!/bin/sh
# Hook `mount`: mounts the root that parse.sh found; tries once.  Sourced, so a child does the work.

if [ -e /run/appliance/source ] && [ ! -e /run/appliance/tried ]; then
    : > /run/appliance/tried
    /sbin/appliance-root "$NEWROOT"
fi
