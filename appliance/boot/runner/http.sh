# shellcheck shell=sh
# HTTP with whatever client the rootfs has.  `http METHOD URL [FILE]` prints the body, then the
# status on a line of its own; 000 where no answer came.

http_client()
{
	for HTTP_CLIENT in ${HTTP_CLIENTS:-curl wget python3 perl}; do
		command -v "$HTTP_CLIENT" >/dev/null 2>&1 || continue
		case $HTTP_CLIENT in
		wget) wget --help 2>&1 | grep -q -e --body-file && return ;; # busybox has no PUT
		*) return ;;
		esac
	done
	HTTP_CLIENT=none
	return 1
}

http()
{
	case $HTTP_CLIENT in
	curl) http_curl "$@" ;;
	wget) http_wget "$@" ;;
	python3) http_python "$@" ;;
	perl) http_perl "$@" ;;
	*) false ;;
	esac </dev/null 2>/dev/null || printf '\n000\n'
}

http_curl()
{
	if [ "$1" = PUT ]; then
		curl -q -sS -g --noproxy '*' --connect-timeout "$REPLY_SECONDS" -y "$STALL_SECONDS" -Y 1 \
			-H "Cookie: JOBID=$id" -w '\n%{http_code}\n' -T "$3" "$2"
	else
		curl -q -sS -g --noproxy '*' --max-time "$REPLY_SECONDS" -w '\n%{http_code}\n' "$2"
	fi || :
}

# What was the answer to http(): sets status and body.
http_reply()
{
	reply=$(http "$@")
	status=${reply##*
}
	body=${reply%
*}
	case $status in
	[1-5][0-9][0-9]) ;;
	*) status=000 ;;
	esac
}

# A word of a query.
escape()
{
	printf %s "$1" | sed 's/%/%25/g; s/+/%2B/g; s/&/%26/g; s/#/%23/g; s/?/%3F/g; s/ /%20/g'
}

# A path of a URL; bytes that no URL may hold are escaped all.
escape_path()
{
	case $1 in
	*[!A-Za-z0-9._~/:=@,%+\&\#?\ -]*)
		printf %s "$1" | od -An -v -tx1 | tr -d '\n' | sed 's/ /%/g; s/%2f/\//g'
		;;
	*) escape "$1" ;;
	esac
}
