"""What comes of a WebSocket: its size is known before it takes memory, its frames before time."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
import structlog
import trio
import wsproto
from hypercorn.protocol.ws_stream import FrameTooLargeError
from trio.testing import wait_all_tasks_blocked
from wsproto.events import AcceptConnection, Request, TextMessage
from wsproto.extensions import PerMessageDeflate

from appliance.doors.boot_wait_ws import WORD_BYTES_MAX
from appliance.web.http import FRAMES_BYTES, Buffer
from tests.lab import HYPHENS, SCHEDULER, open_lab

MONITOR = ("10.0.0.1", 20001)
DOORS = [("/filter", MONITOR), (f"/ws/boot.ipxe/mac/{HYPHENS}", SCHEDULER)]
CLIENT = ("10.0.0.9", 4000)
MASK = bytes(4)


async def compressing(lab, path, server):
    """A client that would like to compress, and the stream that it has shaken hands on."""
    client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    asked = Request(host="x", target=path, extensions=[PerMessageDeflate()])
    stream = lab.wire.connect(CLIENT, server)
    await stream.send_all(client.send(asked))
    client.receive_data(bytes(await stream.receive_some()))
    [accepted] = client.events()
    return client, stream, accepted


def frame(payload, first):
    """One, masked with noughts."""
    short = len(payload) < 126
    size = bytes([0x80 | len(payload)]) if short else b"\xfe" + len(payload).to_bytes(2)
    return bytes([first]) + size + MASK + payload


def bomb(mebibytes):
    """A message of that size, as permessage-deflate writes it: some 1 kB for each MiB."""
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(bytes(mebibytes * 2**20)) + packer.flush(zlib.Z_SYNC_FLUSH)
    return packed.removesuffix(b"\x00\x00\xff\xff")


async def test_a_client_that_offers_to_compress_is_heard_without(autojump_clock):
    async with open_lab() as lab:
        client, stream, accepted = await compressing(lab, *DOORS[0])
        assert isinstance(accepted, AcceptConnection)
        assert [] == accepted.extensions
        await stream.send_all(client.send(TextMessage('{"job_id": ["lab.1"]}')))
        await wait_all_tasks_blocked()
        await lab.submit()
        client.receive_data(bytes(await stream.receive_some()))
        [heard] = client.events()

        assert '"job_state": "submit"' in heard.data


@pytest.mark.parametrize(("path", "server"), DOORS)
async def test_a_message_that_would_inflate_to_32_mib_is_not_inflated(autojump_clock, path, server):
    sent = frame(bomb(32), 0xC1)  # whole, text, compressed
    async with open_lab() as lab:
        await lab.know()
        before = len(lab.wire.nursery.child_tasks)
        _, stream, _ = await compressing(lab, path, server)
        tracemalloc.start()
        try:
            with structlog.testing.capture_logs() as lines:
                await stream.send_all(sent)
                await wait_all_tasks_blocked()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert peak < 2 * 2**20
        assert b"" == await stream.receive_some()
        assert before == len(lab.wire.nursery.child_tasks)
        told = [line for line in lines if line["event"] == "no websocket"]
        assert ["10.0.0.9"] == [line["client"] for line in told]
        assert "compressed" in told[0]["why"]


def test_a_message_is_measured_in_bytes_whatever_its_characters_are():
    buffer = Buffer(100)
    buffer.extend(TextMessage("\N{PILE OF POO}" * 25))
    assert 100 == buffer.length
    assert "\N{PILE OF POO}" * 25 == buffer.to_message()["text"]
    with pytest.raises(FrameTooLargeError):
        buffer.extend(TextMessage("x"))


async def test_a_host_that_waits_has_a_word_to_say_and_no_more(autojump_clock):
    """Its message need never end, and there may be a thousand of them."""
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        _, stream, _ = await compressing(lab, *DOORS[1])
        await stream.send_all(frame(b"x" * WORD_BYTES_MAX, 0x01))
        await wait_all_tasks_blocked()
        assert 1 == len(lab.scheduler.lobby)
        await stream.send_all(frame(b"x", 0x00) + frame(b"x", 0x00))
        await wait_all_tasks_blocked()

        assert 0 == len(lab.scheduler.lobby)


@pytest.mark.parametrize("word", ["parts of a message", "pongs"])
async def test_frames_without_a_word_leave_others_their_turn(autojump_clock, word):
    """Five thousand come with one read, and are looked through in slices of a millisecond."""
    begin, each, end = {
        "parts of a message": (b"\x01\x80" + MASK, b"\x00\x80" + MASK, frame(b"[]", 0x80)),
        "pongs": (b"", b"\x8a\x80" + MASK, frame(b"[]", 0x81)),
    }[word]
    turns = 0

    async def others():
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with open_lab() as lab:
        _, stream, _ = await compressing(lab, *DOORS[0])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            await stream.send_all(begin + each * 5000 + end)
            answer = bytes(await stream.receive_some())
            nursery.cancel_scope.cancel()

        assert b"a query is a JSON object" in answer
        assert turns >= len(each) * 5000 / FRAMES_BYTES
