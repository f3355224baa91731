"""What goes out to a client: in pieces that it takes in time, or it is cut.

A client that takes nothing keeps its answer in memory, and its connection, for as long as it likes.
So each piece has a time, and all that a server's clients have not taken has a size, beyond which
those who took something longest ago have little time left.  A piece is a slow client's measure,
too: to take one byte a minute is to take nothing.
"""

from __future__ import annotations

from typing import Final

import structlog
import trio

# A box that takes nothing for this long has lost power, or has been unplugged.
STALL_S: Final = 300.0
# What must be taken in that time: 220 bytes a second, less than any modem carries.
PIECE_BYTES: Final = 2**16
# Of all clients at all doors, given to be sent and not taken.  Each byte is there twice.
OWED_BYTES_MAX: Final = 16 * 2**20
# Beyond that, for a piece: 6.5 kB/s, which every box in a lab takes, be it busy.
PRESSED_S: Final = 10.0

log = structlog.get_logger()


class TakesNothing(trio.BrokenResourceError):
    """The client has not taken a piece in its time.

    It is as good as gone; and no OSError, which some take for their disk's.
    """


class Owed:
    """What the clients of all doors have been given and have not taken."""

    def __init__(self) -> None:
        # Each with its size, and since when; who took something longest ago comes first.
        self._pieces: dict[trio.CancelScope, tuple[int, float]] = {}
        self._bytes = 0

    async def send(
        self, stream: trio.abc.SendStream, data: bytes, client: str, *, shield: bool = False
    ) -> None:
        """Send all of it.  Raises TakesNothing, and what `stream` raises where nobody is there.

        `shield`: no cancellation from outside cuts it in two.
        """
        start, size = 0, len(data)
        while start < size:
            piece = data if size <= PIECE_BYTES else memoryview(data)[start : start + PIECE_BYTES]
            began = trio.current_time()
            with trio.CancelScope(deadline=began + STALL_S, shield=shield) as scope:
                self._begin(scope, size - start, began)
                try:
                    await stream.send_all(piece)
                finally:
                    self._bytes -= self._pieces.pop(scope, (0, 0.0))[0]
            if scope.cancelled_caught:
                tell(client, trio.current_time() - began)
                raise TakesNothing("the client takes nothing any more")
            start += PIECE_BYTES

    def _begin(self, scope: trio.CancelScope, size: int, now: float) -> None:
        self._pieces[scope] = size, now
        self._bytes += size
        while self._bytes > OWED_BYTES_MAX:
            pressed = next(iter(self._pieces))
            size, since = self._pieces.pop(pressed)
            self._bytes -= size
            pressed.deadline = min(pressed.deadline, since + PRESSED_S)


def tell(client: str, seconds: float) -> None:
    """Say in the log that it is cut."""
    why = f"it took less than {PIECE_BYTES} bytes in {seconds:.0f} s"
    log.warning("client cut", client=client, why=why)
