#!/bin/sh
# Runs the job of /lkp/scheduled on this box, hands back its results and reboots.
# All is read before the job starts: a job may remove /lkp.

: "${RUNNER:=/lkp/lkp/src}"
# shellcheck source=appliance/boot/runner/settings.sh
. "$RUNNER/lib/settings.sh"
# shellcheck source=appliance/boot/runner/http.sh
. "$RUNNER/lib/http.sh"
# shellcheck source=appliance/boot/runner/report.sh
. "$RUNNER/lib/report.sh"
# shellcheck source=appliance/boot/runner/upload.sh
. "$RUNNER/lib/upload.sh"
# shellcheck source=appliance/boot/runner/job.sh
. "$RUNNER/lib/job.sh"
# shellcheck source=appliance/boot/runner/reboot.sh
. "$RUNNER/lib/reboot.sh"

say()
{
	echo "lkp: $*"
	{ echo "lkp: $*" >"$CONSOLE"; } 2>/dev/null
}

uptime_s()
{
	read -r up _ <"$PROC/uptime"
	echo "${up%%.*}"
}

# Sleeps so that a signal is taken at once.
pause()
{
	sleep "$1" &
	wait $!
}

# The value that job.sh exports as NAME; none of it reaches the runner's own environment.
job_value()
{
	(
		name=$1
		set --
		# shellcheck source=/dev/null
		. "$JOB_SH"
		export_top_env
		eval "printf %s \"\${$name}\""
	) </dev/null 2>/dev/null
}

read_job()
{
	id=$(job_value id)
	testbox=$(job_value testbox)
	result_root=$(job_value result_root)
	server=$(job_value LKP_SERVER)
	upload_port=$(job_value RESULT_WEBDAV_PORT)
	prefix=$(job_value HTTP_PREFIX)
	: "${prefix:=http://$server:$(job_value LKP_CGI_PORT)/~lkp}"
	[ -n "$id" ] && [ -n "$server" ] || return 1
	job_limit
}

# Sets job_seconds.  A little less than the server's patience, so that the results still get there.
job_limit()
{
	job_seconds=$(seconds "$(job_value timeout)")
	if [ -z "$job_seconds" ]; then
		runtime=$(seconds "$(job_value runtime)")
		job_seconds=$((${runtime:-3600} + 300))
	fi
	margin=$((job_seconds / 20 + 1))
	[ "$margin" -le 30 ] || margin=30
	job_seconds=$((job_seconds - margin))
}

# 90, 90s, 15m, 1h, 2d in seconds; nothing for anything else.
seconds()
{
	number=${1%[smhd]}
	case $number in
	'' | *[!0-9]*) return ;;
	esac
	case $1 in
	*m) echo $((number * 60)) ;;
	*h) echo $((number * 3600)) ;;
	*d) echo $((number * 86400)) ;;
	*) echo "$number" ;;
	esac
}

wait_for_network()
{
	until=$(($(uptime_s) + NETWORK_SECONDS))
	while :; do
		http_reply GET "${prefix%/~*}/"
		[ "$status" = 000 ] || return 0
		[ "$(uptime_s)" -lt "$until" ] || return 1
		pause "$TICK"
	done
}

show()
{
	{
		echo "----- $1 of $id -----"
		head -c "$CONSOLE_BYTES" "$RESULT_ROOT/$1"
		echo "----- end of $1 -----"
	} >"$CONSOLE" 2>/dev/null
}

collect()
{
	echo "$code" >"$RESULT_ROOT/exit-code"
	dmesg >"$RESULT_ROOT/dmesg"
	cat "$PROC/cmdline" >"$RESULT_ROOT/cmdline"
} 2>/dev/null

verdict()
{
	if [ "$ended" = timeout ]; then
		echo soft_timeout
	elif [ "$incomplete" = yes ]; then
		echo incomplete
	elif [ "$code" != 0 ]; then
		echo failed
	else
		echo finished
	fi
}

run_job()
{
	rm -rf "$RESULT_ROOT"
	mkdir -p "$RESULT_ROOT"
	report_wtmp running
	start_time=$(date +%s)
	report_state running
	job_start
	job_watch
	end_time=$(date +%s)
	say "$id: $ended, exit code $code"
	mkdir -p "$RESULT_ROOT"
	[ "$ended" = cancelled ] || report_state post_run
	collect
	show stdout
	show stderr
	upload_all
	if [ "$ended" != cancelled ]; then
		read -r loadavg _ <"$PROC/loadavg"
		report_facts "loadavg=$loadavg&start_time=$start_time&end_time=$end_time"
		report_state "$(verdict)"
		report_over
	fi
	report_wtmp rebooting
}

main()
{
	export PATH="${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
	[ -f "$JOB_SH" ] || exit 0
	mkdir -p "${LOCK%/*}"
	mkdir "$LOCK" 2>/dev/null || exit 0
	away_since=
	incomplete=no
	if read_job && http_client && wait_for_network; then
		find_address
		run_job
	else
		say "no job, no HTTP client or no network: rebooting"
	fi
	reboot_box
}

main
exit
