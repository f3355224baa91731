# shellcheck shell=sh
# The hardware watchdog resets the box when it is not fed any more, as when the kernel hangs.

arm_watchdog() {
    watchdog=
    # Each module binds only to its own hardware.  Not softdog, which would hang with the kernel.
    for module in "iTCO_wdt heartbeat=" "sp5100_tco heartbeat=" "i6300esb heartbeat=" \
        "ipmi_watchdog timeout="; do
        find_watchdog && break
        # shellcheck disable=SC2086  # a module's name and its parameter
        timeout 10 modprobe -q $module"$RUNNER_WATCHDOG"
    done
    find_watchdog || return
    about=$P/sys/class/watchdog/${watchdog_device##*/}
    identity='' seconds=unknown
    read -r identity <"$about/identity"
    [ "$identity" != "Software Watchdog" ] || return
    # Set before the watchdog runs: a driver loaded earlier has its own timeout, often 30 seconds.
    timeout 10 wdctl --settimeout "$RUNNER_WATCHDOG" "$watchdog_device"
    # Only one process can open it: "busy" means that systemd feeds it.
    if command exec 9>"$watchdog_device"; then
        watchdog=1
        feed_watchdog
        read -r seconds <"$about/timeout"
        say "the hardware watchdog is armed: ${identity:-$watchdog_device}, $seconds s"
    else
        say "the hardware watchdog belongs to somebody else"
    fi
} 2>/dev/null

find_watchdog() {
    for watchdog_device in "$P/dev/watchdog0" "$P/dev/watchdog"; do
        [ ! -e "$watchdog_device" ] || return 0
    done
    return 1
}

# The device is never closed with the magic V, so the watchdog stays armed through the reboot until
# the firmware takes over, or systemd, which opens it for the last stage of a shutdown.
feed_watchdog() {
    [ -z "$watchdog" ] || printf . >&9
} 2>/dev/null
