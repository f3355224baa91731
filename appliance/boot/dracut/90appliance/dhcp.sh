#!/bin/sh
# Called by dhclient: only writes the lease of its card to a file.  root.sh decides which card's
# lease is used.  A lease is text from the network: it is stored, never executed.

case "$reason" in
    BOUND | RENEW | REBIND | REBOOT) ;;
    *) exit 0 ;;
esac
# shellcheck disable=SC2154  # dhclient's environment
{
    echo "address=$new_ip_address"
    echo "mask=$new_subnet_mask"
    echo "gateway=${new_routers%% *}"
    echo "mtu=$new_interface_mtu"
    echo "seconds=$new_dhcp_lease_time"
    echo "dns=$new_domain_name_servers"
    echo "search=${new_domain_search:-$new_domain_name}"
    echo "hostname=$new_host_name"
} > "/run/appliance/$interface.part"
mv "/run/appliance/$interface.part" "/run/appliance/$interface.lease"
