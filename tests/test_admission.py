"""Every act in a testbox's name is held to the card that has the box's address at that moment.

Which acts there are is read from the doors: one that is on no list here fails a test.  Uploads
take threads, so these tests run on the real clock; nothing sleeps.
"""

from __future__ import annotations

import attrs
import pytest

from appliance.config import Config, Network
from appliance.doors import reports
from tests import fakes
from tests import lab as labs
from tests.lab import ASK, HYPHENS, MAC, SCHEDULER, open_lab

BOX, ELSEWHERE = "10.0.0.5", "10.0.0.9"
SECOND, THIEF = "52:54:00:00:00:02", "52:54:00:00:00:66"
UPLOAD = 3080
GPXELINUX = "/~lkp/cgi-bin/gpxelinux.cgi"

# Whatever else the doors answer, and why nobody is held to a card there.
NOT_IN_A_BOX_S_NAME = {
    "/": "says that the server is alive",
    "/metrics": "read by anybody",
    "/get_deadline": "read by anybody",
    "/get_testbox": "read by anybody",
    "/submit_job": "an account's, with its token",
    "/cancel_jobs": "an account's, with its token",
    "/report_event": "goes to the log alone",
    "/heart-beat": "of providers, and changes no box",
    "/set_host_mac": "providers' alone (test_providers)",
    "/del_host_mac": "providers' alone (test_providers)",
    "/set_host2queues": "providers' alone (test_providers)",
    "/del_host2queues": "providers' alone (test_providers)",
    "/register-host2redis": "providers' alone (test_providers)",
    "/runner.cgz": "read by anybody; what it moves: see the test of files below",
    "port 8000": "read by anybody; what it moves: see the test of files below",
    "port 8800": "read by anybody; what it moves: see the test of files below",
    "port 20007": "read by anybody",
    "port 20001": "watchers, who are people",
}


def config(tmp_path, **network):
    return Config(paths=labs.config(tmp_path).paths, network=Network(**network))


async def send(lab, method, path, client=BOX, port=SCHEDULER[1], body=b"", **headers):
    answer = await fakes.begin(
        lab.wire, method, path, headers, body, client=(client, 4000), server=(SCHEDULER[0], port)
    )
    if answer.status >= 400 or not path.startswith(("/boot.", GPXELINUX)):  # else it would wait
        await answer.rest()
    await answer.hang_up()
    return answer.status


async def websocket(lab, job, client):
    socket = fakes.WebSocket(lab.wire, f"/ws/boot.ipxe/mac/{HYPHENS}", (client, 4000), SCHEDULER)
    refusal = await socket.open()
    await socket.hang_up()
    return 200 if refusal is None else refusal.status


def get(target, method="GET"):
    async def act(lab, job, client):
        token = lab.scheduler.store.job(job.id).attempts[-1].token
        return await send(lab, method, target.format(id=job.id, token=token), client)

    return act


def upload(method, end, body=b"", **headers):
    async def act(lab, job, client):
        path, cookie = job.result_root + end, f"JOBID={job.id}"
        return await send(lab, method, path, client, UPLOAD, body, cookie=cookie, **headers)

    return act


FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="c"\r\n\r\nx\r\n--b--\r\n'
KIND = {"content-type": "multipart/form-data; boundary=b"}
VERBS = {
    "lkp-wtmp": "tbox_state=x",
    "lkp-jobfile-append-var": "job_state=finished",
    "set-job-stage": "job_stage=x&timeout=1",
    "report_ssh_port": "ssh_port=1",
    "report_ssh_info": "ssh_port=1",
    "report-job-step": "job_step=x",
    "lkp-cluster-sync": "state=write_state",
    "lkp-post-run": "",
    "still-wanted": "",
}
ACTS = {
    "/boot.": get(ASK),
    GPXELINUX: get(f"{GPXELINUX}?hostname=box-1"),
    "/ws/": websocket,
    "/job_initrd_tmpfs/": get("/job_initrd_tmpfs/{id}/job.cgz"),
    "/renew_deadline": get("/renew_deadline?job_id={id}&time=60"),
    **{
        f"/~<user>/cgi-bin/{verb}": get(f"/~lkp/cgi-bin/{verb}?job_id={{id}}&{query}")
        for verb, query in VERBS.items()
    },
    "port 3080 PUT": upload("PUT", "/a", b"x"),
    "port 3080 MKCOL": upload("MKCOL", "/b/"),
    "port 3080 POST": upload("POST", "/x", FORM, **KIND),
}


