import pytest

pytest.register_assert_rewrite("tests.bad_input.strangers")

from .strangers import SEED, TIMES  # noqa: E402 # after its asserts are to be rewritten


def pytest_terminal_summary(terminalreporter):
    terminalreporter.line(f"bad input was drawn from FUZZ_SEED={SEED}, FUZZ_TIMES={TIMES}")
