"""Configurations of dnsmasq, smbd and the NFS servers, and the TFTP root."""
