"""Pure: no clock, no socket, no await.

All testboxes, and how an asking box is identified.  The store has the only Registry; like the
store, it is changed by Changes alone.
"""

from __future__ import annotations

import attrs

from appliance.jobs.box import (
    BOOTS_KEPT,
    STRANGER,
    BootLog,
    Box,
    Facts,
    Identity,
    Step,
    inherit,
    remember,
    shifted,
)
from appliance.jobs.changes import (
    Forgotten,
    Known,
    Missed,
    Quarantined,
    Reserved,
    Seen,
    Stepped,
    Unregistered,
)
from appliance.jobs.documents.document import is_container, line, platform
from appliance.jobs.ready import Key, Serves

BoxChange = Known | Seen | Missed | Stepped | Quarantined | Reserved | Unregistered | Forgotten


def keys_of(box: Box) -> tuple[Key, ...]:
    """Returns the keys that a box serves; none while the box or its arch is unknown."""
    if box.facts is None or box.runs_arch is None:
        return ()
    kind = platform(box.runs_arch, container=is_container(box.name))
    served = (line(queue, box.runs_arch) for queue in box.facts.served)
    return tuple((queue, kind) for queue in dict.fromkeys(served))


def serves(box: Box) -> Serves:
    """Returns which jobs the box takes while it is parked."""
    tags = frozenset(box.facts.tags if box.facts else ())
    only = box.reservation.user if box.reservation is not None else None
    return Serves(keys_of(box), tags, only)


