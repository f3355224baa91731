# shellcheck shell=sh disable=SC2034 # the other files read these
# Every place, interval and limit of the runner; tests set their own in the environment.

: "${JOB_SH:=/lkp/scheduled/job.sh}"
: "${JOB_YAML:=/lkp/scheduled/job.yaml}"
: "${LOCK:=/var/lock/lkp-bootstrap.lock}"
: "${RESULT_ROOT:=/tmp/lkp/result}"
: "${CONSOLE:=/dev/console}"
: "${KERNEL_LOG:=/dev/kmsg}"
: "${PROC:=/proc}"
: "${SYS:=/sys}"
: "${DEV:=/dev}"
: "${SYSRQ:=/proc/sysrq-trigger}"
: "${TICK:=1}" # seconds between two looks at the job

: "${NETWORK_SECONDS:=300}" # DHCP on a switch with spanning tree takes up to a minute
: "${ASK_SECONDS:=10}"      # between two still-wanted
: "${AWAY_SECONDS:=600}"    # a server that is restarted or repaired comes back within this
: "${AWAY_PAUSE:=5}"        # between two tries
: "${REPLY_SECONDS:=10}"    # one report; less than any watchdog's time
: "${STALL_SECONDS:=60}"    # an upload that moves no byte for this long is broken off
: "${TERM_SECONDS:=10}"     # from TERM to KILL for a job that must stop
: "${PIPE_SECONDS:=5}"      # for output still in the pipes when the job is over
: "${REBOOT_SECONDS:=100}"  # systemd gives each service 90 s to stop
: "${FORCE_SECONDS:=10}"    # for `reboot -f`

# The results lie in RAM, on the overlay's tmpfs (half of it by default); 64 MiB for each of stdout and
# stderr leaves room on a box of 1 GiB.
: "${OUTPUT_BYTES:=67108864}"
# 128 KiB are 12 s on a serial line of 115200 baud.
: "${CONSOLE_BYTES:=131072}"
