"""Sends data to clients in pieces, and cuts off a client that does not take a piece in time.

A client that reads nothing would otherwise keep its answer in memory, and its connection open, for
as long as it likes.  So each piece has a timeout.  The bytes that all clients together have not
taken have a limit; beyond it, the clients whose current piece began longest ago get a much shorter
timeout.  A client must take a whole piece in that time: one byte a minute counts as nothing.
"""

from __future__ import annotations

from typing import Final

import structlog
import trio

# A box that takes nothing for this long has lost power or has been unplugged.
STALL_S: Final = 300.0
# A client must take this much within STALL_S: 220 bytes a second, less than any modem carries.
PIECE_BYTES: Final = 2**16
# Limit of bytes that the clients of all doors together have not taken.  Each byte is in memory
# twice.
OWED_BYTES_MAX: Final = 16 * 2**20
# Timeout of a piece beyond that limit: 6.5 kB/s, which even a busy box in a lab takes.
PRESSED_S: Final = 10.0

log = structlog.get_logger()


class TakesNothing(trio.BrokenResourceError):
    """The client has not taken a piece in time, and is treated as gone.

    Not an OSError, since some callers take an OSError for an error of their disk.
    """


class Owed:
    """Counts the bytes that the clients of all doors have been sent and have not taken."""

    def __init__(self) -> None:
        # For each piece: bytes not taken yet, and when it began.  The oldest comes first.
        self._pieces: dict[trio.CancelScope, tuple[int, float]] = {}
        self._bytes = 0

    async def send(
        self, stream: trio.abc.SendStream, data: bytes, client: str, *, shield: bool = False
    ) -> None:
        """Sends all of `data`.  Raises TakesNothing, and what `stream` raises for a gone client.

        `shield`: a cancellation from outside does not interrupt the send.
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
    """Logs that `client` is cut off."""
    why = f"it took less than {PIECE_BYTES} bytes in {seconds:.0f} s"
    log.warning("client cut", client=client, why=why)
