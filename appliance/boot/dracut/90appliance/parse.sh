#!/bin/sh
# Hook `cmdline`: handles root= if it names a root over the network, and ignores any other.
#
#   root=cifs://[USER[:PASSWORD]@]HOST/PATH,OPTIONS    path ends at the first comma
#   root=ADDRESS:/PATH[,OPTIONS]                       nfs; the version is negotiated
#   root=nfs:HOST:/PATH[:OPTIONS]                      the same with a name
#
# Sourced by dracut's init, so it sets only root and rootok, and writes its files.

. /lib/appliance-lib.sh

appliance_parse() {
    mkdir -p "$APPLIANCE"
    # A panic reboots the box, from here to the end of the job.
    echo 10 > /proc/sys/kernel/panic
    case "$1" in
        cifs://*)
            set -- "${1#cifs://}"
            case "$1" in
                *,*) set -- "${1%%,*}" "${1#*,}" ;;
                *) set -- "$1" "" ;;
            esac
            case "${1%%/*}" in
                *@*) printf '%s\n' "${1%%@*}" > "$APPLIANCE/user" ;;
            esac
            printf '%s\n' "//${1#*@}" > "$APPLIANCE/source"
            echo cifs > "$APPLIANCE/type"
            ;;
        nfs:* | nfs4:* | [0-9]*:/* | \[*\]:/*)
            set -- "${1#nfs:}"
            set -- "${1#nfs4:}"
            # HOST:/PATH, then options after a comma or one more colon
            case "${1#*:/}" in
                *[,:]*)
                    set -- "$1" "${1#*:/}"
                    set -- "${1%%:/*}:/${2%%[,:]*}" "${2#*[,:]}"
                    ;;
                *) set -- "$1" "" ;;
            esac
            printf '%s\n' "$1" > "$APPLIANCE/source"
            echo nfs > "$APPLIANCE/type"
            ;;
        *) return 1 ;;
    esac
    printf '%s\n' "$2" > "$APPLIANCE/options"
}

[ -z "$root" ] && root=$(getarg root=)
if appliance_parse "$root"; then
    # shellcheck disable=SC2034  # dracut's init reads both
    rootok=1 root=appliance
    unset netroot
fi
