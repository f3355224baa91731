"""Checks that a client is the testbox in whose name it acts.

A box is identified by its MAC, but HTTP shows only an address, and any box can take another's
address at any time.  So whenever a client acts as a box (asks for a job or its job.cgz, reports,
uploads), the card that has the address *now* must be the box's.  Special cases:

* loopback, this server's own addresses, and `network.providers` act for virtual boxes.  A provider
  must have the card that its entry names, or, if it names none, any card but a registered box's;
* behind a router no card is visible, and the address alone counts; but no client there may ask in
  the name of a box that is on a link of ours;
* if the kernel gives no answer, nobody may act.

Must not: remember what it found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import structlog

from appliance import addresses
from appliance.config import Network
from appliance.doors.neighbours import Neighbours, OnLink, Place, Routed
from appliance.errors import Refused, Unproven
from appliance.jobs.box import Box, Identity

log = structlog.get_logger()


Owner = Callable[[str], str | None]  # maps a card to the registered box that has it, if any


def is_named(network: Network, client: str, server: str) -> bool:
    """Returns whether `client` is the lab server itself, or at an address of `network.providers`.

    A machine that has taken such an address counts, too; Admission.check_trusted checks the card.
    """
    at = addresses.machines_at(client, network.providers)
    return addresses.is_own(client, server) or bool(at)


class Admission:
    """Checks clients by the card at their address, if `network.check_neighbour` is on."""

    def __init__(self, network: Network, neighbours: Neighbours, owner: Owner) -> None:
        self._network = network
        self._neighbours = neighbours
        self._owner = owner

    def check_trusted(self, client: str, server: str) -> None:
        """Raises Refused for anybody but the lab server itself and `network.providers`.

        Raises Unproven if that cannot be told.
        """
        if addresses.is_own(client, server):
            return
        if not addresses.machines_at(client, self._network.providers):
            raise Refused("network.providers does not name it")
        if self._network.check_neighbour:
            place = self._place(client)
            card = place.card if isinstance(place, OnLink) else None
            if why := self._no_provider(client, card):
                raise Refused(why)

    def _no_provider(self, client: str, card: str | None) -> str:
        """Returns why `client` is no provider; empty: it is one.  `card`: None behind a router."""
        at = addresses.machines_at(client, self._network.providers)
        if not at:
            return "network.providers does not name it"
        cards = [each for machine in at for each in machine.cards]
        if card in cards:
            return ""
        if all(machine.cards for machine in at):
            seen = f"it is {card} now" if card else "no card is to be seen behind a router"
            return f"{seen}, and network.providers says {', '.join(cards)}"
        if card is not None and (name := self._owner(card)) is not None:
            right = f'providers = ["{client} {card}"]'
            return f"{card} is the testbox {name}'s; if {name} runs virtual boxes: {right}"
        return ""

    def check(self, box: Box, client: str) -> None:
        """Raises Refused if `client`, which has the box's address, has no card of the box.

        Raises Unproven if that cannot be told.
        """
        card = self._card(client)
        if card is not None and card not in _cards(box):
            add = f"`appliance host add {box.name}` with all its MACs, if it is one of them"
            raise Refused(f"{client} is {card} now, which is no card of {box.name}'s; {add}")

    def check_question(self, who: Identity, box: Box | None, *, there: bool) -> None:
        """Raises Refused unless `who.mac` is the card that asks, or both are cards of `box`.

        `there`: the box works, or has asked lately.  Raises Unproven if the card cannot be told.
        """
        card = self._card(who.address)
        if card is None and there and box is not None and self._is_far(who.address):
            self._check_moved(who, box)
        if card is None or card == who.mac:
            return
        if box is None or not {card, who.mac} <= set(_cards(box)):
            raise Refused(f"{who.address} is {card}, and asks for {who.mac}{self._hint(who, card)}")

    def _hint(self, who: Identity, card: str) -> str:
        """Returns, for a client at a provider's address, why it does not count as the provider."""
        if not addresses.machines_at(who.address, self._network.providers):
            return ""
        return f"; no provider: {self._no_provider(who.address, card)}"

    def _check_moved(self, who: Identity, box: Box) -> None:
        """Raises Refused if `box` is on a link of ours: then `who`, behind a router, is not it."""
        if box.address is None or box.address == who.address:
            return
        with contextlib.suppress(Unproven):  # then nothing shows that the box is still there
            if self._card(box.address) in _cards(box):
                why = f"{box.name} is on a link of ours, at {box.address}"
                raise Refused(f"{who.address} is behind a router, and {why}")

    def _is_far(self, client: str) -> bool:
        """Returns whether `client` is behind a router and no provider."""
        if not self._network.check_neighbour or addresses.is_loopback(client):
            return False
        try:
            routed = isinstance(self._place(client), Routed)
        except Unproven:
            return False
        return routed and bool(self._no_provider(client, None))

    def is_registered(self, box: Box, client: str) -> bool:
        """Returns whether `client`, at any address, has a card that the hosts file gives to `box`.

        Returns False if no check applies.  Raises Unproven if the card cannot be told.
        """
        return box.facts is not None and self._card(client) in box.facts.macs

    def acts(self, box: Box, client: str) -> bool:
        """Returns whether `check` passes; for a note about a request that is answered anyway."""
        try:
            self.check(box, client)
        except (Refused, Unproven) as error:
            log.info("not counted as the box's", box=box.name, client=client, why=str(error))
            return False
        return True

    def _card(self, client: str) -> str | None:
        """Returns the card that must be a box's for `client` to act; None if no check applies.

        Raises Unproven.
        """
        if not self._network.check_neighbour or addresses.is_loopback(client):
            return None
        place = self._place(client)
        if not isinstance(place, OnLink):
            return None
        return place.card if self._no_provider(client, place.card) else None

    def _place(self, client: str) -> Place:
        """Returns where `client` is, with its card if it is on a link of ours.  Raises Unproven."""
        if addresses.is_link_local(client):
            raise Unproven(f"{client} is a link-local address, which says nothing of who has it")
        try:
            place = self._neighbours.place(client)
        except OSError as error:
            why = error.strerror or str(error)
            raise Unproven(f"whose card is at {client} cannot be told: {why}") from error
        if isinstance(place, OnLink) and place.card is None:
            raise Unproven(f"whose card is at {client} cannot be told: the kernel has no entry now")
        return place


def _cards(box: Box) -> tuple[str, ...]:
    """Returns the MACs of a box: the hosts file's, or without one those that the box reports."""
    return box.facts.macs if box.facts is not None else box.macs