def doors_of(lab):
    """What can be asked for, as the doors themselves know it."""
    ports = lab.config.ports
    found = set()
    for port, door in lab.wire.app._by_port.items():
        if port == ports.scheduler:
            found |= {prefix for prefix, _ in door._by_prefix}
            found |= {f"/~lkp{end}" for end in door._by_end} | door._sockets.keys()
            for rule in door._other.url_map.iter_rules():
                found |= spelled_out(rule.rule, lab)
        elif port == ports.upload:
            found |= {f"port {port} {method}" for method in ("PUT", "MKCOL", "POST")}
        else:
            found.add(f"port {port}")
    return found


def spelled_out(rule, lab):
    if rule.endswith("/cgi-bin/<verb>"):  # with a token: see the test of tokens
        verbs = reports._verbs(reports.Reports(lab.scheduler, lambda box, client: None))
        return {f"/~<user>/cgi-bin/{verb}" for verb in verbs}
    if rule.startswith("/<any("):
        names = rule.removeprefix("/<any(").partition(")")[0]
        return {"/" + name.strip("'\"") for name in names.split(",")}
    return {rule}


async def test_every_way_in_is_held_to_a_card_or_is_nobodys_act(tmp_path):
    async with open_lab(config(tmp_path)) as lab:
        assert doors_of(lab) == ACTS.keys() | NOT_IN_A_BOX_S_NAME.keys()


async def at_work(lab, act):
    """A job on its box: it runs, or is about to be loaded where that is what is asked for."""
    await lab.know(mac=[MAC, SECOND], arch="x86_64")
    job = await lab.submit("script: x\nruntime: 1d\n")
    await (await lab.ask()).rest()
    if act != "/job_initrd_tmpfs/":
        await lab.fetched_all(job)
        await lab.report(job, "job_state=running")
    return job


def seen(lab, job):
    box, now = lab.scheduler.store.box("box-1"), lab.scheduler.store.job(job.id)
    place = lab.config.paths.srv / job.result_root[1:]
    kept = sorted(path.name for path in place.rglob("*"))
    heard = lab.scheduler.heard.get("box-1")
    return now, box.address, box.macs, len(box.boots), tuple(box.boot.steps), kept, heard


def nobody(lab):
    del lab.neighbours.cards[BOX]


def silence(lab):
    lab.neighbours.broken = True


def thief(lab):
    lab.neighbours.cards[BOX] = THIEF


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(("change", "status"), [(thief, 403), (nobody, 503), (silence, 503)])
async def test_nothing_is_done_for_a_client_at_a_boxes_address_without_its_card(
    tmp_path, act, change, status
):
    async with open_lab(config(tmp_path)) as lab:
        job = await at_work(lab, act)
        before = seen(lab, job)
        change(lab)
        refused = await ACTS[act](lab, job, BOX)

        waits = act in ("/boot.", "/ws/", GPXELINUX)  # who may not wait here may ask again
        assert (503 if waits else status) == refused
        assert before == seen(lab, job)


@pytest.mark.parametrize("act", ACTS)
async def test_the_box_is_heard_again_once_it_has_its_address_back(tmp_path, act):
    async with open_lab(config(tmp_path)) as lab:
        job = await at_work(lab, act)
        thief(lab)
        refused = await ACTS[act](lab, job, BOX)
        lab.neighbours.cards[BOX] = SECOND  # another card of the same box
        taken = await ACTS[act](lab, job, BOX)

        assert refused in (403, 503)
        assert taken in (200, 201)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("way", ["unchecked", "routed", "provider"])
async def test_where_no_card_can_be_seen_the_address_alone_counts(tmp_path, act, way):
    network = {"unchecked": {"check_neighbour": False}, "provider": {"providers": (BOX,)}}
    async with open_lab(config(tmp_path, **network.get(way, {}))) as lab:
        job = await at_work(lab, act)
        thief(lab)
        if way == "routed":
            lab.neighbours.routed.add(BOX)

        assert await ACTS[act](lab, job, BOX) in (200, 201)
        assert way == "routed" or lab.neighbours.asked in ([], [BOX] * len(lab.neighbours.asked))


HOST_CARD, HOST = "52:54:00:00:00:99", "10.9.0.7"
REGISTERS = "/set_host_mac?hostname=vm-1&mac=52:54:00:00:01:01"


