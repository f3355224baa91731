"""The scenes are played once, whichever of them the chosen tests are about."""

import faulthandler

import pytest
import trio

from . import play


@pytest.fixture(scope="session")
def played(tmp_path_factory):
    faulthandler.cancel_dump_traceback_later()  # minutes are no hang here; scenes have limits
    return trio.run(play.play, tmp_path_factory.mktemp("labs"))
