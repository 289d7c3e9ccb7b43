import logging
import ssl
from pathlib import Path

import pytest

from libs.common import beside
from libs.common.process import certificates
from libs.common.process.certificates import CERTIFICATE, KEY
from libs.common.process.settings import BrokerSettings, ProcessSettings, load
from tests.support.certificates import Authority

TABLE = beside.toml(__file__)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def whole(authority: Authority, tmp_path: Path) -> Path:
    return authority.issue(tmp_path / "whole")


@pytest.mark.parametrize("url", TABLE["stays"])
def test_a_url_without_tls_or_options_stays(url: str, whole: Path) -> None:
    assert certificates.in_url(url, whole) == url


def test_what_a_url_names_itself_stays(whole: Path) -> None:
    url = "postgresql://a/d?sslmode=verify-full&sslrootcert=system&sslcert=own.crt&sslkey=own.key"
    assert certificates.in_url(url, whole) == url
    assert certificates.in_url("rediss://a/0", None) == "rediss://a/0"


class Example(ProcessSettings, BrokerSettings):
    pass


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("HTTP_PORT", "1")
    monkeypatch.setenv("METRICS_PORT", "2")
    monkeypatch.setenv("AMQP_URL", "amqps://u:hush@a/v")
    return monkeypatch


@pytest.mark.parametrize(("fault", "named"), TABLE["faults"])
def test_files_that_cannot_be_used_stop_the_start(
    environment: pytest.MonkeyPatch,
    authority: Authority,
    whole: Path,
    tmp_path: Path,
    fault: str,
    named: str,
) -> None:
    match fault:
        case "missing":
            (whole / "ca.crt").unlink()
        case "half":
            (whole / KEY).unlink()
        case "mixed":
            authority.issue(tmp_path / "other").joinpath(KEY).replace(whole / KEY)
        case "empty":
            (whole / "ca.crt").write_text("")
    environment.setenv("TLS_DIR", str(whole))
    with pytest.raises(SystemExit) as stopped:
        load(Example)
    assert str(stopped.value).startswith("TLS_DIR: ")
    assert named in str(stopped.value).lower()
    assert "hush" not in str(stopped.value)
    assert "PRIVATE" not in str(stopped.value)


def test_new_files_are_used_and_those_that_do_not_match_are_not(
    authority: Authority, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    current = certificates.Current(whole, certificates.client)
    first = current.context()
    assert current.context() is first
    other = authority.issue(tmp_path / "other")
    (other / KEY).replace(whole / KEY)
    with caplog.at_level(logging.ERROR):
        assert current.context() is first  # and not again until a file changes
        assert current.context() is first
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "tls.files_unusable"
    ]
    (other / CERTIFICATE).replace(whole / CERTIFICATE)
    assert current.context() is not first


def test_files_that_were_never_usable_are_an_error(whole: Path) -> None:
    (whole / KEY).write_text("")
    with pytest.raises(ssl.SSLError):
        certificates.Current(whole, certificates.client).context()
