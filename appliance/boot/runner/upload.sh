# shellcheck shell=sh
# Uploads the results: the runner's own files, then the files in the job's result directory.

OWN='stdout stderr output exit-code boot-time uptime dmesg runner.log'

upload_all() { # sets $incomplete if not everything arrived
    now
    upload_until=$((now + RUNNER_UPLOAD_FOR)) hopeless=
    for name in $OWN; do
        [ "$name" = runner.log ] || [ ! -e "$FILES/$name" ] || upload "$FILES/$name" "$name"
    done
    upload_results
    upload "$FILES/runner.log" runner.log # last, since it records failed uploads
}

upload_results() {
    # Not through a symlink: one to / would upload the whole system.
    [ -d "$RESULTS" ] && [ ! -L "$RESULTS" ] || return 0
    list=$(cd "$RESULTS" && find . -type f ! -path "*$NL*" | sort)
    odd=$(cd "$RESULTS" && find . -type f -path "*$NL*")
    set -f
    IFS=$NL
    # shellcheck disable=SC2086  # split into lines, one path each
    set -- $list
    unset IFS
    set +f
    for path; do
        path=${path#./}
        case " $OWN " in
            *" $path "*) say "not uploaded: the job's own $path, which the runner writes itself" ;;
            *) upload "$RESULTS/$path" "$path" ;;
        esac
    done
    [ -z "$odd" ] || {
        incomplete=1
        say "not uploaded: files with a line break in their path"
    }
}

upload() { # FILE NAME
    [ -z "$hopeless" ] || return 0
    url=http://$server:${upload_port:-3080}$(escape_path "$result_root")/$(escape_path "$2")
    now
    if [ "$now" -ge "$upload_until" ]; then
        hopeless="no time is left"
    elif ! persist PUT "$url" "$1"; then
        hopeless="the server stays away"
    elif [ "$status" = 403 ]; then
        hopeless="they are not ours to write any more"
    fi
    case $hopeless$status in
        2?? | gone) return ;;
    esac
    incomplete=1
    say "not uploaded: $2 (${hopeless:-status $status})"
}
