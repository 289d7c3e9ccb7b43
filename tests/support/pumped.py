"""Input that grows, for whatever reads a stranger's bytes (P17): texts, JSON, forms."""

from collections.abc import Callable
from functools import partial

from libs.common import beside

Inputs = dict[str, Callable[[int], str]]
"""By what they repeat; called with the bytes that they should have."""

ACUTE, DOT = "\N{COMBINING ACUTE ACCENT}", "\N{COMBINING DOT BELOW}"
UNITS: dict[str, list[str]] = beside.toml(__file__)
CJK = "".join(chr(0x4E00 + number) for number in range(1000))


def repeated(unit: str) -> Callable[[int], str]:
    return lambda size: unit * (size // len(unit.encode()))


def between(first: str, unit: str, last: str) -> Callable[[int], str]:
    return lambda size: first + repeated(unit)(size) + last


TEXTS: Inputs = {
    **{f"{unit!r}…": repeated(unit) for unit in UNITS["texts"]},
    # Normalising sorts them, from the last to the first.
    "marks": lambda size: f"a{ACUTE * (size // 4)}{DOT * (size // 4)}",
    "a…@b.pl": lambda size: "a" * size + "@b.pl",
    "a@….pl": lambda size: f"a@{'b' * size}.pl",
    "a@漢….pl": lambda size: f"a@{'漢' * (size // 3)}.pl",
    "long addresses": repeated(f"{'ż' * 450}@{'ż' * 40}.pl "),
    "long hosts": repeated(f"a@{CJK[:600]}.pl "),
    "a long host": lambda size: f"a@{CJK[: size // 3]}.pl",
}
SAID: Inputs = {  # whose readers are not linear but bounded
    **{f"{unit!r}…": repeated(unit) for unit in UNITS["said"]},
    "a kitchen": between("kuchnia 5 m2 ", "a", " 2 m2"),
    "thousands": between("10 tys ", "a", "! 20 tys"),
    "a refusal": between("rezygnuję z", " na te", " x zgody"),
    "an English refusal": between("don't want", " of your", " x send"),
    "a correction": between("nie 200 tylko 300 ", "sora", ";"),
    "a host": between("@a", ".a", ""),
}
JSON: Inputs = {
    **{f"[{each[:20]},…]": between("[", f"{each},", "0]") for each in UNITS["listed"]},
    **{f"{unit}…": repeated(unit) for unit in ("[", "{", '{"a":', "1", " ", '"', "\\", "[[],")},
    "depth": lambda size: "[" * (size // 2) + "]" * (size // 2),
    "digits": lambda size: f'{{"a":{"9" * size}}}',
    "fraction": lambda size: f'{{"a":0.{"1" * size}}}',
    "exponent": lambda size: f'{{"a":1e{"1" * size}}}',
    "escapes": between('"', "\\u0041", '"'),
    "quotes": between('"', '\\"', '"'),
    "surrogates": between('"', "\\ud83d\\ude00", '"'),
    "names": lambda size: "{" + ",".join(f'"{number}":1' for number in range(size // 9)) + "}",
    "one name": between("{", '"a":1,', '"a":1}'),
}


def a_part(head: str, value: str = "") -> str:
    return f"--x\r\n{head}\r\n\r\n{value}\r\n"


DISPOSITION = "Content-Disposition: form-data"
NAMED = f'{DISPOSITION}; name="a"'
NESTED = f"{NAMED}\r\nContent-Type: multipart/mixed; boundary=x"
MULTIPARTS: Inputs = {
    "semicolons": lambda size: a_part(f"{DISPOSITION}{';' * size}"),
    "quotes": lambda size: a_part(f"{DISPOSITION}; name=" + '";"' * (size // 3)),
    "parameters": lambda size: a_part(f"{DISPOSITION}{';a=b' * (size // 4)}"),
    "short heads": repeated(a_part(f"{NAMED}{';' * 900}")),
    "long names": repeated(a_part(f'{DISPOSITION}; name="{"a" * 900}"')),
    "lines": lambda size: a_part(NAMED + "\r\nX: 1" * (size // 6)),
    "a line": lambda size: a_part(f"X{'a' * size}: 1"),
    "parts": repeated(a_part(NAMED)),
    "nested": repeated(a_part(NESTED)),
    "nested deep": lambda size: NESTED + "".join(
        f"\r\n\r\n--{depth}\r\n{NAMED}\r\nContent-Type: multipart/mixed; boundary={depth}"
        for depth in range(size // 100)),
    "boundaries": lambda size: a_part(NAMED, "\r\n--xy" * (size // 6)),
    "half boundaries": lambda size: a_part(NAMED, "\r\n-" * (size // 3)),
    "dashes": lambda size: a_part(NAMED, "-" * size),
    "returns": lambda size: a_part(NAMED, "\r" * size),
    "padding": lambda size: f"--x{' ' * size}\r\n",
    "preamble": lambda size: "\r\n" * (size // 2) + "--x\r\n",
    "epilogue": lambda size: "--x--" + "\r\n--x" * (size // 5),
}  # fmt: skip
FORMS: Inputs = {
    "pairs": lambda size: "&".join(f"a{number}=1" for number in range(size // 8)),
    "one name": repeated("a=1&"),
    "escapes": lambda size: "a=" + "%C5%81" * (size // 6),
    "bad escapes": lambda size: "a=" + "%f" * (size // 2),
    "ampersands": repeated("&"),
    "name": repeated("a"),
    "plus": lambda size: "a=" + "+" * size,
}


def in_bytes(inputs: Inputs) -> dict[str, Callable[[int], bytes]]:
    return {
        name: partial(lambda make, size: make(size).encode(), make) for name, make in inputs.items()
    }
