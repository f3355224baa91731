# shellcheck shell=sh
# What the runner says to the server.

# report VERB QUERY: until the server has taken it or has been away for too long.
report()
{
	while :; do
		http_reply GET "$prefix/cgi-bin/$1?$2"
		case $status in
		2??)
			away_since=
			return 0
			;;
		4??)
			say "the server does not take $1: $status $body"
			away_since=
			return 1
			;;
		esac
		server_away "$1" || return 1
	done
}

# The server is away: wait a little, unless it has been for too long.
server_away()
{
	: "${away_since:=$(uptime_s)}"
	if [ $(($(uptime_s) - away_since)) -ge "$AWAY_SECONDS" ]; then
		say "the server has been away for $AWAY_SECONDS s: $1 is given up"
		return 1
	fi
	pause "$AWAY_PAUSE"
}

report_wtmp()
{
	report lkp-wtmp "tbox_name=$(escape "$testbox")&tbox_state=$1&mac=$mac&ip=$ip&job_id=$(escape "$id")"
}

report_state()
{
	report_facts "job_state=$1"
}

report_facts()
{
	report lkp-jobfile-append-var "job_file=$JOB_YAML&job_id=$(escape "$id")&$1"
}

report_over()
{
	report lkp-post-run "job_file=$JOB_YAML&job_id=$(escape "$id")"
}

# Only a plain `no` from the server ends a job.
still_wanted()
{
	http_reply GET "$prefix/cgi-bin/still-wanted?job_id=$(escape "$id")"
	[ "$status $body" != "200 no" ]
}

# Our interface towards the server: sets mac, with hyphens as LKP sends it, and ip.
find_address()
{
	ip=
	device=
	# shellcheck disable=SC2046 # the words of the answer
	set -- $(ip -o route get "$server" 2>/dev/null)
	while [ $# -gt 1 ]; do
		case $1 in
		dev) device=$2 ;;
		src) ip=$2 ;;
		esac
		shift
	done
	if [ -z "$device" ]; then # no iproute2: the interface of the first route
		{ read -r _ && read -r device _; } <"$PROC/net/route" || device=
	fi
	mac=
	[ -z "$device" ] || read -r mac <"$SYS/class/net/$device/address" || mac=
	mac=$(printf %s "$mac" | tr : -)
}
