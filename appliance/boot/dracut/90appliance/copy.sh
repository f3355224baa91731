# shellcheck shell=sh
# Runs in the new root: copies folder $1 over /$2, following the new root's symlinks to folders
# (/lib -> usr/lib, /etc/init.d -> rc.d/init.d), which cp alone would refuse.

copy_over() {
    for entry in "$1"/* "$1"/.[!.]*; do
        if [ -d "$entry" ] && [ ! -L "$entry" ] && [ -d "$2/${entry##*/}" ]; then
            copy_over "$entry" "$2/${entry##*/}"
        elif [ -L "$entry" ] && [ -d "$2/${entry##*/}" ] && [ ! -L "$2/${entry##*/}" ]; then
            : # LKP has /etc/rc2.d as a link into rc.d; a folder of that name in the root stays
        elif [ -e "$entry" ] || [ -L "$entry" ]; then
            rm -f "$2/${entry##*/}"
            cp -a "$entry" "$2/" || failed=1
        fi
    done
}

failed=0
if [ -d "$1" ]; then
    mkdir -p "/$2"
    copy_over "$1" "/$2"
fi
exit "$failed"
