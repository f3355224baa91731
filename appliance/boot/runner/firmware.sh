# shellcheck shell=sh
# UEFI may try the local disk before the network; BootNext overrides the order for one boot.

EFI_GLOBAL=8be4df61-93ca-11d2-aa0d-00e098032b8c # the owner of the Boot* variables (UEFI 3.3)
VARS=$P/sys/firmware/efi/efivars

boot_from_network() {
    [ -d "$P/sys/firmware/efi" ] || return 0 # BIOS: keeps its own order
    [ -e "$VARS/BootOrder-$EFI_GLOBAL" ] || timeout 10 mount -t efivarfs efivarfs "$VARS"
    find_interface
    entry=$(network_entry)
    if [ -z "$entry" ]; then
        say "the firmware has no entry that boots from the network"
    elif set_boot_next "$entry"; then
        say "the firmware boots from the network next (Boot$entry)"
    else
        say "the firmware does not take BootNext=$entry"
    fi
} 2>/dev/null

network_entry() { # the entry of this boot, else the first of our card, else the first of any card
    # shellcheck disable=SC2046  # words
    set -- $(words BootOrder)
    current=$(words BootCurrent)
    if boots_network "$current"; then
        echo "$current"
        return
    fi
    for card in "$mac" ""; do
        for entry; do
            if boots_network "$entry" "$card"; then
                echo "$entry"
                return
            fi
        done
    done
}

words() { # prints the 16-bit numbers of a variable, as 0003
    # shellcheck disable=SC2046  # bytes: four of attributes, then little-endian words
    set -- $(bytes "$1")
    [ "$#" -gt 4 ] || return
    shift 4
    while [ "$#" -gt 1 ]; do
        echo "$2$1" | tr a-f A-F
        shift 2
    done
}

bytes() { od -An -v -tx1 "$VARS/$1-$EFI_GLOBAL" | tr -s '\n ' ' '; }

# True for an entry whose device path has a MAC node (UEFI 10.3.4.12: type 3, subtype 11, 37 bytes).
boots_network() { # ENTRY [MAC]
    [ -n "$1" ] || return
    case $(bytes "Boot$1") in
        *" 03 0b 25 00 $(echo "${2-}" | tr ':A-F' ' a-f')"*) return 0 ;;
    esac
    return 1
}

set_boot_next() {
    ! have efibootmgr || ! timeout 10 efibootmgr -q -n "$1" || return 0
    file=$VARS/BootNext-$EFI_GLOBAL
    [ ! -e "$file" ] || chattr -i "$file"
    # Attributes (7: non-volatile, visible to firmware and system) and value must go in one write.
    value=$(printf '\\007\\000\\000\\000\\%03o\\%03o' "0x${1#??}" "0x${1%??}")
    # shellcheck disable=SC2059  # the value is the format
    printf "$value" >"$file"
}
