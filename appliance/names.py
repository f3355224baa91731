"""Pure: no clock, no socket, no await.

What an installed program, its user and its group are called.
"""

from __future__ import annotations

from typing import Final

PROGRAM: Final = "appliance"
USER: Final = "appliance"  # whom the server runs as
GROUP: Final = "appliance"  # who may use its control socket, and enter /srv/os