async def as_provider(lab, client=HOST):
    """What only a machine that runs virtual boxes may: register one, and ask in its name."""
    return (
        await send(lab, "PUT", REGISTERS, client),
        await send(lab, "GET", ASK, client),
        await send(lab, "GET", f"{GPXELINUX}?hostname=box-1", client),
    )


ALL, NOTHING, NOT_NOW = (200, 200, 200), (403, 503, 503), (503, 503, 503)


@pytest.mark.parametrize(
    ("entry", "card", "may"),
    [
        (HOST, HOST_CARD, ALL),
        (HOST, THIEF, ALL),  # nobody can tell: doctor warns
        (HOST, SECOND, NOTHING),  # a testbox's, that has taken the address
        (HOST, None, NOT_NOW),
        ("10.9.0.0/16", HOST_CARD, ALL),
        ("10.9.0.0/16", SECOND, NOTHING),
        (f"{HOST} {HOST_CARD}", HOST_CARD, ALL),
        (f"{HOST} 52-54-00-00-00-98 {HOST_CARD.upper()}", HOST_CARD, ALL),
        (f"{HOST} {HOST_CARD}", THIEF, NOTHING),
        (f"{HOST} {HOST_CARD}", SECOND, NOTHING),
        (f"{HOST} {HOST_CARD}", None, NOT_NOW),
        (f"{HOST} {SECOND}", SECOND, ALL),  # the operator says that this box runs virtual ones
        (f"10.9.0.8 {HOST_CARD}", HOST_CARD, NOTHING),
    ],
)
async def test_a_provider_is_known_by_its_card(tmp_path, entry, card, may):
    async with open_lab(config(tmp_path, providers=(entry,))) as lab:
        await lab.know()
        await lab.know("box-2", SECOND)
        lab.neighbours.cards[HOST] = card

        assert may == await as_provider(lab)


async def test_a_provider_behind_a_router_is_known_by_its_address_alone(tmp_path):
    async with open_lab(config(tmp_path, providers=(HOST,))) as lab:
        await lab.know()
        lab.neighbours.routed.add(HOST)

        assert ALL == await as_provider(lab)


async def test_a_card_that_cannot_be_seen_behind_a_router_is_not_taken_for_there(tmp_path):
    async with open_lab(config(tmp_path, providers=(f"{HOST} {HOST_CARD}",))) as lab:
        await lab.know()
        await lab.ask()
        lab.neighbours.routed.add(HOST)

        assert NOTHING == await as_provider(lab)


async def test_who_is_refused_is_told_what_to_write(tmp_path):
    async with open_lab(config(tmp_path, providers=("10.9.0.0/16",))) as lab:
        await lab.know("box-2", SECOND)
        lab.neighbours.cards[HOST] = SECOND
        for method, path in (("PUT", REGISTERS), ("GET", ASK)):
            answer = await fakes.fetch(
                lab.wire, method, path, client=(HOST, 4000), server=SCHEDULER
            )
            assert f'providers = ["{HOST} {SECOND}"]' in answer.body.decode()


@pytest.mark.parametrize("act", ACTS)
async def test_a_testbox_among_the_providers_acts_for_itself_alone(tmp_path, act):
    """Its virtual boxes' network may have others in it."""
    async with open_lab(config(tmp_path, providers=("10.0.0.0/24",))) as lab:
        job = await at_work(lab, act)
        await lab.know("box-2", THIEF)
        lab.neighbours.cards[ELSEWHERE] = THIEF
        before = seen(lab, job)
        await ACTS[act](lab, job, ELSEWHERE)

        assert before == seen(lab, job)
        assert await ACTS[act](lab, job, BOX) in (200, 201)


@pytest.mark.parametrize("act", ACTS)
async def test_a_neighbour_at_its_own_address_does_nothing_for_another_box(tmp_path, act):
    async with open_lab(config(tmp_path)) as lab:
        job = await at_work(lab, act)
        before = seen(lab, job)
        lab.neighbours.cards[ELSEWHERE] = THIEF
        status = await ACTS[act](lab, job, ELSEWHERE)

        # A report of nobody's is answered as if all were well, and does nothing.
        assert status in (403, 503) or act.startswith("/~<user>")
        assert before == seen(lab, job)


