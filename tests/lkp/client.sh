#!/bin/sh
# A client that talks as LKP's of 2021 does, written from the facts of its wire
# (docs/wire.md#reports): real wget and curl, nothing escaped but % + & # ? and blanks, `&&` for
# what is empty, `//` in the paths of uploads, Expect: 100-continue, the cookie JOBID, no retry, and
# no look at an answer.
#
#   client.sh ADDRESS SCHEDULER MAC    run the job that waits for the box at ADDRESS
#
# ADDRESS is on loopback, and what it fetches is unpacked below the folder it is started in.

address=$1
scheduler=$2
mac=$3
set -- # job.sh, where it is sourced, would run these
root=$PWD/box

get() { # URL FILE: wget, as for all that is no upload
    wget -q --timeout=30 --tries=1 --bind-address="$address" -O "$2" "$1"
}

upload() { # FILE URL/
    curl -sSf --interface "$address" -T "$1" "$2" --cookie "JOBID=$id" >>sent 2>&1
}

collection() { # URL/
    curl -sSf --interface "$address" -X MKCOL "$1" --cookie "JOBID=$id" >>sent 2>&1
}

escaped() {
    printf '%s\n' "$1" | sed -e 's/%/%25/g' -e 's/+/%2B/g' -e 's/&/%26/g' -e 's/#/%23/g' \
        -e 's/?/%3F/g' -e 's/ /%20/g'
}

report() { # VERB QUERY: nothing is read of the answer
    get "$HTTP_PREFIX/cgi-bin/$1?$2" /dev/null
}

wtmp() {
    report lkp-wtmp "tbox_name=$testbox&tbox_state=$1&mac=$mac&ip=$address&job_id=$id"
}

append() {
    query="job_file=$(escaped "$job")&$(escaped "job_id=$id")"
    for pair; do
        query="$query&$(escaped "$pair")"
    done
    report lkp-jobfile-append-var "$query"
}

boot() { # what iPXE and the kernel do: the script's initrds, over one another
    get "$scheduler/boot.ipxe/mac/$mac" script
    mkdir -p "$root"
    for url in $(sed -n 's/^initrd //p' script); do
        get "$url" initrd
        (cd "$root" && gzip -dc ../initrd 2>/dev/null | cpio -idmu --quiet 2>/dev/null)
    done
    get "$(sed -n 's/^kernel \([^ ]*\) .*/\1/p' script)" vmlinuz
}

results() { # below $1, as post-run and the tests' own `upload_files -t` send them
    where=http://$LKP_SERVER:${RESULT_WEBDAV_PORT:-3080}$result_root
    for file in "$1"/*; do
        if [ -s "$file" ] && [ ! -d "$file" ]; then
            upload "$file" "$where/"
        fi
    done
    collection "$where/results/"
    collection "$where/results//deep/"
    for file in "$1"/results/deep/*; do
        upload "$file" "$where/results//deep/"
    done
}

boot
. "$root/lkp/scheduled/job.sh"
export_top_env
if [ -e "$root/lkp/scheduled/secrets.yaml" ]; then
    while IFS= read -r line; do # `key: value`, and nothing is unquoted
        export "secrets_${line%%: *}=${line#*: }"
    done <"$root/lkp/scheduled/secrets.yaml"
fi
wtmp running
append job_state=running
RESULT_ROOT=$PWD/result
export RESULT_ROOT
mkdir -p "$RESULT_ROOT"
"$root/lkp/scheduled/job.sh" run_job >"$RESULT_ROOT/stdout" 2>"$RESULT_ROOT/stderr"
status=$?
append job_state=post_run
results "$RESULT_ROOT"
# shellcheck disable=SC2046 # the words of its three fields are what the client sends
append "loadavg=$(cat /proc/loadavg)" "start_time=$(date +%s)" "end_time=$(date +%s)" "" ""
if [ "$status" = 0 ]; then
    append job_state=finished
else
    append job_state=failed
fi
report lkp-post-run "job_file=$(escaped "$job")&$(escaped "job_id=$id")"
wtmp rebooting
