# shellcheck shell=sh
# HTTP with a client that the image has.  Each client prints the answer's body and, on a line of its
# own, the status.  Proxies and personal settings are ignored: the server is in the lab.
#
# client METHOD URL [FILE]; a FILE is a result, and is sent with the job's cookie.

choose_client() {
    client=
    if have curl; then
        client=curl_client
    elif have wget && wget --help 2>&1 | grep -q -e --body-file; then # GNU's; busybox has no PUT
        client=wget_client
    elif have python3; then
        client=python_client
    elif have perl && perl -MIO::Socket::INET -e 1 2>/dev/null; then
        client=perl_client
    elif have nc; then
        client=nc_client nc=nc
    elif have busybox && busybox nc --help 2>&1 | grep -q PORT; then
        client=nc_client nc='busybox nc'
    fi
}

http() { # METHOD URL [FILE]: sets $status, 000 without an answer, and $body
    body=$("$client" "$@" 2>/dev/null)
    status=${body##*"$NL"}
    body=${body%"$NL"*}
    case $status in
        [1-5][0-9][0-9]) ;;
        *) status=000 ;;
    esac
}

away= # since when the server has been away; empty: it answers

persist() { # METHOD URL [FILE]: retries while the server is away; false if it stays away
    tries=0
    while :; do
        [ -z "${3-}" ] || [ -r "$3" ] || {
            status=gone # the job removed its own file
            return
        }
        http "$@"
        tries=$((tries + 1))
        case $status in
            507) break ;; # no space for this file; others may fit
            000)
                # A server that refuses a large file in the middle of the upload seems to be away,
                # but answers other requests.
                if [ -n "${3-}" ] && [ "$tries" -ge 3 ]; then
                    still_wanted
                    [ "$status" = 000 ] || {
                        status="no answer"
                        break
                    }
                fi
                ;;
            408 | 429 | 5??) ;;
            *) break ;;
        esac
        now
        [ -n "$away" ] || {
            away=$now
            say "the server is away (status $status for $2)"
        }
        [ $((now - away)) -lt "$RUNNER_RETRY_FOR" ] || return
        sleep "$RUNNER_RETRY_PAUSE"
    done
    [ -z "$away" ] || say "the server is back"
    away=
}

curl_client() {
    method=$1 url=$2
    if [ -n "${3-}" ]; then
        set -- -T "$3" -H "Cookie: JOBID=$id"
    else
        set -- --max-time "$RUNNER_SILENCE"
    fi
    curl -q -g -sS -X "$method" --noproxy '*' --connect-timeout "$RUNNER_SILENCE" \
        --speed-limit 1 --speed-time "$RUNNER_SILENCE" -w '\n%{http_code}' "$@" "$url"
}

wget_client() { # wget prints the status only in its messages
    method=$1 url=$2
    if [ -n "${3-}" ]; then
        set -- --body-file="$3" --header="Cookie: JOBID=$id"
    else
        set --
    fi
    {
        status=$(wget --no-config --no-proxy -nv -S --tries=1 --max-redirect=0 \
            --timeout="$RUNNER_SILENCE" --method="$method" "$@" -O - "$url" 2>&1 >&3 3>&- |
            sed -n 's/^ *HTTP\/[0-9.]* \([0-9][0-9][0-9]\).*/\1/p' | tail -n 1)
    } 3>&1
    printf '\n%s' "$status"
}

python_client() { # http.client would take a second to load on a slow box
    python3 -I -S -c '
import os, socket, sys
silence, job, method, url = sys.argv[1:5]
host, _, path = url[len("http://"):].partition("/")
name, _, port = host.partition(":")
head = "%s /%s HTTP/1.0\r\nHost: %s\r\n" % (method, path, host)
body = None
if len(sys.argv) > 5:
    body = open(sys.argv[5], "rb")
    head += "Cookie: JOBID=%s\r\nContent-Length: %d\r\n" % (job, os.fstat(body.fileno()).st_size)
server = socket.create_connection((name, int(port or 80)), int(silence))
try:
    server.sendall((head + "\r\n").encode())
    while body:
        block = body.read(65536)
        if not block:
            break
        server.sendall(block)
except (BrokenPipeError, ConnectionResetError):
    pass  # refused before it was all sent; the reason may still be there to read
answer = b"".join(iter(lambda: server.recv(65536), b""))
head, _, text = answer.partition(b"\r\n\r\n")
print("%s\n%s" % (text.decode("utf-8", "replace"), head.split()[1].decode()), end="")
' "$RUNNER_SILENCE" "$id" "$@"
}

perl_client() {
    perl -MIO::Socket::INET -e '
my ($silence, $job, $method, $url, $file) = @ARGV;
my ($host, $port, $path) = $url =~ m{^http://([^/:]+):?(\d*)(/.*)$} or die;
$SIG{PIPE} = "IGNORE";
alarm $silence;
my $server = IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port || 80) or die;
print $server "$method $path HTTP/1.0\r\nHost: $host\r\n";
if (defined $file) {
    open my $in, "<:raw", $file or die;
    print $server "Cookie: JOBID=$job\r\nContent-Length: ", (-s $in), "\r\n\r\n";
    while (read $in, my $block, 65536) { print $server $block or last; alarm $silence; }
} else {
    print $server "\r\n";
}
$server->flush;
local $/;
my ($status, $body) = <$server> =~ m{^HTTP/\S+ (\d\d\d).*?\r?\n\r?\n(.*)}s or die;
print "$body\n$status";
' "$RUNNER_SILENCE" "$id" "$@"
}

nc_client() {
    host=${2#http://}
    path=/${host#*/}
    host=${host%%/*}
    port=${host##*:}
    [ "$port" != "$host" ] || port=80
    : >"$RUN/answer"
    # shellcheck disable=SC2094  # one end waits for what the other writes
    {
        printf '%s %s HTTP/1.0\r\nHost: %s\r\n' "$1" "$path" "$host"
        if [ -n "${3-}" ]; then
            printf 'Cookie: JOBID=%s\r\nContent-Length: %s\r\n\r\n' "$id" "$(size_of "$3")"
            cat "$3"
        else
            printf '\r\n'
        fi
        # Keeps the connection open: the server would take the end of input for a hang-up.
        waited=0
        while [ ! -s "$RUN/answer" ] && [ "$waited" -lt "$RUNNER_SILENCE" ]; do
            nap
            waited=$((waited + 1))
        done
    } | $nc -w "$RUNNER_SILENCE" "${host%:*}" "$port" >"$RUN/answer"
    sed '1,/^\r*$/d' "$RUN/answer"
    printf '\n%s' "$(sed -n '1s/^HTTP\/[0-9.]* \([0-9][0-9][0-9]\).*/\1/p' "$RUN/answer")"
}

size_of() { stat -c %s "$1" 2>/dev/null || wc -c <"$1"; }

escape() { # escapes a value for a query, as clients of 2021 do
    case $1 in
        *[!A-Za-z0-9._:/-]*) ;;
        *)
            printf %s "$1"
            return
            ;;
    esac
    printf %s "$1" | tr -d '\r\n' | sed -e 's/%/%25/g' -e 's/+/%2B/g' -e 's/&/%26/g' \
        -e 's/#/%23/g' -e 's/?/%3F/g' -e 's/ /%20/g'
}

escape_path() { # writes a path that is not plain as hexadecimal digits
    case $1 in
        *[!A-Za-z0-9._/-]*)
            printf %s "$1" | od -An -v -tx1 | tr -d '\n' | sed -e 's/ /%/g' -e 's/%2f/\//g'
            ;;
        *) printf %s "$1" ;;
    esac
}
