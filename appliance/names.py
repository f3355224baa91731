"""Pure: no clock, no socket, no await.

The names of the installed program, its user and its group.
"""

from __future__ import annotations

from typing import Final

PROGRAM: Final = "appliance"
USER: Final = "appliance"  # the server runs as this user
GROUP: Final = "appliance"  # its members may use the control socket, and enter /srv/os
