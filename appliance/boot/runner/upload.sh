# shellcheck shell=sh
# The results go to the server, file by file.

# Sets incomplete=yes where something stays behind.
upload_all()
{
	(cd "$RESULT_ROOT" && find . -type f -print) >"$LOCK/files" 2>/dev/null || incomplete=yes
	while read -r name <&3; do
		upload "${name#./}" || break
	done 3<"$LOCK/files"
}

# False: there is no sense in going on.
upload()
{
	url=http://$server:$upload_port$result_root/$(escape_path "$1")
	while :; do
		http_reply PUT "$url" "$RESULT_ROOT/$1"
		case $status in
		2??)
			away_since=
			return 0
			;;
		403)
			say "this box may not upload any more: $body"
			incomplete=yes
			return 1
			;;
		4?? | 507)
			say "$1 is not taken: $status $body"
			incomplete=yes
			away_since=
			return 0
			;;
		esac
		[ -f "$RESULT_ROOT/$1" ] || {
			incomplete=yes
			return 0
		}
		server_away "$1" || {
			incomplete=yes
			return 1
		}
	done
}
