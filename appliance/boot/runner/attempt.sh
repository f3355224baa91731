# shellcheck shell=sh
# One attempt, from the first report to the last.

attempt() {
    incomplete=
    if begin; then
        start_time=$(date +%s)
        ooms=$(oom_kills)
        remember start "$start_time"
        remember ooms "$ooms"
        start_job
        watch_job
        end_capture
        echo "$code" >"$FILES/exit-code"
        say "the job ended with status $code"
        hand_over
    fi
    : >"$RUN/over"
}

salvage() { # after the first worker was killed: the job's exit status is unknown
    ended='' incomplete=1 code=1
    start_time=$(recall start)
    ooms=$(recall ooms)
    job=$(recall job)
    catching=''
    find_interface
    stop_job
    end_capture
    hand_over
    : >"$RUN/over"
}

begin() { # false: there is no job to run, or it is not wanted, or the server cannot be reached
    now
    echo "$now" >"$FILES/boot-time"
    if [ -z "$id" ] || [ -z "$server" ]; then
        say "job.sh says no id or no LKP_SERVER: not started"
    elif [ -z "$client" ]; then
        say "this image has no curl, GNU wget, python3, perl or nc to reach the server with"
    elif wait_for_server; then
        find_interface
        say "job $id on $testbox ($ip, $mac), for at most $limit s; HTTP by ${client%_client}"
        wtmp running
        job_state running && return
        say "the server stays away: not started"
    fi
    return 1
}

wait_for_server() {
    now
    until=$((now + RUNNER_NETWORK_FOR)) asked=0
    while [ "$now" -lt "$until" ]; do
        still_wanted || {
            say "job $id is not wanted any more: not started"
            return 1
        }
        case $status in
            000 | 5??) ;;
            *) return 0 ;;
        esac
        [ $((asked % 15)) -ne 0 ] || say "waiting for $prefix: $(network_problem)"
        asked=$((asked + 1))
        nap
        now
    done
    say "no way to the server: not started"
    return 1
}

network_problem() {
    if ip addr show scope global 2>/dev/null | grep -q inet; then
        echo "no answer (status $status)"
    else
        echo "no interface has an address"
    fi
}

watch_job() { # sets $code, and $ended if the job did not end by itself
    ended='' code=0
    now
    stop_at=$((now + limit)) poll_at=$((now + RUNNER_POLL))
    while alive "$job"; do
        now
        if [ -e "$RUN/going-down" ]; then
            ended=going-down
        elif [ "$now" -ge "$stop_at" ]; then
            ended=soft_timeout
        elif [ "$now" -ge "$poll_at" ]; then
            still_wanted || ended=cancelled
            poll_at=$((now + RUNNER_POLL))
        fi
        [ -z "$ended" ] || break
        nap
    done
    [ -z "$ended" ] || say "stopping the job: $ended"
    stop_job # also the processes left behind by a job that ended by itself
    if [ -n "$(job_processes)" ]; then
        code=137 # KILL did not end it: waiting would take for ever
    else
        wait "$job" || code=$?
    fi
    # A job that restarts its box ends before the box goes down.
    if [ -z "$ended" ] && going_down; then
        ended=going-down
        : >"$RUN/going-down"
    fi
}

# Uploads the results and sends the verdict.  None is needed if the server cancelled the job, or if
# the box goes down: the server notices by itself that the job restarted its box.
hand_over() {
    end_time=$(date +%s)
    keep_facts
    case $ended in
        cancelled) upload_all ;;
        going-down)
            RUNNER_RETRY_FOR=0
            upload_all
            ;;
        *)
            job_state post_run
            upload_all
            append "loadavg=$(escape "$loadavg")&start_time=$start_time&end_time=$end_time"
            job_state "$(verdict)"
            cgi lkp-post-run "$about_job"
            ;;
    esac
    wtmp rebooting
}

verdict() {
    if [ "$code" -ne 0 ] && [ "$(oom_kills)" != "$ooms" ]; then
        echo OOM
    elif [ "$ended" = soft_timeout ]; then
        echo soft_timeout
    elif [ -n "$incomplete" ]; then
        echo incomplete
    elif [ "$code" -ne 0 ]; then
        echo failed
    else
        echo finished
    fi
}

oom_kills() { timeout 10 dmesg 2>/dev/null | grep -c -i -e 'out of memory:' -e 'oom-kill:'; }

keep_facts() { # for a later analysis
    loadavg=
    read -r loadavg <"$P/proc/loadavg"
    cat "$P/proc/uptime" "$P/proc/loadavg" "$P/proc/meminfo" >"$FILES/uptime"
    timeout 10 dmesg >"$FILES/dmesg"
} 2>/dev/null
