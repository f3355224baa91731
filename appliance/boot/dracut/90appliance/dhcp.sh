#!/bin/sh
# What dhclient calls: notes the first lease of its card, and does nothing else.  root.sh decides
# which card's lease is used.  A lease is words from the network: written down, never executed.

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
