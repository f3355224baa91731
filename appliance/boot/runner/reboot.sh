# shellcheck shell=sh
# The way back into PXE.

reboot_box() {
    [ ! -e "$RUN/going-down" ] || exit 0 # the box is going down already
    boot_from_network
    say "rebooting"
    last_words
    feed_watchdog
    # systemd waits for this process to end, so another one completes the reboot.  It lives until
    # systemd-shutdown begins, which kills it and feeds the watchdog itself.
    insist 9>&- &
}

insist() {
    if [ -d "$P/run/systemd/system" ]; then
        timeout 30 "$(program systemctl)" --no-block reboot || timeout 30 "$(program reboot)"
    else
        timeout 30 "$(program reboot)"
    fi
    sleep "$RUNNER_REBOOT_FOR"
    timeout 15 "$(program reboot)" -f
    nap
    echo 1 >"$P/proc/sys/kernel/sysrq"
    echo b >"$P/proc/sysrq-trigger"
} 2>/dev/null

program() { # prints its whole path below $P, so a test can never reboot the machine it runs on
    for place in usr/bin usr/sbin bin sbin; do
        [ ! -x "$P/$place/$1" ] || break
    done
    echo "$P/$place/$1"
}

going_down() { # true if the box is stopping or restarting
    [ ! -e "$RUN/going-down" ] || return 0
    if [ -d "$P/run/systemd/system" ]; then
        [ "$(timeout 5 "$(program systemctl)" is-system-running)" = stopping ]
        return
    fi
    case $(timeout 5 "$(program runlevel)") in
        *' 0' | *' 6') return 0 ;;
    esac
    case $(cat "$P/run/openrc/softlevel") in
        shutdown | reboot) return 0 ;;
    esac
    return 1
} 2>/dev/null
