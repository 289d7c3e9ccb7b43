"""Compares a company's page with the form that it sends."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

_OWN = frozenset({"form", "form_version", "language", "notice_version", "key", "issued"})


Control = dict[str, str]
"""The attributes of a field, its type, and its label as people read it."""


@dataclass
class FoundForm:
    action: str
    controls: list[Control] = field(default_factory=list)

    def value(self, name: str) -> str:
        return next((each["value"] for each in self.controls if each["name"] == name), "")


class _Reader(HTMLParser):
    """Finds the forms of a page, and the label of each control, as a browser shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[FoundForm] = []
        self._labels: list[tuple[str, list[str], list[Control]]] = []
        self._open: list[tuple[str, list[str], list[Control]]] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(FoundForm(given.get("action", "")))
        elif tag == "label":
            self._open.append((given.get("for", ""), [], []))
        elif tag in {"select", "textarea", "option", "script", "style"}:
            self._silent += 1
        if tag in {"input", "select", "textarea"} and "name" in given and self.forms:
            value = "on" if given.get("type") == "checkbox" else ""
            control = {"type": tag, "value": value, "id": "", **given, "label": ""}
            self.forms[-1].controls.append(control)
            if self._open:
                self._open[-1][2].append(control)

    def handle_endtag(self, tag: str) -> None:
        if tag == "label" and self._open:
            self._labels.append(self._open.pop())
        elif tag in {"select", "textarea", "option", "script", "style"}:
            self._silent = max(0, self._silent - 1)

    def handle_data(self, data: str) -> None:
        if self._open and not self._silent:
            self._open[-1][1].append(data)

    def labelled(self) -> list[FoundForm]:
        for named, texts, inside in self._labels:
            text = " ".join("".join(texts).split())
            for form in self.forms:
                for control in form.controls:
                    if (named and control["id"] == named) or any(control is one for one in inside):
                        control["label"] = text
        return self.forms


def forms_of(page: str) -> list[FoundForm]:
    """Return the forms of a page that send to Ostoja."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return [form for form in reader.labelled() if form.value("form")]


def differences(found: FoundForm, described: dict[str, Any], url: str) -> list[str]:
    """Say where a page's form differs from forms.toml as it is today."""
    faults = []
    if found.action != f"{url}/api/leads":
        faults.append(f"action is {found.action!r}, and not {url}/api/leads")
    version = found.value("form_version")
    if version != described["version"]:
        faults.append(f"form_version is {version!r}; today's is {described['version']!r}")
    if described["issued"] and not found.value("issued"):
        faults.append("issued: is missing, so what it sends is kept apart")
    known = {each["name"]: each for each in described["fields"]}
    consents = {f"consent.{each['purpose']}": each for each in described["consents"]}
    there = {control["name"]: control for control in found.controls}
    for name, control in there.items():
        if name in consents:
            faults += _consent(control, consents[name])
        elif name in known:
            label = known[name]["label"]
            if control["type"] != "hidden" and control["label"] != label:
                faults.append(f"{name}: the label is {control['label']!r}, and not {label!r}")
        elif name not in _OWN and name != described["trap"]:
            faults.append(f"{name}: the form has no such field")
    faults += [
        f"{name}: is required and missing"
        for name, each in known.items()
        if each["required"] and name not in there
    ]
    faults += [f"{name}: is missing, so no one can agree" for name in consents if name not in there]
    return faults


def _consent(control: Control, described: dict[str, Any]) -> list[str]:
    read = control["label"]
    faults = (
        (control["value"] != described["sha256"], "the hash is not that of today's wording"),
        (read != described["text"], f"people read {read!r}, and not the wording"),
        ("checked" in control, "is ticked beforehand (GDPR, Art. 7)"),
        ("required" in control, "is required (GDPR, Art. 7(4))"),
    )
    return [f"{control['name']}: {fault}" for is_so, fault in faults if is_so]
