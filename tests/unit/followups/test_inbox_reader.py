"""What a mail means: each row of the design's table, with mails as providers write them."""

import time
import tomllib
from typing import Any

import pytest

from services.followups.inbox import reader, worker
from services.followups.mails.marks import Marks
from tests.support.mails import FOLDER, KEYS, MARKS, NAMES, STEP, hostile, sample

EXPECTED: dict[str, dict[str, Any]] = tomllib.loads((FOLDER / "expected.toml").read_text())
HOSTILE = 500
SECONDS = 2.0


def test_each_mail_is_in_the_table() -> None:
    assert sorted(EXPECTED) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_mail_means_what_the_table_says(name: str) -> None:
    wanted, found = EXPECTED[name], reader.read(sample(name))
    assert found.kind == wanted["kind"]
    assert found.stops == wanted.get("stops", False)
    if "status" in wanted:
        assert found.status == wanted["status"]
    if "text" in wanted:
        begins, ends = wanted["text"]
        assert found.text.startswith(begins)
        assert found.text.endswith(ends)
        assert "zrezygnować" not in found.text
    if "files" in wanted:
        assert [[*each] for each in found.files] == wanted["files"]


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("auto-")])
def test_a_mail_names_its_step(name: str) -> None:
    found = reader.read(sample(name))
    named = {MARKS.step(token) for token in found.tokens} | {*map(str, found.steps)}
    is_ours = EXPECTED[name].get("ours", True) and name != "arf-not-spam"
    assert bool(named & {STEP, str(STEP)}) == is_ours


def test_the_same_mail_has_one_key_by_whichever_way_it_came() -> None:
    raw = sample("reply-gmail-pl")
    other = b"Received: from a\r\nX-Spam: no\r\n" + raw.replace(b"\n", b"\r\n") + b"\r\n"
    assert reader.read(raw).key == reader.read(other).key
    assert reader.read(raw).key != reader.read(raw.replace(b"czwartek", b"wtorek")).key


def test_a_token_of_another_key_or_step_or_action_is_none_of_ours() -> None:
    ours = MARKS.address("b", STEP).partition("+")[2].partition("@")[0]
    assert MARKS.step(ours) == STEP
    assert MARKS.step(f"u{ours[1:]}") is None
    assert MARKS.step(ours[:-2] + ("aa" if ours[-2:] != "aa" else "bb")) is None
    assert Marks(KEYS.replace("AAA=", "AAE="), "bounce@example.com").step(ours) is None
    for token in ("", "b", "b1", "bé", "b" * 43):
        assert MARKS.step(token) is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of codecs that a mail names
def test_500_hostile_mails_are_read_in_bounds_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "QUOTES_SECONDS", 0.05)
    refused = 0
    for raw in hostile(seed=39, count=HOSTILE):
        began = time.process_time()
        try:
            found = reader.read(raw)
        except (ValueError, RecursionError):
            refused += 1
        else:
            assert len(found.text) <= reader.TEXT_LENGTH
            assert len(found.files) <= reader.MOST_FILES
            assert "\0" not in found.text + found.subject
            assert max(map(len, (found.subject, found.sender))) <= 254
        assert time.process_time() - began < SECONDS, raw[:200]
    assert refused < HOSTILE / 10


async def test_a_process_of_its_own_reads_a_mail() -> None:
    raw = sample("reply-files")
    assert await worker.read(raw) == reader.read(raw)


@pytest.mark.parametrize("limit", ["SECONDS", "MEMORY"])
async def test_a_mail_that_takes_too_much_is_unreadable(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, limit, 0.01 if limit == "SECONDS" else 8 * 1024 * 1024)
    with pytest.raises(worker.Unreadable):
        await worker.read(sample("reply-files"))


async def test_a_mail_of_too_many_parts_is_unreadable() -> None:
    raw = b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\n" * (reader.MOST_PARTS + 1)
    with pytest.raises(worker.Unreadable):
        await worker.read(raw)
