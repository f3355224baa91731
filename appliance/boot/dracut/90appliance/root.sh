#!/bin/sh
# Sets up the network and mounts the root at $1.  If that fails, shows the reason and reboots.
#
# All cards are brought up at once, so one without a cable delays nothing.  The card to use is the
# one that iPXE booted from: its lease has the address in /lkp/scheduled/asked-from, from which the
# box asked for its job, and the server accepts results only from this address.  Without a job the
# first lease wins.  The address is set without an end: if it expired during a job, the root
# filesystem would be lost.  lease.sh renews a lease that ends.

. /lib/appliance-lib.sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin

NEWROOT=$1
NETWORK_S=120   # switches may take a minute to forward after the link is up
RIGHT_CARD_S=30 # wait for the right card after another one's lease: a link may take as long
MOUNT_S=150     # a file server that is being restarted is back by then
ASKED_FROM='' first_at=''
[ -e /lkp/scheduled/asked-from ] && read -r ASKED_FROM < /lkp/scheduled/asked-from
BOOTIF=$(getarg BOOTIF= | sed 'y/ABCDEF-/abcdef:/; s/^01:\(..:..:..:..:..:..\)$/\1/')

patience=$(getarg appliance.patience=)
case "$patience" in
    '' | *[!0-9]*) ;;
    *) NETWORK_S=$patience MOUNT_S=$patience ;;
esac

# Prints the box's physical Ethernet cards; only BOOTIF='s card, if that is on the kernel line.
cards() {
    for place in /sys/class/net/*; do
        [ -e "$place/device" ] && [ ! -e "$place/phy80211" ] || continue
        read -r kind < "$place/type" && [ "$kind" = 1 ] || continue
        read -r mac < "$place/address" || continue
        [ -z "$BOOTIF" ] || [ "$BOOTIF" = "$mac" ] || continue
        echo "${place##*/}"
    done
}

has_carrier() {
    carrier=0
    { read -r carrier < "/sys/class/net/$1/carrier"; } 2> /dev/null
    [ "$carrier" = 1 ]
}

# Starts a DHCP client for card $1, unless one is running.
ask() {
    client=
    [ -e "$APPLIANCE/$1.client" ] && read -r client < "$APPLIANCE/$1.client"
    [ -n "$client" ] && [ -d "/proc/$client" ] && return
    dhclient -4 -1 -d -q -sf /sbin/appliance-dhcp -cf "$APPLIANCE/dhclient.conf" \
        -pf "$APPLIANCE/$1.pid" -lf "$APPLIANCE/$1.leases" "$1" > "$APPLIANCE/$1.log" 2>&1 &
    echo $! > "$APPLIANCE/$1.client"
}

# Chooses a card and sets `card`; false if it is too early to choose.
choose() {
    first=''
    for lease in "$APPLIANCE"/*.lease; do
        [ -e "$lease" ] || continue
        card=${lease##*/} card=${card%.lease}
        case "$ASKED_FROM" in
            '' | "$(sed -n 's/^address=//p' "$lease")") return ;;
        esac
        first=${first:-$card}
    done
    card=$first
    [ -n "$card" ] || return
    first_at=${first_at:-$(now)}
    [ "$(now)" -lt $((first_at + RIGHT_CARD_S)) ] && some_card_has_no_lease && return 1
    say "network: no card was given $ASKED_FROM, which this box asked from; taking $card"
}

some_card_has_no_lease() {
    for other in $(cards); do
        [ -e "$APPLIANCE/$other.lease" ] || return 0
    done
    return 1
}

# Waits for a lease and sets `card` to the card to use.
find_network() {
    # Short intervals: the first request is often lost while a switch learns about the port.
    echo "timeout 30; retry 1; initial-interval 1; backoff-cutoff 4;" > "$APPLIANCE/dhclient.conf"
    end=$(($(now) + NETWORK_S))
    until [ "$(now)" -ge "$end" ]; do
        for card in $(cards); do
            [ -e "$APPLIANCE/$card.lease" ] && continue
            if [ ! -e "$APPLIANCE/$card.up" ]; then
                ip link set "$card" up && : > "$APPLIANCE/$card.up"
            fi
            has_carrier "$card" && ask "$card"
        done
        choose && return
        sleep 0.2
    done
    reboot_because "no address for this box within $NETWORK_S s; $(why_no_network)"
    exit 1
}

why_no_network() {
    found=
    for card in $(cards); do
        found=1
        if has_carrier "$card"; then
            echo "$card: no answer to DHCP;"
        else
            echo "$card: no link;"
        fi
    done
    [ -n "$found" ] && return
    echo "no network card has a driver${BOOTIF:+ and the address $BOOTIF}"
}

