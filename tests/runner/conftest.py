"""A server and a testbox for each test, and nothing left of either."""

from __future__ import annotations

import pytest

from tests.runner.server import Server
from tests.runner.testbox import Testbox


@pytest.fixture
def server():
    server = Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def make_box(tmp_path, server):
    boxes = []

    def make(**choices) -> Testbox:
        boxes.append(Testbox(tmp_path / f"box{len(boxes)}", server, **choices))
        return boxes[-1]

    yield make
    for box in boxes:
        box.kill()


@pytest.fixture
def box(make_box):
    return make_box()
