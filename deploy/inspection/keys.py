"""Keys and passwords: set, long enough, none used twice, and readable only by us."""

import base64
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy.inspection import say
from deploy.up.environment import GENERATED, INTERNAL_KEYS
from libs.common.process.finding import Finding
from libs.domain.signed_links import parse_keys

RINGS = ("TOKEN_KEYS", "CONSENT_MASTER_KEYS", "CONSENT_CHECKPOINT_KEYS", "ALERTS_SUBJECT_KEYS")
KEYS = ("ADMIN_API_KEY", "SERVICE_API_KEY", *INTERNAL_KEYS.values())
KEY_LENGTH = 16
PASSWORD_LENGTH = 12
FEWEST_LETTERS = 8
"""Minimum number of distinct characters: `changemechangeme` has 7, a generated key over 20."""


def findings(given: Mapping[str, str], env_file: Path) -> Iterator[Finding]:
    yield _of_file(env_file)
    values = {name: given.get(name, "") for name in GENERATED}
    faults = [*_faults(values), *_malformed(values), *_equal(values)]
    yield from faults or [say("keys", count=len(values))]


def _of_file(path: Path) -> Finding:
    try:
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        return say("env-file-elsewhere")
    is_open = mode & 0o007
    return say("env-file-open" if is_open else "env-file", file=path.name, mode=mode, path=path)


def _faults(values: Mapping[str, str]) -> Iterator[Finding]:
    if names := [name for name, value in values.items() if not value]:
        yield say("keys-missing", names=", ".join(names))
    for name, value in values.items():
        least = KEY_LENGTH if name in KEYS else PASSWORD_LENGTH
        easy = value and (len(value) < least or len(set(value)) < FEWEST_LETTERS)
        if easy and name not in RINGS:  # their format implies the length
            yield say("key-weak", name=name)


def _malformed(values: Mapping[str, str]) -> Iterator[Finding]:
    for name in RINGS:
        try:
            if values[name]:
                parse_keys(values[name])
        except ValueError as error:
            yield say("key-malformed", fault=f"{name}: {error}")
    try:
        for key in values["CONSENT_HASH_KEY"].split(","):
            base64.b64decode(key.strip(), validate=True)
    except ValueError:
        yield say("key-malformed", fault="CONSENT_HASH_KEY is not base64")


def _equal(values: Mapping[str, str]) -> Iterator[Finding]:
    holders: dict[str, list[str]] = defaultdict(list)
    for name, value in values.items():
        for part in value.split(",") if name in RINGS else [value]:
            if secret := part.strip().rpartition(":")[2]:
                holders[secret].append(name)
    for names in holders.values():
        if len(names) > 1:
            yield say("keys-equal", names=" and ".join(names))
