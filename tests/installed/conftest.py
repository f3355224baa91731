"""An installation's life is played once, whichever part of it the chosen tests are about.

So is a Debian package's, and both are about the same two builds.
"""

import faulthandler
from subprocess import CalledProcessError

import pytest
import trio

from . import builds as both
from . import package, play, tree


@pytest.fixture(scope="session")
def builds(tmp_path_factory):
    faulthandler.cancel_dump_traceback_later()  # minutes are no hang here; the plays have limits
    try:
        return both.make(tmp_path_factory.mktemp("builds"))
    except CalledProcessError as error:
        # It fails each of these tests, and make has said already what was wrong.
        pytest.fail(f"no builds to install: {error}", pytrace=False)


@pytest.fixture(scope="session")
def played(tmp_path_factory, builds):
    faulthandler.cancel_dump_traceback_later()
    return trio.run(play.play, tmp_path_factory.mktemp("server"), builds)


@pytest.fixture(scope="session", params=[tree.BUILT_ON, tree.NEWER])
def life(tmp_path_factory, builds, request):
    faulthandler.cancel_dump_traceback_later()
    keep = tmp_path_factory.mktemp("package")
    return trio.run(package.live, keep, builds, request.param)