@attrs.define
class Registry:
    """Boxes by name, and the indexes for lookups by MAC, UUID, address and key."""

    boxes: dict[str, Box]
    _by_mac: dict[str, str] = attrs.field(factory=dict, init=False)
    _by_uuid: dict[str, str] = attrs.field(factory=dict, init=False)
    _by_address: dict[str, str] = attrs.field(factory=dict, init=False)
    _serving: dict[Key, dict[str, None]] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        # Sorted, so that an address belongs to the box that asked from it last, as before.
        for box in sorted(self.boxes.values(), key=lambda box: box.asked):
            if box.facts is not None:  # earlier versions trusted UUIDs and added MACs to a box
                box.macs = box.facts.macs
            self._index(box)

    def of(self, identity: Identity) -> Box | None:
        """Finds the box by its MAC alone, which the neighbour table can confirm.

        A UUID proves nothing, since anybody who has seen it can send it: see `said_to_be`.
        """
        name = self._by_mac.get(identity.mac)
        return self.boxes.get(name) if name else None

    def said_to_be(self, box: Box) -> Box | None:
        """Finds the known box whose UUID an unknown one claims: maybe PXE on another NIC of it."""
        name = self._by_uuid.get(box.uuid) if box.uuid is not None and not box.known else None
        return self.boxes.get(name) if name else None

    def at(self, address: str) -> Box | None:
        """Finds the box that asked from `address` last."""
        name = self._by_address.get(address)
        return self.boxes[name] if name else None

    def serving(self, key: Key) -> list[str]:
        """Returns the known boxes that serve `key`."""
        return list(self._serving.get(key, {}))

    def apply(self, change: BoxChange) -> None:
        """Applies one change."""
        match change:
            case Known(facts, at):
                self._know(facts, at)
            case Seen():
                self._see(change)
            case Missed(name, until, counts):
                box = self.boxes[name]
                box.misses = box.misses + counts if until else 0
                box.backoff_until = until
            case Stepped(name, step, job_id, number):
                remember(self.boxes[name], step, job_id, number)
            case Quarantined(name, why, by, at):
                box = self.boxes[name]
                box.quarantine, box.lost, box.quick = why, (), ()
                remember(box, Step(at, "quarantined" if why else "released", why or by), None, None)
            case Reserved(name, reservation, by, at):
                self.boxes[name].reservation = reservation
                what = (
                    "let go" if reservation is None else "reserved" if reservation.user else "held"
                )
                remember(self.boxes[name], Step(at, what, by), None, None)
            case Unregistered(name, by, at):
                box = self.boxes[name]
                self._unindex(box)
                box.facts = box.reservation = None
                self._index(box)
                remember(box, Step(at, "removed", by), None, None)
            case Forgotten(name):
                assert self.boxes[name].job is None, f"{name} holds a job"
                self._unindex(self.boxes.pop(name))

    def shift(self, step: float, *, exactly: bool) -> None:
        """Moves all times that are compared with the wall clock, which was moved by `step` seconds.

        The end of a reservation is moved only if `step` is known `exactly`: guesses would add up.
        """
        for box in self.boxes.values() if step else ():
            box.since += step
            box.backoff_until += step if box.backoff_until else 0.0
            if exactly and (kept := box.reservation) is not None:
                box.reservation = attrs.evolve(kept, until=kept.until + step)
            if box.boots:  # the last one tells when the box asked last
                box.boots[-1] = shifted(box.boots[-1], step)

    def _know(self, facts: Facts, at: float) -> None:
        """Registers a box; an unknown box with one of its MACs is merged into it.

        An unknown box that was registered once stays, without those MACs: jobs refer to it.
        """
        names = dict.fromkeys(self._by_mac[mac] for mac in facts.macs if mac in self._by_mac)
        before = [box for name in sorted(names) if not (box := self.boxes[name]).known]
        found = self.boxes.get(facts.name) or Box(facts.name, (), since=at)
        for box in before:
            if box is not found:
                self._unindex(box)
                inherit(found, box)
                if box.name.startswith(STRANGER):
                    del self.boxes[box.name]
                else:  # it was registered once, and jobs were on it
                    box.macs = tuple(mac for mac in box.macs if mac not in facts.macs)
                    box.address = None
                    self._index(box)
        self._unindex(found)
        found.facts = facts
        found.macs = facts.macs
        found.uuid = facts.uuid or found.uuid
        self.boxes[facts.name] = found
        self._index(found)

    def _see(self, change: Seen) -> None:
        who = change.identity
        self.boxes[change.box] = box = self.boxes.get(change.box) or Box(change.box, (who.mac,))
        same = who.mac in box.macs and who.address == box.address and who.arch in (None, box.arch)
        if not same:  # an idle box asks twice an hour, nearly always unchanged
            self._unindex(box)
        if not box.known:  # the hosts file lists the cards of a known box
            box.macs = tuple(dict.fromkeys([*box.macs, who.mac]))
        box.arch = who.arch or box.arch
        box.uuid = (box.facts and box.facts.uuid) or who.uuid or box.uuid
        box.serial, box.product = who.serial or box.serial, who.product or box.product
        box.address, box.since = who.address, change.at
        if box.boot is not None and box.boot.job is None and not box.boot.steps:
            box.boots.pop()  # the box was only parked and asks again: not a boot worth keeping
        elif box.boot is not None and box.boot.ended is None:
            box.boot.ended = "asked again"
        box.boots = [*box.boots[-BOOTS_KEPT + 1 :], BootLog(change.at)]
        self._by_address[who.address] = box.name  # another box may have had it
        if not same:
            self._index(box)

    def _index(self, box: Box) -> None:
        self._by_mac.update(dict.fromkeys(box.macs, box.name))
        if box.facts is not None and box.facts.uuid is not None:
            self._by_uuid.setdefault(box.facts.uuid, box.name)
        if box.address is not None:
            self._by_address[box.address] = box.name
        for key in keys_of(box):
            self._serving.setdefault(key, {})[box.name] = None

    def _unindex(self, box: Box) -> None:
        for mac in box.macs:
            self._by_mac.pop(mac, None)
        uuid = box.facts.uuid if box.facts is not None else None
        if uuid is not None and self._by_uuid.get(uuid) == box.name:
            del self._by_uuid[uuid]
        if box.address is not None and self._by_address.get(box.address) == box.name:
            del self._by_address[box.address]
        for key in keys_of(box):
            self._serving.get(key, {}).pop(box.name, None)
