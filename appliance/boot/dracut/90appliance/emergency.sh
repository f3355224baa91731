#!/bin/sh
# Hooks `emergency` and `shutdown-emergency`: whatever else fails in the initramfs ends here,
# before dracut would halt the box or leave it with a panic.

. /lib/appliance-lib.sh
reboot_because "the initramfs could not finish; its messages are above"
