# shellcheck shell=sh
# Reads job.sh, and sends reports to the server in the protocol of LKP clients of 2021.

read_job() { # sets the variables that the runner itself needs
    {
        read -r id
        read -r job_file
        read -r testbox
        read -r result_root
        read -r server
        read -r cgi_port
        read -r upload_port
        read -r prefix
        read -r sched_host
        read -r timeout
        read -r runtime
    } <<END
$(job_values)
END
    : "${prefix:=http://$server:${cgi_port:-3000}/~lkp}"
    limit=$(time_limit "$timeout" "$runtime")
    job_id=job_id=$(escape "$id")
    about_job=job_file=$(escape "${job_file:-/lkp/scheduled/job.yaml}")\&$job_id
}

# Runs in its own shell: the job's variables may be called PATH or http_proxy.
job_values() {
    set -- # no arguments, since job.sh would run them
    # shellcheck source=/dev/null
    . "$JOB_SH"
    export_top_env
    # shellcheck disable=SC2153,SC2154  # job.sh sets them
    for value in "$id" "$job" "$testbox" "$result_root" "$LKP_SERVER" "$LKP_CGI_PORT" \
        "$RESULT_WEBDAV_PORT" "$HTTP_PREFIX" "$SCHED_HOST" "$timeout" "$runtime"; do
        echo "${value%%"$NL"*}"
    done
} 2>/dev/null

# The server ends the attempt after `timeout`, or `runtime` + max(runtime/8, 300) + sqrt(runtime);
# the runner stops the job somewhat before, so that its results still arrive in time.
time_limit() { # TIMEOUT RUNTIME
    if is_number "$1"; then
        margin=$(($1 / 10))
        [ "$margin" -lt 30 ] || margin=30
        echo $(($1 - margin))
        return
    fi
    is_number "$2" || set -- '' 3600
    slack=$(($2 / 16))
    [ "$slack" -ge "$RUNNER_SLACK_MIN" ] || slack=$RUNNER_SLACK_MIN
    echo $(($2 + slack))
}

is_number() {
    case $1 in
        '' | *[!0-9]*) return 1 ;;
    esac
}

cgi() { # VERB QUERY
    persist GET "$prefix/cgi-bin/$1?$2"
}

append() { # NAME=VALUE[&...]
    cgi lkp-jobfile-append-var "$about_job&$1"
}

job_state() {
    say "job_state=$1"
    append "job_state=$1"
}

wtmp() { # running, rebooting: a sign of life, sent once without retries
    set -- "tbox_name=$(escape "$testbox")&tbox_state=$1&mac=$(escape "$mac_word")&ip=$(escape "$ip")"
    http GET "$prefix/cgi-bin/lkp-wtmp?$1&$job_id"
}

still_wanted() { # false only if the server says so
    http GET "$prefix/cgi-bin/still-wanted?$job_id"
    [ "$status $body" != "200 no" ]
}

find_interface() { # sets $mac and $ip of the interface that routes to the server
    device='' ip='' mac='' mac_word=''
    # shellcheck disable=SC2046  # the words are wanted
    set -- $(ip route get "$server")
    while [ "$#" -gt 1 ]; do
        case $1 in
            dev) device=$2 ;;
            src) ip=$2 ;;
        esac
        shift
    done
    if [ -z "$device" ]; then
        for device in "$P"/sys/class/net/*; do
            state=
            read -r state <"$device/operstate"
            [ "$state" != up ] || break
        done
        device=${device##*/}
    fi
    read -r mac <"$P/sys/class/net/$device/address"
    mac_word=$mac
    [ -z "$sched_host" ] || mac_word=$(printf %s "$mac" | tr : -)
} 2>/dev/null
