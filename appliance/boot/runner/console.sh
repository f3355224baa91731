# shellcheck shell=sh
# Shows the runner's log and the job's output on the console, each line with a prefix.  This process
# only reads the files that the others write, so a stuck serial line blocks no other process.

# UTF-8 characters that control a console: C1 controls, and marks that change the direction of text.
# In the locale C the ranges are ranges of bytes.
UNSHOWN=$(printf 's/\302[\200-\237]//g;s/\342\200[\250-\256]//g;s/\342\201[\246-\251]//g')

open_console() {
    console=$(recall console)
    if ! alive "$console"; then
        show_on_console &
        console=$!
        remember console "$console"
    fi
}

show_on_console() {
    exec 3<"$FILES/runner.log" 4<"$FILES/output"
    log_rest='' output_rest='' shown=0
    while :; do
        last=
        [ ! -e "$RUN/last-words" ] || last=1 # tested before the last read, so nothing is missed
        relay 3 'lkp| ' "$log_rest"
        log_rest=$rest
        busy=$new
        if [ "$shown" -lt "$RUNNER_CONSOLE_BYTES" ]; then
            relay 4 'job| ' "$output_rest"
            output_rest=$rest
            busy=$busy$new
            shown=$((shown + ${#new}))
            [ "$shown" -lt "$RUNNER_CONSOLE_BYTES" ] ||
                echo 'lkp| (no more of the output here; the results have it)' >>"$P/dev/console"
        fi
        [ -z "$busy" ] || continue
        [ -z "$last" ] || break
        nap
    done
    [ -z "$output_rest" ] || echo "job| $output_rest" | LC_ALL=C sed "$UNSHOWN" >>"$P/dev/console"
} 2>/dev/null

relay() { # FD PREFIX BEGINNING: shows whole lines, keeps the last unfinished one in $rest
    # Drops control characters, which could disturb a person's terminal.
    new=$(dd bs=4096 count=1 <&"$1" | tr -cd '\011\012\040-\176\200-\377'; echo .)
    new=${new%.}
    rest=$3$new
    lines=
    case $rest in
        *"$NL"*)
            lines=${rest%"$NL"*}$NL
            rest=${rest##*"$NL"}
            ;;
    esac
    if [ "${#rest}" -ge 4096 ]; then
        lines=$lines$rest$NL
        rest=
    fi
    [ -z "$lines" ] || printf %s "$lines" | LC_ALL=C sed "s/^/$2/;$UNSHOWN" >>"$P/dev/console"
}

last_words() { # waits until the console has everything, or RUNNER_CONSOLE_FOR has passed
    : >"$RUN/last-words"
    now
    until=$((now + RUNNER_CONSOLE_FOR))
    while alive "$console" && [ "$now" -lt "$until" ]; do
        feed_watchdog
        nap
        now
    done
    alive "$console" && kill -9 "$console"
}
