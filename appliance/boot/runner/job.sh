# shellcheck shell=sh
# The job: started in a session of its own, watched, and all of it ended.

job_start()
{
	rm -f "$LOCK/stdout" "$LOCK/stderr" "$LOCK/code"
	mkfifo "$LOCK/stdout" "$LOCK/stderr"
	keep_output "$RESULT_ROOT/stdout" <"$LOCK/stdout" &
	pumps=$!
	keep_output "$RESULT_ROOT/stderr" <"$LOCK/stderr" &
	pumps="$pumps $!"
	job_environment
	(
		cd "${RESULT_ROOT%/*}" || cd /
		# shellcheck disable=SC2016 # that shell's own arguments
		exec setsid /bin/sh -c 'echo 0 >"$1/self/oom_score_adj"; exec "$2" run_job' sh "$PROC" "$JOB_SH"
	) <"$DEV/null" >"$LOCK/stdout" 2>"$LOCK/stderr" &
	job=$!
}

job_environment()
{
	export RESULT_ROOT
	export TMP_RESULT_ROOT="$RESULT_ROOT"
	export TMP="${RESULT_ROOT%/*}"
}

# The first OUTPUT_BYTES of its input; what comes after is read all the same, so that the job goes on.
keep_output()
{
	(ulimit -f $((OUTPUT_BYTES / 512)) && exec cat >"$1") 2>/dev/null
	exec cat >/dev/null
}

# Until the job is over; sets ended to exited, cancelled or timeout, and code.
job_watch()
{
	began=$(uptime_s)
	asked=$began
	ended=exited
	while kill -0 "$job" 2>/dev/null; do
		pause "$TICK"
		now=$(uptime_s)
		if [ $((now - began)) -ge "$job_seconds" ]; then
			ended=timeout
			break
		fi
		if [ $((now - asked)) -ge "$ASK_SECONDS" ]; then
			asked=$now
			still_wanted || {
				ended=cancelled
				break
			}
		fi
	done
	[ "$ended" = exited ] || job_signal TERM "$TERM_SECONDS"
	job_signal KILL 1
	wait "$job"
	code=$?
	drain
}

# job_signal SIGNAL SECONDS: to every process of the job; comes back when none is left.
job_signal()
{
	until=$(($(uptime_s) + $2))
	while members=$(job_members) && [ -n "$members" ]; do
		# shellcheck disable=SC2086 # one word each
		kill -s "$1" $members 2>/dev/null
		[ "$(uptime_s)" -lt "$until" ] || return 1
		pause "$TICK"
	done
}

# The processes of the job's session.
job_members()
{
	for stat in "$PROC"/[0-9]*/stat; do
		read -r line <"$stat" || continue
		pid=${line%% *}
		# shellcheck disable=SC2086 # state parent group session ...
		set -- ${line##*) }
		[ "$4" != "$job" ] || [ "$1" = Z ] || echo "$pid"
	done 2>/dev/null
}

# What is still in the pipes; a daemon that left the session may hold them open.
drain()
{
	until=$(($(uptime_s) + PIPE_SECONDS))
	for pump in $pumps; do
		while kill -0 "$pump" 2>/dev/null && [ "$(uptime_s)" -lt "$until" ]; do
			pause "$TICK"
		done
		kill -9 "$pump" 2>/dev/null
	done
}
