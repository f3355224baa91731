"""The boot wait, through a real Hypercorn, in virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.config import Config, Limits, Network, Waits
from appliance.doors import boot_wait
from tests import fakes, lab
from tests.lab import ASK, KEY, SCHEDULER, open_lab

RECHAIN = (
    "        echo ...\n"
    "        echo No job now\n"
    "        echo ...\n"
    "        chain --replace --autofree"
    " http://10.0.0.1:3000/boot.ipxe/mac/${mac:hexhyp}?arch=x86_64\n"
)


async def test_an_idle_box_waits_half_an_hour_of_comment_lines_then_chains_again(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        asked = trio.current_time()
        answer = await lab.ask()
        pieces = []
        while (piece := await answer.piece()) is not None:
            pieces.append((round(trio.current_time() - asked), piece.decode()))

        assert 200 == answer.status
        assert (0, "#!ipxe\n") == pieces[0]
        drips = [(at, text) for at, text in pieces[1:-1]]
        assert [(30 * n, "# no job yet\n") for n in range(1, 60)] == drips[:59]
        assert (1800, RECHAIN) == pieces[-1]
        await wait_all_tasks_blocked()
        assert 0 == len(lab.scheduler.lobby)


async def test_a_box_whose_address_is_leased_renews_it_at_half_time(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        answer = await lab.ask(f"{ASK}&lease=600")
        script = (await answer.rest()).decode()

        assert 300 == round(trio.current_time())
        assert script.endswith(
            "        echo ...\n"
            "        dhcp netX ||\n"
            "        chain --replace --autofree http://10.0.0.1:3000/boot.ipxe/mac/"
            "${mac:hexhyp}?arch=x86_64&lease=600\n"
        )


async def test_a_lease_without_an_end_is_not_renewed(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        answer = await lab.ask(f"{ASK}&lease=-1")
        script = (await answer.rest()).decode()

        assert 1800 == round(trio.current_time())
        assert "dhcp" not in script


async def test_in_proxydhcp_mode_a_box_that_says_nothing_of_its_lease_renews_it(autojump_clock):
    async with open_lab(Config(network=Network(interface="eth0", address="10.0.0.1"))) as lab:
        await lab.know()
        answer = await lab.ask()
        script = (await answer.rest()).decode()

        assert 1800 == round(trio.current_time())
        assert "        dhcp netX ||\n        chain " in script


async def test_a_parked_box_is_handed_the_job_that_comes_in(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        answer = await lab.ask()
        await trio.sleep(100)
        began = trio.current_time()
        job = await lab.submit()
        script = (await answer.rest()).decode()

        assert began == trio.current_time()
        assert script.startswith("#!ipxe\n# no job yet\n# no job yet\n# no job yet\n\ninitrd http")
        assert script.endswith("\nboot\n")
        assert f"/job_initrd_tmpfs/{job.id}/job.cgz" in script
        assert "offered" == lab.stage(job)


async def test_a_box_that_asks_while_a_job_waits_gets_it_at_once(autojump_clock):
    async with open_lab() as lab:
        job = await lab.submit()
        await lab.know()
        answer = await lab.ask()

        assert f"/{job.id}/" in (await answer.rest()).decode()
        assert 0 == trio.current_time()


@pytest.mark.parametrize(
    "mac", ["52-54-00-00-00-01", "52:54:00:00:00:01", "52-54-00-AB-CD-EF", "52:54:00:AB:CD:EF"]
)
async def test_a_mac_is_taken_with_hyphens_colons_and_in_either_case(autojump_clock, mac):
    async with open_lab() as lab:
        await lab.know(mac=mac.lower().replace("-", ":"))
        answer = await lab.ask(f"/boot.ipxe/mac/{mac}?arch=x86_64")
        job = await lab.submit()

        assert f"/{job.id}/" in (await answer.rest()).decode()


@pytest.mark.parametrize("mac", ["", "52-54", "zz-54-00-00-00-01", "52-54:00-00-00-01", "%0a"])
async def test_a_broken_mac_is_answered_400_with_what_is_right(autojump_clock, mac):
    async with open_lab() as lab:
        answer = await lab.get(f"/boot.ipxe/mac/{mac}")

        assert 400 == answer.status
        assert b"six pairs of hex digits" in answer.body


async def test_an_unknown_box_is_parked_shown_and_gets_no_job(autojump_clock):
    async with open_lab() as lab:
        job = await lab.submit()
        answer = await lab.ask()
        rows = (await lab.people.do("hosts", {}, "root", None))["hosts"]

        assert [("unknown-52-54-00-00-00-01", "parked", False)] == [
            (row["name"], row["state"], row["known"]) for row in rows
        ]
        assert RECHAIN in (await answer.rest()).decode()
        assert "submit" == lab.stage(job)


async def test_host_add_makes_a_parked_box_known_where_it_sits(autojump_clock):
    async with open_lab() as lab:
        job = await lab.submit()
        answer = await lab.ask()
        await trio.sleep(10)
        await lab.know("rack-7")

        assert f"/{job.id}/" in (await answer.rest()).decode()
        assert 10 == trio.current_time()
        assert ["rack-7"] == list(lab.scheduler.store.boxes)


async def test_a_box_of_unknown_arch_is_never_matched(autojump_clock):
    async with open_lab() as lab:
        job = await lab.submit()
        await lab.know()
        answer = await lab.ask(f"/boot.ipxe/mac/{lab_mac()}")

        assert "No job now" in (await answer.rest()).decode()
        assert "submit" == lab.stage(job)


def lab_mac() -> str:
    return lab.HYPHENS


async def test_the_hosts_file_tells_the_arch_of_a_box_with_the_bare_url(autojump_clock):
    async with open_lab() as lab:
        job = await lab.submit()
        await lab.know(arch="x86_64")
        answer = await lab.ask(f"/boot.ipxe/mac/{lab_mac()}")

        assert f"/{job.id}/" in (await answer.rest()).decode()


async def test_a_box_that_asks_again_has_rebooted_and_its_older_wait_ends_short(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        older = await lab.ask()
        await trio.sleep(5)
        newer = await lab.ask(client="10.0.0.5")
        job = await lab.submit()

        assert f"/{job.id}/" in (await newer.rest()).decode()
        with pytest.raises(Exception, match=r"without sending complete message body"):
            await older.rest()


async def test_however_many_waits_end_at_once_all_boxes_are_told_to_ask_again(autojump_clock):
    async with open_lab() as lab:
        many = 3 * boot_wait.LEAVING_MAX
        macs = [f"52:54:00:00:01:{n:02x}" for n in range(many)]
        for n, mac in enumerate(macs):
            await lab.know(f"box-{n}", mac)
        asked = [
            await lab.ask(f"/boot.ipxe/mac/{mac}", f"10.0.1.{n + 1}") for n, mac in enumerate(macs)
        ]
        told = [(await answer.rest()).decode() for answer in asked]
        await wait_all_tasks_blocked()
        paths = lab.wire.app._by_port[3000]
        door = next(app for prefix, app in paths._by_prefix if prefix == "/boot.")

        assert many == sum("No job now" in text for text in told)
        assert 0 == door._turns.borrowed_tokens
        assert 0 == len(lab.scheduler.lobby)


async def test_a_client_that_hangs_up_leaves_no_seat(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        answer = await lab.ask()
        assert 1 == len(lab.scheduler.lobby)
        await answer.hang_up()
        await wait_all_tasks_blocked()

        assert 0 == len(lab.scheduler.lobby)


async def test_a_job_handed_to_a_box_that_hung_up_goes_back_to_its_queue_at_once(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        answer = await lab.ask()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer.hang_up)
            job = await lab.submit()
        await wait_all_tasks_blocked()

        assert "submit" == lab.stage(job)
        assert 0 == trio.current_time()
        lab.check()


async def test_dismissing_the_lobby_sends_every_parked_box_back(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        answer = await lab.ask()
        lab.scheduler.lobby.dismiss()

        assert RECHAIN in (await answer.rest()).decode()
        assert 0 == trio.current_time()


async def test_unknown_boxes_past_the_cap_are_told_to_come_back_later(autojump_clock):
    async with open_lab(lab.config(limits=Limits(unknown_boxes=1))) as one:
        await one.ask()
        second = await one.get("/boot.ipxe/mac/52-54-00-00-00-02", "10.0.0.6")

        assert 503 == second.status
        assert "60" == second.headers["retry-after"]


async def test_an_unknown_box_that_asks_no_more_makes_room_for_the_next(autojump_clock):
    async with open_lab(lab.config(limits=Limits(unknown_boxes=1))) as one:
        await (await one.ask()).hang_up()
        await trio.sleep(3500)
        early = await one.get("/boot.ipxe/mac/52-54-00-00-00-02", "10.0.0.6")
        await trio.sleep(200)
        late = await one.ask("/boot.ipxe/mac/52-54-00-00-00-02", "10.0.0.6")

        assert (503, 200) == (early.status, late.status)
        assert ["unknown-52-54-00-00-00-02"] == list(one.scheduler.store.boxes)
        one.check()
        disk = one.disk.after_kill()
    async with open_lab(lab.config(), disk) as one:
        assert ["unknown-52-54-00-00-00-02"] == list(one.scheduler.store.boxes)


async def test_a_box_that_still_waits_is_never_forgotten_however_long_the_wait(autojump_clock):
    long = Waits(park=10_000.0)
    async with open_lab(lab.config(limits=Limits(unknown_boxes=1), waits=long)) as one:
        waiting = await one.ask()
        await trio.sleep(9_000)
        second = await one.get("/boot.ipxe/mac/52-54-00-00-00-02", "10.0.0.6")

        assert 503 == second.status
        assert RECHAIN in (await waiting.rest()).decode()
        one.check()


async def test_beside_another_dhcp_server_a_stranger_is_not_answered(autojump_clock):
    proxy = Config(
        paths=lab.config().paths, network=Network(interface="eth0", check_neighbour=False)
    )
    async with open_lab(proxy) as one:
        stranger = await one.get(ASK)
        await one.know()
        known = await one.ask()

        assert 404 == stranger.status
        assert 200 == known.status
        assert ["box-1"] == list(one.scheduler.store.boxes)


async def test_a_box_on_another_mac_than_it_says_is_turned_away(autojump_clock):
    checking = lab.config()
    checking = Config(paths=checking.paths)
    async with open_lab(checking) as one:
        one.neighbours.cards["10.0.0.5"] = "52:54:00:00:00:99"
        turned_away = await one.get(ASK)
        one.neighbours.cards["10.0.0.5"] = lab.MAC
        taken = await one.ask()

        assert 503 == turned_away.status
        assert b"52:54:00:00:00:99" in turned_away.body
        assert 200 == taken.status


async def preview(lab, **words):
    return await lab.people.do("host-preview", {"host": "box-1", **words}, "ann", None)


async def test_a_preview_is_the_script_of_the_next_boot_and_hands_out_nothing(
    autojump_clock,
):
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        none = await preview(lab)
        job = await lab.submit()
        await lab.submit(key=KEY[::-1])
        seen = await preview(lab)
        await preview(lab)
        stage = lab.stage(job)
        script = await (await lab.ask()).rest()

        assert "" == none["script"]
        assert f"{job.id} would be next" == seen["why"]
        assert "submit" == stage
        assert script.decode() == seen["script"].replace("SERVER", "10.0.0.1")


async def test_a_preview_of_a_job_that_somebody_names_does_not_say_that_it_is_next(
    autojump_clock,
):
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        job, other = await lab.submit(), await lab.submit(key=KEY[::-1])
        await lab.people.do("cancel", {"job": job.id}, "root", None)
        over, later = await preview(lab, job=job.id), await preview(lab, job=other.id)

        assert f"{job.id}, were it next; it is in finish" == over["why"]
        assert f"{other.id}, were it next; it is in submit" == later["why"]
        assert f"/{other.id}/job.cgz" in later["script"]


KEXEC = "/~lkp/cgi-bin/gpxelinux.cgi?hostname=box-1&mac=52-54-00-00-00-01&last_kernel=6.1&&lkp_wtmp"


async def run_to_the_end(lab, job):
    await (await lab.ask()).rest()
    await lab.fetched_all(job)
    await lab.report(job, "job_state=running")
    await lab.report(job, "", "lkp-post-run")


@pytest.mark.parametrize("prefix", ["", "/scheduler"])
async def test_linux_that_asks_for_the_next_job_gets_the_script_that_firmware_would(
    autojump_clock, prefix
):
    """The client takes the first line that begins with `kernel`, and the URL of job.cgz."""
    async with open_lab() as lab:
        await lab.know()
        done = await lab.submit()
        await run_to_the_end(lab, done)
        kexec = await lab.ask(prefix + KEXEC)
        await trio.sleep(100)
        job = await lab.submit(key=KEY[::-1])
        script = (await kexec.rest()).decode()
        lines = script.splitlines()

        assert ["# no job yet"] * 3 == lines[1:4]
        assert [line for line in lines if line.lower().startswith("kernel ")]
        assert f"initrd http://10.0.0.1:3000/job_initrd_tmpfs/{job.id}/job.cgz" in lines
        await lab.fetched_all(job)
        assert "boot" == lab.stage(job)


async def test_linux_that_asks_with_its_token_or_by_its_name_alone_is_the_same_box(autojump_clock):
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        first = await lab.ask("/~lkp/token0/cgi-bin/gpxelinux.cgi?hostname=box-1&&")
        await lab.ask()
        await wait_all_tasks_blocked()

        assert ["box-1"] == list(lab.scheduler.store.boxes)
        with pytest.raises(Exception, match=r"without sending complete message body"):
            await first.rest()


async def test_linux_that_gets_no_job_finds_no_kernel_in_its_answer(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        script = (await (await lab.ask(KEXEC)).rest()).decode()

        assert 1800 == trio.current_time()
        assert "No job now" in script
        assert [] == [line for line in script.splitlines() if line.lower().startswith("kernel ")]


async def test_linux_that_asks_while_its_job_runs_has_lost_it(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit()
        await (await lab.ask()).rest()
        await lab.fetched_all(job)
        await lab.report(job, "job_state=running")
        await lab.ask(KEXEC)

        assert "finish" == lab.stage(job)


@pytest.mark.parametrize("query", ["", "hostname=nobody", "mac=x", "mac=" + "0" * 5000])
async def test_linux_that_does_not_say_who_it_is_gets_a_line(autojump_clock, query):
    async with open_lab() as lab:
        answer = await lab.get(f"/~lkp/cgi-bin/gpxelinux.cgi?{query}")

        assert 400 == answer.status
        assert b"six pairs of hex digits" in answer.body
        assert len(answer.body) < 120
        assert {} == lab.scheduler.store.boxes


@pytest.mark.parametrize(
    ("client", "status"),
    [("10.0.0.5", 503), ("10.0.0.1", 200), ("127.0.0.1", 200), ("10.9.0.7", 200)],
)
async def test_only_the_server_and_providers_may_ask_for_a_box_that_is_not_theirs(
    autojump_clock, client, status
):
    checking = Config(paths=lab.config().paths, network=Network(providers=("10.9.0.0/16",)))
    async with open_lab(checking) as one:
        one.neighbours.cards[client] = "52:54:00:00:00:99"
        answer = await one.ask(client=client)

        assert status == answer.status


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("PUT", 405)])
async def test_who_only_looks_at_job_cgz_moves_nothing(autojump_clock, method, status):
    async with open_lab() as lab:
        await lab.know()
        await lab.ask()
        job = await lab.submit()
        await trio.sleep(1)
        seen, target = lab.scheduler.store.job(job.id), f"/job_initrd_tmpfs/{job.id}/job.cgz"
        looked = await fakes.fetch(
            lab.wire, method, target, client=("10.0.0.5", 4000), server=SCHEDULER
        )
        assert status == looked.status
        now = lab.scheduler.store.job(job.id)
        assert (seen.state, seen.history) == (now.state, now.history)
        assert "offered" == lab.stage(job)
        taken = await lab.get(target)

        assert "boot" == lab.stage(job)
        if method == "HEAD":
            assert b"" == looked.body
            assert len(taken.body) == int(looked.headers["content-length"])


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("&ipxe=1.0.0+git-20190125.36a4c85-5.1", "1.0.0+git-20190125.36a4c85-5.1"),
        ("&ipxe=1.0.0%2B%20(4bd06)", "1.0.0+ (4bd06)"),
        ("&ipxe=<b>%0a" + "x" * 100, "b" + "x" * 59),
        ("", ""),
    ],
)
async def test_a_parked_box_is_shown_with_its_ipxe(autojump_clock, query, shown):
    async with open_lab() as lab:
        await lab.know()
        await lab.ask(ASK + query)
        await wait_all_tasks_blocked()

        (row,) = (await lab.people.do("hosts", {}, "ann", None))["hosts"]
        assert shown == row["ipxe"]
