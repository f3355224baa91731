#!/bin/sh
# Runs the job that came with this boot, hands its results to the server, reboots into PXE.
#
# The job is arbitrary code that runs as root and may kill any of these processes:
#
#   guard    (this file)  feeds the hardware watchdog, gives up at the deadline, reboots
#   worker   attempt.sh   talks to the server, starts the job, watches it, uploads
#   console  console.sh   shows what the others wrote; only this one may block on a slow line
#   job      runs in its own session; capture.sh captures its output
#
# If the worker is killed, another one uploads what is left.  If the guard is killed, systemd starts
# it again; without systemd the watchdog is not fed any more and resets the box.
#
# Every script is read completely before the job starts, since the job may overwrite it.  Every path
# that is written, or that describes the hardware, begins with $P: set by tests (RUNNER_ROOT), empty
# on testboxes.

# shellcheck source-path=SCRIPTDIR

P=${RUNNER_ROOT:-}
JOB_SH=$P/lkp/scheduled/job.sh
HERE=$(dirname "$0")
NL='
'

# Seconds.  Tests make them short.
: "${RUNNER_TICK:=1}"          # between two checks of guard and worker
: "${RUNNER_NETWORK_FOR:=300}" # a switch port's spanning tree takes 50, a server's restart 60
: "${RUNNER_POLL:=10}"         # between two questions whether the job is still wanted
: "${RUNNER_SILENCE:=30}"      # without a byte from the server, until it counts as away
: "${RUNNER_RETRY_FOR:=600}"   # the server may be away so long: an upgrade, a reboot
: "${RUNNER_RETRY_PAUSE:=5}"
: "${RUNNER_GRACE:=30}"        # from TERM to KILL
: "${RUNNER_DRAIN:=5}"         # for the last output; daemons may keep it open for ever
: "${RUNNER_UPLOAD_FOR:=1200}" # the server closes a post_run after 1800
: "${RUNNER_CONSOLE_FOR:=30}"  # for the last lines at 115200 baud
: "${RUNNER_REBOOT_FOR:=120}"  # until a forced reboot; systemd gives a stopping service 90
: "${RUNNER_WATCHDOG:=120}"    # longer than a busy box's worst stall, and than a clean shutdown
: "${RUNNER_SLACK_MIN:=150}"   # half of what the server adds to `runtime` before it gives up

# The limit of each of stdout, stderr and output.  They are kept in memory, 96 MiB at worst: a fifth
# of 512 MiB of RAM, which is what systemd gives /run.
: "${RUNNER_OUTPUT_BYTES:=33554432}"
: "${RUNNER_CONSOLE_BYTES:=262144}" # 23 seconds of a serial line

# shellcheck source=http.sh
. "$HERE/http.sh"
# shellcheck source=report.sh
. "$HERE/report.sh"
# shellcheck source=upload.sh
. "$HERE/upload.sh"
# shellcheck source=capture.sh
. "$HERE/capture.sh"
# shellcheck source=attempt.sh
. "$HERE/attempt.sh"
# shellcheck source=console.sh
. "$HERE/console.sh"
# shellcheck source=watchdog.sh
. "$HERE/watchdog.sh"
# shellcheck source=reboot.sh
. "$HERE/reboot.sh"
# shellcheck source=firmware.sh
. "$HERE/firmware.sh"

main() {
    [ -e "$JOB_SH" ] || exit 0 # a plain boot
    [ -n "$P" ] || PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    cd / || exit 1
    umask 022
    told=
    trap 'told=1' TERM
    take_lock
    exec </dev/null >/dev/null 2>>"$FILES/runner.log"
    # When memory runs out the kernel must kill the job first; capture.sh resets this for the job.
    echo -900 2>/dev/null >"$P/proc/self/oom_score_adj"
    read_job
    choose_client
    open_console
    arm_watchdog
    guard
    reboot_box
}

take_lock() { # a boot runs its job only once, however often this script is started
    { read -r boot <"$P/proc/sys/kernel/random/boot_id"; } 2>/dev/null || boot=boot
    RUN=$P/run/lkp-runner-$boot
    [ -w "$P/run" ] || RUN=$P/tmp/lkp-runner-$boot
    FILES=$RUN/files # our own results, outside /tmp, which the job may change
    again=
    if mkdir -m 700 "$RUN" 2>/dev/null; then
        mkdir "$FILES"
    else
        again=1
        other=$(recall guard)
        alive "$other" && tr '\0' ' ' <"/proc/$other/cmdline" | grep -q 'runner\.sh' && exit 0
    fi
    remember guard $$
    for file in runner.log output stdout stderr; do
        : >>"$FILES/$file"
    done
}

guard() {
    now
    deadline=$((now + RUNNER_NETWORK_FOR + limit + RUNNER_GRACE + RUNNER_UPLOAD_FOR +
        3 * RUNNER_RETRY_FOR))
    if [ -n "$again" ]; then
        say "started again on this boot: the job does not run twice"
        worker=$(recall worker)
    else
        start attempt
    fi
    watch_worker || return
    [ ! -e "$RUN/over" ] || return
    say "the worker was killed: saving what is left"
    start salvage
    watch_worker
}

start() {
    "$1" 9>&- &
    worker=$!
    remember worker "$worker"
}

watch_worker() { # false: the worker hangs
    while alive "$worker"; do
        feed_watchdog
        if [ -n "$told" ]; then # TERM from systemd as the box goes down, or from the job
            told=
            if going_down; then
                : >"$RUN/going-down"
            fi
        fi
        now
        if [ "$now" -ge "$deadline" ]; then
            say "past the deadline, and the worker hangs"
            kill -9 "$worker"
            watchdog= # not fed any more: the hardware resets the box if anything hangs from here on
            return 1
        fi
        nap
    done
}

now() { # sets $now: seconds since the boot, independent of the wall clock
    { read -r now _ </proc/uptime; } 2>/dev/null || now=$(date +%s)
    now=${now%%.*}
}

nap() { sleep "$RUNNER_TICK"; }

say() { # writes to the log, which is uploaded and shown by the console process
    now
    echo "[$now] $*" >>"$FILES/runner.log"
}

alive() { # false for a zombie, too
    [ "${1:-0}" -gt 1 ] && { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return
    case ${stat##*") "} in
        Z*) return 1 ;;
    esac
}

have() { command -v "$1" >/dev/null 2>&1; }

# Values stored in files, in case the job kills this process.
remember() { echo "$2" >"$RUN/$1"; }

recall() { cat "$RUN/$1" 2>/dev/null; }

main; exit 0 # on one line, so the shell reads no more of this file after the job has run
