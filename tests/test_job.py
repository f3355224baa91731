"""Every state meets every event; the legal cells stand here a second time, by hand."""

from __future__ import annotations

import attrs
import pytest

from appliance.errors import IllegalMove
from appliance.jobs import job as jobs
from appliance.jobs.job import (
    BOXES_MAX,
    RUNS_LOST_MAX,
    Asked,
    Attempt,
    Begin,
    Booting,
    Cancel,
    Close,
    Fail,
    Fetch,
    Finished,
    Held,
    Hold,
    Lapse,
    Load,
    Offer,
    Offered,
    PostRun,
    Queued,
    RefuseUpload,
    Renew,
    Rules,
    Running,
    Undelivered,
    Verdict,
    Wrap,
    advance,
)

NOW, AT, NEXT = 50.0, 100.0, 200.0
ONE = Attempt(1, "token", "box-1", "10.0.0.5", 0.0)
REBOOTED = attrs.evolve(ONE, reboots=1, began=NOW)
JUDGED = attrs.evolve(ONE, health="failed")
AGAIN = Rules(retry=True)

STATES = {
    "queued": Queued(),
    "offered": Offered(ONE, AT),
    "loading": Booting(ONE, AT),
    "loaded": Booting(ONE, AT, loaded=True),
    "running": Running(ONE, AT),
    "post_run": PostRun(ONE, AT),
    "held": Held(ONE, AT, "renew"),
    "finished": Finished("success", "", ONE),
    "never offered": Finished("cancel", "cancelled by ann", None),
}
EVENTS = {
    "offer": Offer(ONE, NEXT),
    "fetch": Fetch(NEXT),
    "load": Load(NEXT),
    "renew": Renew(NEXT),
    "begin": Begin(NEXT),
    "wrap": Wrap(NEXT),
    "hold": Hold(NEXT, "manual_check"),
    "verdict": Verdict("failed"),
    "refuse": RefuseUpload("quota"),
    "close": Close(),
    "lapse": Lapse("silent"),
    "undelivered": Undelivered(),
    "asked": Asked(NEXT, NOW),
    "fail": Fail("incomplete", "image gone"),
    "cancel": Cancel("ann"),
}
REFUSED = attrs.evolve(ONE, refused="quota")
BACK = Queued(tries=1, lost_by=("box-1",))  # nobody to blame
RUN_LOST = attrs.evolve(BACK, avoid=("box-1",), runs_lost=1)
BLAMED = Queued(tries=1, losses=1, avoid=("box-1",), lost_by=("box-1",))
CANCELLED = Finished("cancel", "cancelled by ann", ONE)
GONE = Finished("incomplete", "image gone", ONE)
UNHEARD = attrs.evolve(ONE, health="incomplete")
WELL = attrs.evolve(ONE, health="success")

