"""`make certs`, and a real OpenSSL that verifies what it wrote."""

import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from deploy import certs
from libs.common.process import certificates
from libs.common.process.certificates import AUTHORITIES, CERTIFICATE, KEY


class Run:
    def __init__(self, folder: Path) -> None:
        self.certs = folder / "certs"
        self.authority = folder / "authority"

    def __call__(self, **variables: str) -> list[str]:
        """Run it with make's variables."""
        order = certs.Order.of({**variables, "AUTHORITY": str(self.authority)})
        lines = certs.run(replace(order, folder=self.certs))
        return [line.replace(str(self.certs), "certs") for line in lines]

    def everything(self) -> dict[Path, bytes]:
        folders = (self.certs, self.authority)
        found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in found}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def hosts(folder: Path) -> list[str]:
    return certs.hosts_of(x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes()))


def verified(folder: Path, purpose: str, host: str) -> bool:
    name = "-verify_ip" if host[0].isdigit() else "-verify_hostname"
    done = subprocess.run(
        [
            *("openssl", "verify", "-x509_strict", "-purpose", purpose, name, host),
            *("-CAfile", folder / AUTHORITIES, folder / CERTIFICATE),
        ],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def test_each_process_of_each_host_gets_a_folder_that_a_service_accepts(run: Run) -> None:
    lines = run(HOSTS="a.example.com,10.0.0.1 b.example.com")
    folders = sorted(run.certs.glob("*/*"))
    assert [(each.parent.name, each.name) for each in folders] == [
        (host, name)
        for host in ("a.example.com", "b.example.com")
        for name in sorted(certs.PROCESSES)
    ]
    assert len(lines) == len(folders) + 1
    for folder in folders:
        certificates.check(folder)
        assert stat.S_IMODE((folder / KEY).stat().st_mode) == 0o600
    keys = {(folder / KEY).read_bytes() for folder in folders}
    assert len(keys) == len(folders)
    one = run.certs / "a.example.com" / "alerts"
    assert hosts(one) == ["a.example.com", "10.0.0.1", "alerts", "localhost", "127.0.0.1"]
    for host in hosts(one):
        assert verified(one, "sslserver", host)
        assert verified(one, "sslclient", host)
    assert not verified(one, "sslserver", "b.example.com")


def test_the_authority_key_is_in_no_folder_of_a_process(run: Run) -> None:
    run()
    assert stat.S_IMODE(run.authority.stat().st_mode) == 0o700
    assert stat.S_IMODE((run.authority / "ca.key").stat().st_mode) == 0o600
    key = (run.authority / "ca.key").read_bytes()
    assert [path for path, content in run.everything().items() if key in content] == [
        run.authority / "ca.key"
    ]


def test_a_second_run_replaces_nothing_and_says_so(run: Run) -> None:
    run(HOSTS="a")
    before = run.everything()
    lines = run(HOSTS="a,new.example.com")
    assert run.everything() == before
    assert all("kept, ends " in line for line in lines)
    assert all("it lacks new.example.com (RENEW=1 replaces it)" in line for line in lines)


def test_renewing_keeps_the_names_and_gives_new_keys(run: Run) -> None:
    run(HOSTS="a,10.0.0.1")
    folder = run.certs / "a" / "alerts"
    before, named = (folder / KEY).read_bytes(), hosts(folder)
    others = (run.certs / "a" / "redis" / KEY).read_bytes()
    assert "certs/a/alerts: replaced" in run(NAMES="alerts", RENEW="1")[0]
    assert (folder / KEY).read_bytes() != before
    assert hosts(folder) == named
    assert (run.certs / "a" / "redis" / KEY).read_bytes() == others
    certificates.check(folder)


def test_an_authority_that_was_moved_away_is_not_replaced(run: Run) -> None:
    run()
    kept = run.authority.rename(run.authority.with_name("elsewhere"))
    before = run.everything()
    with pytest.raises(certs.CertsError, match="AUTHORITY=folder"):
        run(RENEW="1")
    assert run.everything() == before
    assert not run.authority.exists()
    run.authority = kept
    run(RENEW="1")


def test_a_new_authority_is_trusted_beside_the_old_one_until_that_is_dropped(run: Run) -> None:
    run()
    alerts, redis = (run.certs / "localhost" / name for name in ("alerts", "redis"))
    old = (alerts / CERTIFICATE).read_bytes()
    run(NEW_AUTHORITY="1")
    assert (alerts / CERTIFICATE).read_bytes() == old
    assert verified(alerts, "sslserver", "localhost")  # with both
    with pytest.raises(certs.CertsError, match="RENEW=1 first"):
        run(DROP_OLD_AUTHORITY="1")
    run(NAMES="alerts", RENEW="1")
    for folder in (alerts, redis):  # one of the new, one of the old authority
        assert verified(folder, "sslserver", "localhost")
    run(RENEW="1")
    run(DROP_OLD_AUTHORITY="1")
    for folder in run.certs.glob("*/*"):
        assert verified(folder, "sslserver", "localhost")
        assert len(x509.load_pem_x509_certificates((folder / AUTHORITIES).read_bytes())) == 1
    (alerts / CERTIFICATE).write_bytes(old)
    assert not verified(alerts, "sslserver", "localhost")


def test_a_run_that_was_killed_between_key_and_certificate_is_repaired(run: Run) -> None:
    run(NAMES="alerts redis")
    folder = run.certs / "localhost" / "alerts"
    (folder / KEY).write_bytes((run.certs / "localhost" / "redis" / KEY).read_bytes())
    lines = run(NAMES="alerts redis")
    assert ["replaced" in line for line in lines] == [True, False]
    certificates.check(folder)


def test_a_new_authority_whose_run_was_killed_before_its_key_changes_nothing(run: Run) -> None:
    run()
    key = (run.authority / "ca.key").read_bytes()
    run(NEW_AUTHORITY="1")
    (run.authority / "ca.key").write_bytes(key)
    run(RENEW="1")
    for folder in run.certs.glob("*/*"):
        assert verified(folder, "sslclient", "localhost")


def test_no_certificate_outlives_its_authority(run: Run) -> None:
    run(DAYS="36500", NAMES="alerts")
    (path,) = run.certs.glob("*/alerts/tls.crt")
    own = x509.load_pem_x509_certificate(path.read_bytes())
    (ca,) = x509.load_pem_x509_certificates((run.authority / AUTHORITIES).read_bytes())
    assert own.not_valid_after_utc == ca.not_valid_after_utc
