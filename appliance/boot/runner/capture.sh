# shellcheck shell=sh
# Starts and stops the job, and captures its output: stdout, stderr, and both as `output`.

JOB_DIR=$P/tmp/lkp
RESULTS=$JOB_DIR/result # the job's files in here are uploaded

start_job() {
    mkdir -p "$RESULTS"
    mkfifo "$RUN/stdout" "$RUN/stderr"
    catch stdout &
    catching=$!
    catch stderr &
    catching="$catching $!"
    run_job >"$RUN/stdout" 2>"$RUN/stderr" &
    job=$!
    remember job "$job"
}

# tee does not buffer, so a person sees each line at once.  When a file reaches its limit (ulimit
# counts blocks of 512 bytes) or the disk is full, tee goes on writing to /dev/null: the job neither
# blocks nor dies because the runner's files cannot grow.
catch() {
    ulimit -f $((RUNNER_OUTPUT_BYTES / 512))
    trap '' XFSZ
    exec tee -a "$FILES/output" /dev/null <"$RUN/$1" >>"$FILES/$1" 2>/dev/null
}

# The job gets its own session: the runner can stop all of it, and the job's `kill 0` does not reach
# the runner.
run_job() {
    cd "$JOB_DIR" || exit 1
    export RESULT_ROOT="$RESULTS" TMP_RESULT_ROOT="$RESULTS" TMP="$JOB_DIR" HOME="${HOME:-/root}"
    {
        echo 0 >"$P/proc/self/oom_score_adj"
        set -- "$JOB_SH" run_job
        [ -x "$JOB_SH" ] || set -- sh "$@"
        # A shell makes its background processes ignore INT and QUIT, but profilers need them.
        ! env --default-signal=INT,QUIT true || set -- env --default-signal=INT,QUIT "$@"
        ! have setsid || set -- setsid "$@"
    } 2>/dev/null
    exec "$@"
}

stop_job() { # sends TERM, then KILL, to all processes left in its session
    signal_job TERM
    wait_for_job "$RUNNER_GRACE" && return
    say "the job does not stop: killed"
    signal_job KILL
    wait_for_job 10 || say "the job cannot be killed"
}

signal_job() {
    for pid in $(job_processes); do
        kill -s "$1" "$pid" 2>/dev/null
    done
}

wait_for_job() { # SECONDS
    now
    until=$((now + $1))
    while [ -n "$(job_processes)" ]; do
        now
        [ "$now" -lt "$until" ] || return
        nap
    done
}

# By session, not by process group: timeout(1), for example, makes its own group.
job_processes() {
    [ "${job:-0}" -gt 1 ] || return
    for stat in /proc/[0-9]*/stat; do
        read -r line <"$stat" || continue
        # shellcheck disable=SC2086  # "pid (name) state parent group session ...", any name
        set -- "${line%% *}" ${line##*") "}
        [ "$2" = Z ] || { [ "$5" != "$job" ] && [ "$1" != "$job" ]; } || echo "$1"
    done 2>/dev/null
}

end_capture() { # with a time limit: a daemon left by the job may keep the output open for ever
    now
    until=$((now + RUNNER_DRAIN))
    for pid in $catching; do
        while alive "$pid" && [ "$now" -lt "$until" ]; do
            nap
            now
        done
        kill -9 "$pid" 2>/dev/null
    done
    for file in stdout stderr output; do
        [ "$(size_of "$FILES/$file")" -lt $((RUNNER_OUTPUT_BYTES / 512 * 512)) ] ||
            printf '\n[the runner keeps %s bytes; the rest is lost]\n' "$RUNNER_OUTPUT_BYTES" \
                >>"$FILES/$file"
    done
}
