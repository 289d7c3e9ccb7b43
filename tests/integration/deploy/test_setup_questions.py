"""`ostoja setup`: what it asks, tries and writes, with a sandbox for Slack and the mail relay."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import check
from deploy.up import environment, questions
from deploy.up.environment import ROOT
from deploy.up.process import ServerError
from libs.domain import company, forms
from services.alerts.config import rota, targets
from tests.support.ports import HOST, Ports
from tests.support.sandbox import Sandbox, running_sandbox

PEOPLE = 'Łucja "Lu" Lis +48 600 700 803 lu@firma.pl, Jan Kos +48600700801 jan@firma.pl'


@pytest.fixture(scope="module")
def sandbox(ports: Ports) -> Iterator[Sandbox]:
    with running_sandbox(ports) as running:
        yield running


@pytest.fixture
def root(tmp_path: Path) -> Path:
    environment.ensure(tmp_path / ".env", data_exists=False, trying=True)
    environment.ensure_config(tmp_path / "config")
    (tmp_path / ".local").mkdir()
    return tmp_path


@pytest.fixture
def typed(sandbox: Sandbox, root: Path) -> list[list[str]]:
    """What a person types, question by question; names of this test do not resolve: `k`."""
    page = f"http://{HOST}:{sandbox.port}/"
    return [
        ["Firma", "Firma sp. z o.o.", "ul. Prosta 1, 00-001 Warszawa", "5252248481"],
        ["biuro@127.0.0.1.nip.invalid", "+48 22 765 43 21", "k"],
        ["https://ostoja.firma.invalid", "k"],
        [f"{sandbox.url}/slack"],
        [HOST, str(sandbox.smtp_port), "none", "-", "pa$$ word", "ostoja@firma.pl"],
        ["biuro@firma.pl", "ops@firma.pl"],
        [PEOPLE],
        [page],
        [str(root / "backups"), "k"],  # on the same disk
    ]


def answering(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    left = iter(lines)

    def answer(_: str) -> str:
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("getpass.getpass", answer)


def asked(monkeypatch: pytest.MonkeyPatch, root: Path, typed: list[list[str]]) -> questions.Answers:
    answering(monkeypatch, [line for part in typed for line in part])
    return questions.ask(root)


def state(root: Path) -> dict[str, bytes]:
    files = [root / ".env", *(root / "config").iterdir()]
    return {path.name: path.read_bytes() for path in files}


async def test_what_was_answered_is_tried_written_and_would_start(
    monkeypatch: pytest.MonkeyPatch, root: Path, typed: list[list[str]], sandbox: Sandbox
) -> None:
    questions.write(asked(monkeypatch, root, typed), root)

    values = environment.load(root / ".env")
    assert check.faults(values, root / ".env") == []
    left = str(list(check.examples(values, root / "config")))  # names of this test are left
    assert not [each for each in ("ostoja-wn", "Ostoja Wn", '"sandbox"') if each in left]
    assert (values["SMTP_PASSWORD"], values["FOLLOWUP_QUIET_HOURS"]) == ("pa$$ word", "on")
    assert (root / ".env").stat().st_mode & 0o777 == 0o600
    ours = company.load(root / "config" / "company.toml")
    assert (ours.company.name, ours.company.nip) == ("Firma", "5252248481")
    facts = ours.company
    assert [facts.prices, facts.included, facts.quote, facts.answers] == [{}] * 4
    assert facts.towns == ()
    assert "Firma sp. z o.o." in ours.asking("chat", "pl").text
    assert forms.load(root / "config" / "forms.toml")["contact"].origins[0].startswith("http")
    given = environment.for_process(values, "alerts")
    alerts = targets.load(root / "config" / "alerts.toml", given)[0]
    assert alerts.targets.keys() == {"slack", "email"}
    assert {key: each.name for key, each in alerts.people.items()} == {
        "manager": 'Łucja "Lu" Lis',
        "jan": "Jan Kos",
    }
    assert rota.faults(rota.load(alerts, root / "config")) == {}
    for address in ("biuro@firma.pl", "lu@firma.pl", "jan@firma.pl"):
        assert await sandbox.mails(address), address


@pytest.mark.parametrize(
    ("question", "wrong", "said"),
    [
        (0, ["Firma", "Firma sp. z o.o.", "x", "525", "biuro@firma.pl", ""], "nip"),
        (2, ["http://ostoja.firma.pl"], "needs https://"),
        (3, ["http://127.0.0.1:9/"], "refused"),
        (6, ["+48600700801"], "needs a name"),
        (7, ["http://127.0.0.1:9/"], "refused"),
    ],
)
def test_an_answer_that_does_not_work_is_told_and_asked_again(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    root: Path,
    typed: list[list[str]],
    question: int,
    wrong: list[str],
    said: str,
) -> None:
    before = state(root)
    answering(monkeypatch, [w for part in typed[:question] for w in part] + [*wrong, ""])
    with pytest.raises(EOFError):
        questions.ask(root)
    assert said in capsys.readouterr().out.rpartition("did not work: ")[2]
    assert state(root) == before


def test_files_that_somebody_edited_stay_and_are_not_asked_for(
    monkeypatch: pytest.MonkeyPatch, root: Path, typed: list[list[str]]
) -> None:
    questions.write(asked(monkeypatch, root, typed), root)
    before = state(root)
    again = [*typed[2:6], typed[8]]
    questions.write(asked(monkeypatch, root, again), root)
    assert state(root) == before


def test_a_fault_that_only_all_answers_show_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, root: Path, typed: list[list[str]]
) -> None:
    typed[6] = ["Jan Kos +48600700801, Ola Sowa ola@firma.pl"]
    before = state(root)
    with pytest.raises(ServerError, match="no email"):
        questions.write(asked(monkeypatch, root, typed), root)
    assert state(root) == before


KILLED = """
import json, os, sys
from pathlib import Path
from deploy.up import questions
answers, root, steps = json.loads(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
rename = os.rename, os.replace
def counted(which):
    def step(*words, **more):
        global steps
        if steps == 0:
            os.kill(os.getpid(), 9)
        steps -= 1
        return rename[which](*words, **more)
    return step
os.rename, os.replace = counted(0), counted(1)
questions.write(answers, root)
"""


def test_a_kill_at_each_step_leaves_all_or_nothing(
    monkeypatch: pytest.MonkeyPatch, root: Path, typed: list[list[str]], tmp_path: Path
) -> None:
    answers: Any = json.dumps(asked(monkeypatch, root, typed))
    before, ends, env = state(root), [], {**os.environ, "PYTHONPATH": str(ROOT)}
    for step in range(20):
        other = tmp_path / f"at-{step}"
        shutil.copytree(root, other, ignore=shutil.ignore_patterns("at-*"))
        command = [sys.executable, "-c", KILLED, answers, str(other), str(step)]
        done = subprocess.run(command, env=env, capture_output=True, check=False)
        found = state(other)
        whole = all((other / "config" / name).stat().st_size for name in found if name[0] != ".")
        assert whole
        questions.finish(other)
        ends.append(state(other))
        if done.returncode == 0:
            break
    assert done.returncode == 0
    after = ends[-1]
    assert not [name for name in after if name.endswith(".new")]
    decided = ends.index(after)
    assert 0 < decided < len(ends) - 1
    assert ends == [before] * decided + [after] * (len(ends) - decided)