# Takes the other cards down: with two cards in one network each would answer ARP requests for the
# other's address.  If the system or the job brings one up again, it answers only for its own
# address: the server identifies a box by the card that answers for its address, and refuses it if
# another card does.
quiet_others() {
    echo 1 > "${ARP:=/proc/sys/net/ipv4/conf/all}/arp_ignore"
    echo 2 > "$ARP/arp_announce"
    for client in "$APPLIANCE"/*.client; do
        read -r pid < "$client" && kill "$pid" 2> /dev/null
    done
    for other in $(cards); do
        [ "$other" = "$1" ] || ip link set "$other" down
    done
}

configure() {
    address='' mask='' gateway='' mtu='' dns='' search='' hostname=''
    while IFS='=' read -r key value; do
        case "$key" in
            address) address=$value ;;
            mask) mask=$value ;;
            gateway) gateway=$value ;;
            mtu) mtu=$value ;;
            dns) dns=$value ;;
            search) search=$value ;;
            hostname) hostname=$value ;;
        esac
    done < "$APPLIANCE/$1.lease"
    [ -n "$mtu" ] && [ "$mtu" -gt 576 ] && ip link set "$1" mtu "$mtu"
    ip link set lo up
    ip addr add "$address/${mask:-24}" broadcast + dev "$1"
    [ -n "$gateway" ] && ip route replace default via "$gateway" dev "$1" onlink
    [ -n "$hostname" ] && echo "${hostname%%.*}" > /proc/sys/kernel/hostname
    : > /etc/resolv.conf
    [ -n "$search" ] && echo "search $search" >> /etc/resolv.conf
    for server in $dns; do
        echo "nameserver $server" >> /etc/resolv.conf
    done
    say "network: $1 has $address/$mask${gateway:+, gateway $gateway}"
}

try_mount() {
    case "$type" in
        cifs)
            if [ -e "$APPLIANCE/user" ]; then
                read -r user < "$APPLIANCE/user"
                case "$user" in
                    *:*) PASSWD=${user#*:} && export PASSWD ;;
                esac
                set -- "$1" "username=${user%%:*}"
            else
                set -- "$1" ""
            fi
            mount.cifs "$source" "$1" -o "ro,${2:+$2,}${options:-guest}"
            ;;
        # Tries versions from the newest down.  nolock: no lock daemon could outlive this initramfs.
        # retry=0: this script retries itself.
        nfs) mount.nfs "$source" "$1" -o "ro,nolock,retry=0${options:+,$options}" ;;
    esac
}

mount_root() {
    read -r source < "$APPLIANCE/source"
    read -r type < "$APPLIANCE/type"
    read -r options < "$APPLIANCE/options"
    modprobe -q "$type"
    mkdir -p "$1"
    end=$(($(now) + MOUNT_S)) told=''
    until try_mount "$1" 2> "$APPLIANCE/mount.log"; do
        # Only the error: mount.cifs also prints its next attempt and a hint at its manual.
        problem=$(sed -n '/error\|fail\|refuse\|denied/p' "$APPLIANCE/mount.log" | head -n 1)
        [ "$told" = "$problem" ] || say "root $source: ${problem:-cannot be mounted}; trying again"
        told=$problem
        if [ "$(now)" -ge "$end" ]; then
            reboot_because "root $source ($type,$options): ${problem:-cannot be mounted}"
            exit 1
        fi
        sleep 2
    done
    [ -d "$1/proc" ] && [ -d "$1/sys" ] && [ -d "$1/dev" ] && return
    reboot_because "$source is no root filesystem: it lacks proc, sys or dev"
    exit 1
}

# Mounts a tmpfs over the image: whatever a job writes is gone at the next boot.
overlay() {
    modprobe -q overlay
    mkdir -p "$1/changes"
    mount -t tmpfs -o mode=0755 tmpfs "$1/changes" &&
        mkdir "$1/changes/upper" "$1/changes/work" &&
        mount -t overlay -o "lowerdir=$1/image,upperdir=$1/changes/upper,workdir=$1/changes/work" \
            overlay "$NEWROOT" && return
    reboot_because "no overlay over the root: is the module in this kernel?"
    exit 1
}

say "looking for a network"
find_network
quiet_others "$card"
configure "$card"
echo "$card" > "$APPLIANCE/card"
if getargbool 0 rootovl; then
    mount_root /run/rootfs/image
    overlay /run/rootfs
    say "root: $source ($type,$options), read-only under an overlay"
else
    mount_root "$NEWROOT"
    say "root: $source ($type,$options)"
fi
