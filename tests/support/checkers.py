"""Programs that check what is not Python; `make prepare` installs them where apt can."""

import os
import shutil

import pytest


def require(*programs: str) -> None:
    """Skip the test where one is missing; with REQUIRE_CHECKERS set that is a failure."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        reason = f"no {' and no '.join(missing)} here; make prepare installs them where apt can"
        assert "REQUIRE_CHECKERS" not in os.environ, reason
        pytest.skip(reason)
