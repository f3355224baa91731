"""What dnsmasq, smbd and the NFS servers are told."""
