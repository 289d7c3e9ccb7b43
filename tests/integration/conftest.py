"""Certificates, for the tests of servers that speak TLS."""

from pathlib import Path

import pytest

from tests.support.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def own(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the servers' certificate."""
    return authority.issue(tmp_path_factory.mktemp("own") / "server")
