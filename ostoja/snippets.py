"""Code that sends a form, to paste into a page or a program; made from GET /api/forms/{form}.

snippets.toml has the code; this module escapes each value of a form for its context.
"""

import json
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from html import escape
from pathlib import Path
from string import Template
from typing import Any

Form = dict[str, Any]

_DATA = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
TEXTS: dict[str, dict[str, str]] = _DATA["texts"]


class _Template(Template):
    delimiter = "@"


def _filled(template: str, **values: object) -> str:
    return _Template(template).substitute(values)


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _in_braces(text: str) -> str:
    return f"{{{_json(text)}}}"


def _fields(form: Form, kind: str, text: Callable[[str], str]) -> Iterator[str]:
    """Yield the lines of the fields, the trap, the consents and the notice.

    :param kind: of markup, html or jsx
    :param text: writes a text of the form in it
    """
    markup = _DATA["markup"][kind]
    choose, empty = (TEXTS[name][form["language"]] for name in ("choose", "empty"))
    for field in form["fields"]:
        name, type_ = field["name"], field["type"]
        if type_ == "hidden":
            if markup["hidden"]:
                yield _filled(markup["hidden"], name=name, value="")
            continue
        options = [{"value": "", "label": choose}, *field["options"]] if type_ == "select" else ()
        control = _filled(
            markup[type_ if type_ in markup else "input"],
            name=name,
            kind=markup["kinds"].get(type_, ""),
            most=field["max_length"],
            required=" required" if field["required"] else "",
            options="".join(
                _filled(markup["option"], value=text(each["value"]), text=text(each["label"]))
                for each in options
            ),
        )
        yield _filled(markup["field"], label=text(field["label"]), control=control)
    if form["trap"]:
        yield _filled(markup["trap"], text=text(empty), name=form["trap"])
    for each in form["consents"]:
        text_ = text(each["text"])
        yield _filled(markup["consent"], name=each["purpose"], hash=each["sha256"], text=text_)
    notice = form["notice"]
    yield _filled(markup["notice"], text=text(f"{notice['text']} "), link=escape(notice["url"]))


def _own(form: Form) -> Iterator[str]:
    """Yield the hidden fields in which a plain form says what it is."""
    own = {name: form[name] for name in ("form", "language")} | {
        "form_version": form["version"],
        "notice_version": form["notice"]["version"],
        **({"issued": form["issued"]} if form["issued"] else {}),
    }
    for name, value in own.items():
        yield _filled(_DATA["markup"]["html"]["hidden"], name=name, value=escape(value))


def _example(form: Form) -> dict[str, Any]:
    examples = _DATA["examples"]
    fields = [each for each in form["fields"] if each["type"] not in {"select", "hidden"}]
    return {
        "form": form["form"],
        "form_version": form["version"],
        "language": form["language"],
        "fields": {each["name"]: examples.get(each["type"], "Anna Nowak") for each in fields},
    }


def _code(kind: str, form: Form, url: str) -> str:
    language, example = form["language"], _example(form)
    values = {
        "url": url,
        "action": escape(url),
        **{name: form[name] for name in ("form", "version", "language")},
        "notice": form["notice"]["version"],
        "issued": _json(form["issued"]),
        "trap": _json(form["trap"]),
        "not_sent": TEXTS["not_sent"][language],
        "sent": _json(TEXTS["sent"][language]),
        "button": TEXTS["send"][language],
        "own": "\n".join(_own(form)),
        "html": "\n".join(_fields(form, "html", escape)),
        "jsx": "\n".join(_fields(form, "jsx", _in_braces)),
        "names": ", ".join(f"'{field['name']}'" for field in form["fields"]),
        "body": _json(example, indent=4),
        "line": _json(example).replace("'", "'\\''"),
    }
    values |= {name: _filled(part, **values) for name, part in _DATA["parts"].items()}
    return _filled(_DATA["code"][kind], **values)


AS: dict[str, Callable[[Form, str], str]] = {kind: partial(_code, kind) for kind in _DATA["code"]}
