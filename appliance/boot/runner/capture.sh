# shellcheck shell=sh
# Starts and stops the job, and catches what it prints: stdout, stderr, and both as `output`.

JOB_DIR=$P/tmp/lkp
RESULTS=$JOB_DIR/result # what the job leaves here is uploaded

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

# tee writes through, so that a person sees each line at once.  It goes on when a file is at its
# limit (ulimit counts blocks of 512 bytes) or the disk is full, since /dev/null never is: the job
# neither blocks nor dies of a full disk that is not its own.
catch() {
    ulimit -f $((RUNNER_OUTPUT_BYTES / 512))
    trap '' XFSZ
    exec tee -a "$FILES/output" /dev/null <"$RUN/$1" >>"$FILES/$1" 2>/dev/null
}

# A session of its own: what the runner stops is all of the job, and its `kill 0` only itself.
run_job() {
    cd "$JOB_DIR" || exit 1
    export RESULT_ROOT="$RESULTS" TMP_RESULT_ROOT="$RESULTS" TMP="$JOB_DIR" HOME="${HOME:-/root}"
    {
        echo 0 >"$P/proc/self/oom_score_adj"
        set -- "$JOB_SH" run_job
        [ -x "$JOB_SH" ] || set -- sh "$@"
        # What a shell starts in the background is deaf to INT and QUIT; profilers need them.
        ! env --default-signal=INT,QUIT true || set -- env --default-signal=INT,QUIT "$@"
        ! have setsid || set -- setsid "$@"
    } 2>/dev/null
    exec "$@"
}

stop_job() { # TERM, then KILL, for all that is left of its session
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

# Its session, not just its process group: timeout(1), for one, makes a group of its own.
job_processes() {
    [ "${job:-0}" -gt 1 ] || return
    for stat in /proc/[0-9]*/stat; do
        read -r line <"$stat" || continue
        # shellcheck disable=SC2086  # "pid (name) state parent group session ...", any name
        set -- "${line%% *}" ${line##*") "}
        [ "$2" = Z ] || { [ "$5" != "$job" ] && [ "$1" != "$job" ]; } || echo "$1"
    done 2>/dev/null
}

end_capture() { # a daemon that the job left behind may hold its output open for ever
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
