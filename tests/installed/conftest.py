"""An installation's life is played once, whichever part of it the chosen tests are about."""

import faulthandler

import pytest
import trio

from . import play


@pytest.fixture(scope="session")
def played(tmp_path_factory):
    faulthandler.cancel_dump_traceback_later()  # minutes are no hang here; the play has a limit
    return trio.run(play.play, tmp_path_factory.mktemp("server"))
