#!/bin/sh
# Hooks `emergency` and `shutdown-emergency`: every other failure of the initramfs reboots the box
# here, before dracut would halt it or let the kernel panic.

. /lib/appliance-lib.sh
reboot_because "the initramfs could not finish; its messages are above"
