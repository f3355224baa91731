"""Pure: no clock, no socket, no await.

Makes the export file for the kernel's NFS server, for a machine that already exports files with it:
only one server can have port 2049.  Other machines use ganesha (`ganesha`), a private server that
needs no kernel module.

A kernel line asks for `/os/...`, and the kernel's server exports real paths of its machine.  So the
images are exported as /os, where /srv/os is mounted a second time, as in the original.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from appliance.config import Config
from appliance.errors import BadConfig

# Paths that fstab(5) and exports(5) take without escapes.
_PATH: Final = re.compile(r"/[A-Za-z0-9._/+@:-]*\Z")

_TEMPLATE: Final = """\
# Written by `appliance nfs-config --kernel` for /etc/exports.d/appliance.exports;
# change appliance.toml instead.  The images must be at /os, by a line in /etc/fstab:
#     {os} /os none bind,ro 0 0
/os {network}(ro,no_subtree_check,no_root_squash,sec=sys)
"""


def configuration(config: Config) -> str:
    """Returns a complete exports file for this lab.  Raises BadConfig with the invalid key."""
    images = str(config.paths.srv / "os")
    if not _PATH.match(images):
        raise BadConfig(
            f"paths.srv = {images.removesuffix('/os')!r} should be a path of letters, digits and"
            " . _ / + @ : - alone"
        )
    return _TEMPLATE.format(os=images, network=_network(config))


def _network(config: Config) -> str:
    """Returns the lab's network, the only one that may mount the images."""
    address, mask = config.network.address.strip("[]"), config.network.netmask
    try:
        if ipaddress.ip_address(address).version == 6:
            return f"{ipaddress.ip_interface(f'{address}/64').network}"
        return f"{ipaddress.ip_interface(f'{address}/{mask}').network}"
    except ValueError:
        raise BadConfig(
            f"network.address = {address!r} and network.netmask = {mask!r} should be this server's"
            " in the lab: it is that network which is shown the images"
        ) from None
