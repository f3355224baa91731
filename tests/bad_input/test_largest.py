"""The largest inputs are taken: else the stall test would play what is refused at the limit."""

from __future__ import annotations

import pytest

from appliance.scheduler import intake
from appliance.scheduler.intake import Paper
from tests import fakes
from tests.lab import KEY, SCHEDULER, open_lab
from tests.test_submits import open_network

from . import largest


@pytest.mark.slow
@pytest.mark.parametrize("what", largest.BODIES)
async def test_the_largest_bodies_are_taken(tmp_path, what):
    async with open_network(tmp_path) as lab:
        answer = await fakes.fetch(
            lab.wire, "POST", "/submit_job", body=largest.BODIES[what], server=SCHEDULER
        )
        assert 200 == answer.status, answer.body[:300]


@pytest.mark.slow
@pytest.mark.parametrize("what", largest.PAPERS)
async def test_the_largest_documents_are_taken(what):
    async with open_lab() as lab:
        paper = Paper("x.yaml", largest.PAPERS[what])
        assert 1 == len(await intake.submit(lab.scheduler, [paper], "ann", KEY))
