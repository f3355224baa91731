# shellcheck shell=sh
# What the scripts of this module share.  POSIX sh; sourced.

type getarg > /dev/null 2>&1 || . /lib/dracut-lib.sh

# shellcheck disable=SC2034  # for those who source this
APPLIANCE=/run/appliance # of the initramfs; the new root sees it too

# To every console: a screen, a serial line, and whoever reads the kernel's log afterwards.
say() {
    echo "<4>appliance: $*" > /dev/kmsg
}

now() {
    read -r _seconds _idle < /proc/uptime
    echo "${_seconds%.*}"
}

# The only way out of a boot that failed: its reason on the console, then the next boot.
reboot_because() {
    say "CANNOT BOOT: $*"
    if getargbool 0 rd.shell; then
        say "rd.shell is on the kernel line: no reboot"
        return 1
    fi
    say "rebooting in 10 s"
    sleep 10
    reboot_now
}

# The kernel's own way: no service, no init and no disk has to work for it.
reboot_now() {
    sync &
    sleep 1
    echo 1 > /proc/sys/kernel/sysrq
    echo b > /proc/sysrq-trigger
    sleep 30 # no way back: dracut's init ends here, and a kernel without init panics and reboots
}
