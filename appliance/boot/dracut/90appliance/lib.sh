# shellcheck shell=sh
# Functions shared by the scripts of this module.  POSIX sh; sourced.

type getarg > /dev/null 2>&1 || . /lib/dracut-lib.sh

# shellcheck disable=SC2034  # used by the scripts that source this
APPLIANCE=/run/appliance # made in the initramfs; the new root sees it too

# Prints to every console (screen, serial line) and to the kernel's log.
say() {
    echo "<4>appliance: $*" > /dev/kmsg
}

now() {
    read -r _seconds _idle < /proc/uptime
    echo "${_seconds%.*}"
}

# Ends every failed boot: shows the reason on the console, then reboots.
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

# Reboots through the kernel: works without any service, init or disk.
reboot_now() {
    sync &
    sleep 1
    echo 1 > /proc/sys/kernel/sysrq
    echo b > /proc/sysrq-trigger
    sleep 30 # if this fails, dracut's init ends here, and a kernel without init panics and reboots
}