@pytest.mark.parametrize("act", ["/boot.", "/ws/", GPXELINUX])
@pytest.mark.parametrize(("there", "status"), [(True, 503), (False, 200)])
async def test_nobody_behind_a_router_asks_for_a_box_that_is_on_a_link_of_ours(
    tmp_path, act, there, status
):
    """A box that was moved behind one is not to be seen on the link any more."""
    async with open_lab(config(tmp_path)) as lab:
        job = await at_work(lab, act)
        lab.neighbours.routed.add(ELSEWHERE)
        if not there:
            nobody(lab)

        assert status == await ACTS[act](lab, job, ELSEWHERE)


async def test_who_asked_as_itself_at_a_taken_address_does_not_shut_its_owner_out(tmp_path):
    async with open_lab(config(tmp_path)) as lab:
        job = await at_work(lab, "")
        thief(lab)
        asked = await lab.ask(f"/boot.ipxe/mac/{THIEF.replace(':', '-')}")
        lab.neighbours.cards[BOX] = MAC
        await lab.get(f"/~lkp/cgi-bin/lkp-jobfile-append-var?job_id={job.id}&job_state=finished")

        assert 200 == asked.status
        assert "success" == lab.scheduler.store.job(job.id).attempt.health


@pytest.mark.parametrize("target", ["/runner.cgz", "files"])
async def test_what_a_thief_of_an_address_fetches_moves_nothing(tmp_path, target):
    async with open_lab(config(tmp_path)) as lab:
        job = await at_work(lab, "/job_initrd_tmpfs/")
        before = seen(lab, job)
        thief(lab)
        if target == "files":
            for path in [labs.PINNED.kernel, *labs.PINNED.initrds]:
                lab.fetches.moved(BOX, path, 1000)
                lab.fetches.done(BOX, path, 1000, 1.0)
                lab.fetches.missing(BOX, path, SCHEDULER[0])
        else:
            assert 200 == (await lab.get(target)).status

        assert before == seen(lab, job)


async def test_a_token_speaks_for_its_attempt_from_whichever_address(tmp_path):
    """A job may report from a container, or by another card: what it proves is that it has it."""
    async with open_lab(config(tmp_path)) as lab:
        job = await at_work(lab, "")
        token = lab.scheduler.store.job(job.id).attempts[-1].token
        lab.neighbours.cards[ELSEWHERE] = THIEF
        answer = await lab.get(f"/~lkp/{token}/cgi-bin/still-wanted?job_id={job.id}", ELSEWHERE)

        assert b"yes" == answer.body


@pytest.mark.parametrize(
    ("card", "mac", "status"),
    [
        (MAC, MAC, 200),
        (SECOND, MAC, 200),  # by another card of the same box
        (MAC, THIEF, 503),  # a MAC that is nobody's: it would be the box's from then on
        (THIEF, MAC, 503),
        (THIEF, THIEF, 200),  # a stranger, as itself
    ],
)
async def test_a_question_names_the_card_that_asks_or_another_of_its_box(
    tmp_path, card, mac, status
):
    uuid = "11111111-2222-3333-4444-555555555555"
    async with open_lab(config(tmp_path)) as lab:
        await lab.know(mac=[MAC, SECOND], uuid=uuid)
        lab.neighbours.cards[BOX] = card
        more = f"?uuid={uuid}" if card == MAC else ""
        answer = await lab.ask(f"/boot.ipxe/mac/{mac.replace(':', '-')}{more}")

        assert status == answer.status
        assert (MAC, SECOND) == lab.scheduler.store.box("box-1").macs


async def test_a_link_local_address_names_nobody(tmp_path):
    async with open_lab(config(tmp_path)) as lab:
        await lab.know()
        lab.neighbours.cards["fe80::1"] = MAC
        answer = await lab.get(ASK, "fe80::1%eth0")

        assert 503 == answer.status
        assert b"link-local" in answer.body
        assert [] == lab.neighbours.asked


@pytest.mark.parametrize(("named", "status"), [(True, 403), (False, 200)])
async def test_of_a_known_box_the_hosts_file_says_the_cards(tmp_path, named, status):
    """What a box has said of itself is no proof once the operator has said something."""
    async with open_lab(config(tmp_path)) as lab:
        job = await at_work(lab, "/job_initrd_tmpfs/")
        box = lab.scheduler.store.box("box-1")
        box.macs = (*box.macs, THIEF)  # as an earlier version kept it
        thief(lab)
        if not named:
            box.facts = attrs.evolve(box.facts, macs=(MAC, SECOND, THIEF))

        assert status == await ACTS["/job_initrd_tmpfs/"](lab, job, BOX)