# DESIGN.md#a-jobs-life: a job's life and blame.  Where no cell is, the move is illegal.
LEGAL = {
    ("queued", "offer"): Offered(ONE, NEXT),
    ("queued", "fail"): Finished("incomplete", "image gone", None),
    ("queued", "cancel"): Finished("cancel", "cancelled by ann", None),
    #
    ("offered", "fetch"): Booting(ONE, NEXT),
    ("offered", "renew"): Offered(ONE, NEXT),
    ("offered", "begin"): Running(ONE, NEXT),
    ("offered", "wrap"): PostRun(ONE, NEXT),
    ("offered", "verdict"): Offered(JUDGED, AT),
    ("offered", "refuse"): Offered(REFUSED, AT),
    ("offered", "close"): Finished("incomplete", "closed before it ran", UNHEARD),
    ("offered", "lapse"): BACK,
    ("offered", "undelivered"): Queued(tries=1),
    ("offered", "asked"): BACK,
    ("offered", "fail"): GONE,
    ("offered", "cancel"): CANCELLED,
    #
    ("loading", "fetch"): Booting(ONE, NEXT),
    ("loading", "load"): Booting(ONE, NEXT, loaded=True),
    ("loading", "renew"): Booting(ONE, NEXT),
    ("loading", "begin"): Running(ONE, NEXT),
    ("loading", "wrap"): PostRun(ONE, NEXT),
    ("loading", "verdict"): Booting(JUDGED, AT),
    ("loading", "refuse"): Booting(REFUSED, AT),
    ("loading", "close"): Finished("incomplete", "closed before it ran", UNHEARD),
    ("loading", "lapse"): BACK,
    ("loading", "asked"): BACK,
    ("loading", "fail"): GONE,
    ("loading", "cancel"): CANCELLED,
    #
    ("loaded", "fetch"): Booting(ONE, NEXT, loaded=True),
    ("loaded", "renew"): Booting(ONE, NEXT, loaded=True),
    ("loaded", "begin"): Running(ONE, NEXT),
    ("loaded", "wrap"): PostRun(ONE, NEXT),
    ("loaded", "verdict"): Booting(JUDGED, AT, loaded=True),
    ("loaded", "refuse"): Booting(REFUSED, AT, loaded=True),
    ("loaded", "close"): Finished("incomplete", "closed before it ran", UNHEARD),
    ("loaded", "lapse"): BLAMED,
    ("loaded", "asked"): BLAMED,
    ("loaded", "fail"): GONE,
    ("loaded", "cancel"): CANCELLED,
    #
    ("running", "renew"): Running(ONE, NEXT),
    ("running", "begin"): Running(ONE, AT),
    ("running", "wrap"): PostRun(ONE, NEXT),
    ("running", "hold"): Held(ONE, NEXT, "manual_check"),
    ("running", "verdict"): Running(JUDGED, AT),
    ("running", "refuse"): Running(REFUSED, AT),
    ("running", "close"): Finished("success", "", WELL),
    ("running", "lapse"): Finished("timeout", "silent", ONE),
    ("running", "asked"): Finished("abnormal", "its testbox rebooted", ONE),
    ("running", "cancel"): CANCELLED,
    #
    ("post_run", "renew"): PostRun(ONE, NEXT),
    ("post_run", "wrap"): PostRun(ONE, AT),
    ("post_run", "hold"): Held(ONE, NEXT, "manual_check"),
    ("post_run", "verdict"): PostRun(JUDGED, AT),
    ("post_run", "refuse"): PostRun(REFUSED, AT),
    ("post_run", "close"): Finished("success", "", WELL),
    ("post_run", "lapse"): Finished("incomplete", "no verdict: silent", UNHEARD),
    ("post_run", "asked"): Finished("incomplete", "no verdict: its testbox rebooted", UNHEARD),
    ("post_run", "cancel"): CANCELLED,
    #
    ("held", "renew"): Held(ONE, NEXT, "renew"),
    ("held", "begin"): Running(ONE, NEXT),
    ("held", "wrap"): PostRun(ONE, NEXT),
    ("held", "hold"): Held(ONE, NEXT, "manual_check"),
    ("held", "verdict"): Held(JUDGED, AT, "renew"),
    ("held", "refuse"): Held(REFUSED, AT, "renew"),
    ("held", "close"): Finished("success", "", WELL),
    ("held", "lapse"): Finished("incomplete", "no verdict: silent", UNHEARD),
    ("held", "asked"): Finished("incomplete", "no verdict: its testbox rebooted", UNHEARD),
    ("held", "cancel"): CANCELLED,
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", STATES)
def test_every_cell_of_the_table(state, event):
    if (state, event) in LEGAL:
        assert LEGAL[state, event] == advance(STATES[state], EVENTS[event], Rules())
    else:
        with pytest.raises(IllegalMove, match=f"stage .* cannot take {event[:4]}"):
            advance(STATES[state], EVENTS[event], Rules())


def test_the_tables_name_every_state_and_every_event():
    def classes(union):
        return {kind.__name__ for kind in union.__args__}

    assert classes(jobs.State) == {type(state).__name__ for state in STATES.values()}
    assert classes(jobs.Event) == {type(event).__name__ for event in EVENTS.values()}
    assert {state for state, _ in LEGAL} == STATES.keys() - {"finished", "never offered"}
    assert {event for _, event in LEGAL} == EVENTS.keys()


@pytest.mark.parametrize("number", [0, 2, 3, 5])
def test_an_attempts_number_is_never_given_twice_nor_left_out(number):
    with pytest.raises(IllegalMove):
        advance(Queued(tries=3), Offer(attrs.evolve(ONE, number=number), NEXT), Rules())

    assert isinstance(
        advance(Queued(tries=3), Offer(attrs.evolve(ONE, number=4), NEXT), Rules()), Offered
    )


ACTIVE = ["offered", "loading", "loaded", "running", "post_run", "held"]
OVER = [EVENTS["lapse"], EVENTS["asked"], EVENTS["close"]]


@pytest.mark.parametrize("event", OVER, ids=["lapse", "asked", "close"])
@pytest.mark.parametrize("name", ACTIVE)
def test_after_the_verdict_the_job_closes_with_it_whatever_happens(name, event):
    for rules in (Rules(), AGAIN, Rules(reboots=5)):
        judged = advance(STATES[name], Verdict("OOM"), rules)

        assert "OOM" == advance(judged, event, rules).health


@pytest.mark.parametrize("event", OVER, ids=["lapse", "asked", "close"])
@pytest.mark.parametrize("name", ACTIVE)
def test_a_refused_upload_never_ends_as_success(name, event):
    state = advance(STATES[name], RefuseUpload("quota"), Rules())
    end = advance(advance(state, Verdict("finished"), Rules()), event, Rules())

    assert ("incomplete", "quota") == (end.health, end.reason)


def test_a_refused_upload_does_not_hide_a_failure():
    state = advance(STATES["running"], RefuseUpload("quota"), Rules())
    state = advance(state, Verdict("failed"), Rules())

    assert "failed" == advance(state, Close(), Rules()).health


@pytest.mark.parametrize(
    ("first", "then", "kept"),
    [
        ("finished", "failed", "success"),
        ("failed", "finished", "failed"),
        ("failed", "return", "return"),
        ("return", "failed", "return"),
    ],
)
def test_the_first_verdict_stands_but_a_borrowers_return_overrides(first, then, kept):
    state = advance(STATES["running"], Verdict(first), Rules())

    assert kept == advance(state, Verdict(then), Rules()).attempt.health
    assert kept == advance(state, Close(then), Rules()).health


def test_a_close_may_bring_the_verdict():
    assert "failed" == advance(STATES["post_run"], Close("failed"), Rules()).health
    assert "failed" == advance(STATES["offered"], Close("failed"), Rules()).health


def lose(state, event, number=2, box="box-2"):
    """`state` loses its attempt and is offered to another box."""
    queued = advance(state, event, Rules())
    attempt = attrs.evolve(
        ONE,
        number=number,
        box=box,
        losses=queued.losses,
        avoid=queued.avoid,
        lost_by=queued.lost_by,
    )
    return advance(queued, Offer(attempt, NEXT), Rules())


@pytest.mark.parametrize("event", [EVENTS["lapse"], EVENTS["asked"]], ids=["lapse", "asked"])
def test_two_boots_lost_with_everything_fetched_are_boot_failed(event):
    offered = lose(STATES["loaded"], event)
    again = advance(advance(offered, Fetch(NEXT), Rules()), Load(NEXT), Rules())
    end = advance(again, event, Rules())

    assert "boot_failed" == end.health
    assert end.reason.startswith("2 boots lost: ")
    assert ("box-1",) == offered.attempt.avoid


def test_boots_lost_before_everything_was_fetched_never_count():
    state = STATES["loaded"]
    state = lose(state, EVENTS["lapse"])
    for number in range(3, 50):
        state = advance(state, Fetch(NEXT), Rules()) if number % 2 else state
        state = lose(state, EVENTS["lapse"], number)

    assert (49, 1, ("box-1",)) == (
        state.attempt.number,
        state.attempt.losses,
        state.attempt.avoid,
    )


def test_a_job_with_retry_runs_again_after_it_was_lost_but_not_after_its_deadline():
    assert RUN_LOST == advance(STATES["running"], EVENTS["asked"], AGAIN)
    assert "timeout" == advance(STATES["running"], EVENTS["lapse"], AGAIN).health


def test_a_job_with_retry_that_loses_every_run_ends():
    state = STATES["running"]
    for number in range(2, RUNS_LOST_MAX + 1):
        state = advance(state, EVENTS["asked"], AGAIN)
        assert isinstance(state, Queued)
        attempt = attrs.evolve(ONE, number=number, avoid=state.avoid, runs_lost=state.runs_lost)
        state = Running(attempt, AT)
    end = advance(state, EVENTS["asked"], AGAIN)

    assert ("abnormal", "5 runs lost: its testbox rebooted") == (end.health, end.reason)


def test_a_job_that_may_restart_its_box_is_offered_the_same_attempt_again():
    state = advance(STATES["running"], Asked(NEXT, NOW), Rules(reboots=1))

    assert Offered(REBOOTED, NEXT) == state


def test_a_box_that_asks_while_results_are_handed_over_ends_the_job_with_what_it_has():
    end = advance(STATES["post_run"], Asked(NEXT, NOW), Rules(reboots=1, retry=True))

    assert "incomplete" == end.health


def test_a_restart_of_the_server_begins_offers_and_boots_anew():
    for name in ("offered", "loading", "loaded"):
        state = advance(STATES[name], Renew(NEXT, began=NOW), Rules())
        assert (NEXT, NOW) == (state.until, state.attempt.began)
    assert ONE == advance(STATES["running"], Renew(NEXT), Rules()).attempt


@pytest.mark.parametrize("name", ["offered", "loading", "loaded", "held"])
def test_a_job_that_did_not_run_did_not_restart_its_box(name):
    state = advance(STATES[name], Asked(NEXT, NOW), Rules(reboots=1))

    assert isinstance(state, Queued | Finished)


def test_a_job_restarts_its_box_no_oftener_than_it_says():
    state = STATES["running"]
    for _ in range(3):
        state = advance(state, Asked(NEXT, NOW), Rules(reboots=3))
        assert isinstance(state, Offered)
        for event in (EVENTS["fetch"], Begin(NEXT)):
            state = advance(state, event, Rules(reboots=3))

    assert "abnormal" == advance(state, Asked(NEXT, NOW), Rules(reboots=3)).health


RESTARTING = {
    "offered": Offered(REBOOTED, AT),
    "loading": Booting(REBOOTED, AT),
    "loaded": Booting(REBOOTED, AT, loaded=True),
}


@pytest.mark.parametrize("name", RESTARTING)
def test_a_job_lost_while_it_restarts_its_box_was_running_and_is_not_run_twice(name):
    rules = Rules(reboots=1)

    if name != "offered":
        assert "abnormal" == advance(RESTARTING[name], EVENTS["asked"], rules).health
    assert "timeout" == advance(RESTARTING[name], EVENTS["lapse"], rules).health


@pytest.mark.parametrize("name", ["loading", "loaded"])
def test_a_job_lost_while_it_restarts_its_box_runs_again_if_it_says_retry(name):
    assert RUN_LOST == advance(RESTARTING[name], EVENTS["asked"], Rules(reboots=1, retry=True))


@pytest.mark.parametrize("event", ["begin", "wrap"])
def test_what_a_job_said_before_it_restarted_its_box_moves_it_no_more(event):
    """Found by the simulation: a report that came twice, the second time behind a disk that hung.

    Attempt and token are the same; but who has not fetched job.cgz runs nothing.
    """
    with pytest.raises(IllegalMove, match="before it restarted its box"):
        advance(RESTARTING["offered"], EVENTS[event], Rules(reboots=1))


@pytest.mark.parametrize("event", ["asked", "undelivered"])
def test_a_restarted_box_that_asks_twice_is_told_the_same_until_the_offer_lapses(event):
    assert RESTARTING["offered"] == advance(RESTARTING["offered"], EVENTS[event], Rules(reboots=1))


@pytest.mark.parametrize("event", ["lapse", "asked"])
def test_a_kernel_of_the_submitters_own_gets_no_second_boot(event):
    end = advance(STATES["loaded"], EVENTS[event], Rules(own_kernel=True))

    assert "boot_failed" == end.health
    assert "its own kernel" in end.reason
    assert BACK == advance(STATES["loading"], EVENTS[event], Rules(own_kernel=True))


def lost_by_many(name, event, rules, count):
    """The state after `count` boxes, one after another, lost an attempt in the state `name`."""
    state = Queued()
    for number in range(1, count + 1):
        attempt = attrs.evolve(ONE, number=number, box=f"box-{number}", lost_by=state.lost_by)
        state = advance(attrs.evolve(STATES[name], attempt=attempt), EVENTS[event], rules)
    return state


@pytest.mark.parametrize(
    ("name", "event", "health"),
    [
        ("offered", "lapse", "boot_failed"),
        ("loading", "asked", "boot_failed"),
        ("running", "asked", "abnormal"),
    ],
)
def test_a_job_that_ten_boxes_lost_is_no_longer_handed_out(name, event, health):
    nine = lost_by_many(name, event, AGAIN, BOXES_MAX - 1)
    ten = lost_by_many(name, event, AGAIN, BOXES_MAX)

    assert BOXES_MAX - 1 == len(nine.lost_by)
    assert health == ten.health
    assert ten.reason.startswith("quarantined: 10 testboxes lost it")


def test_each_stage_has_the_fields_own_word():
    words = ["submit", "offered", "boot", "boot", "running", "post_run", "renew", "finish"]

    assert words == [jobs.stage(state) for state in list(STATES.values())[:8]]


def test_the_attempt_of_a_state():
    assert [None, *[ONE] * 7, None] == [jobs.attempt_of(state) for state in STATES.values()]
