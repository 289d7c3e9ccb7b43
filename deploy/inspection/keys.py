"""Keys and passwords: set, long enough, none used twice, and readable only by us."""

import base64
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy.up.environment import GENERATED, INTERNAL_KEYS
from libs.common.process.finding import Finding, ok, unknown, wrong
from libs.domain.signed_links import parse_keys

RINGS = ("TOKEN_KEYS", "CONSENT_MASTER_KEYS", "CONSENT_CHECKPOINT_KEYS", "ALERTS_SUBJECT_KEYS")
KEYS = ("ADMIN_API_KEY", "SERVICE_API_KEY", *INTERNAL_KEYS.values())
KEY_LENGTH = 16
PASSWORD_LENGTH = 12
FEWEST_LETTERS = 8
"""Minimum number of distinct characters: `changemechangeme` has 7, a generated key over 20."""

FRESH = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))' makes one"


def findings(given: Mapping[str, str], env_file: Path) -> Iterator[Finding]:
    yield from _env_file(env_file)
    values = {name: given.get(name, "") for name in GENERATED}
    faults = [*_missing(values), *_weak(values), *_malformed(values), *_equal(values)]
    yield from faults or [ok("keys", f"{len(values)} keys and passwords, none used twice")]


def _env_file(path: Path) -> Iterator[Finding]:
    try:
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        yield unknown(
            ".env", "cannot be checked from here", "on its machine, ls -l .env must show -rw-------"
        )
        return
    shown = f"{path.name} has mode {mode:04o}"
    if mode & 0o007:
        yield wrong(".env", f"{shown}: everyone on this machine can read it", f"chmod 600 {path}")
    else:
        yield ok(".env", shown)


def _missing(values: Mapping[str, str]) -> Iterator[Finding]:
    if names := [name for name, value in values.items() if not value]:
        yield wrong(
            "keys",
            f"not set: {', '.join(names)}",
            "make env writes what is missing; keys of existing data are in your copy of .env",
        )


def _weak(values: Mapping[str, str]) -> Iterator[Finding]:
    for name, value in values.items():
        if name in RINGS:  # their format implies the length
            continue
        least = KEY_LENGTH if name in KEYS else PASSWORD_LENGTH
        if value and (len(value) < least or len(set(value)) < FEWEST_LETTERS):
            yield wrong(
                "keys", f"{name} is easily guessed", f"replace it with a random one: {FRESH}"
            )


def _malformed(values: Mapping[str, str]) -> Iterator[Finding]:
    for name in RINGS:
        try:
            if values[name]:
                parse_keys(values[name])
        except ValueError as error:
            yield wrong("keys", f"{name}: {error}", "restore it from your copy of .env")
    try:
        for key in values["CONSENT_HASH_KEY"].split(","):
            base64.b64decode(key.strip(), validate=True)
    except ValueError:
        yield wrong("keys", "CONSENT_HASH_KEY is not base64", "restore it from your copy of .env")


def _equal(values: Mapping[str, str]) -> Iterator[Finding]:
    holders: dict[str, list[str]] = defaultdict(list)
    for name, value in values.items():
        for part in value.split(",") if name in RINGS else [value]:
            if secret := part.strip().rpartition(":")[2]:
                holders[secret].append(name)
    for names in holders.values():
        if len(names) > 1:
            yield wrong(
                "keys",
                f"{' and '.join(names)} are the same: whoever has one has the other",
                f"give each its own: {FRESH}",
            )
