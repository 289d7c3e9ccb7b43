"""docs/rabbitmq-ui.md tells of every queue, and shows every picture that tests/pages makes."""

import re

from deploy.up.environment import ROOT
from tests.support.promql import queues

PAGE = (ROOT / "docs" / "rabbitmq-ui.md").read_text(encoding="utf-8")


def test_the_page_tells_what_each_queue_is_for() -> None:
    told = set(re.findall(r"`([^`]+)`", PAGE))
    targets = {name.split(".")[1] for name in queues() if re.search(r"\.retry\.\d+$", name)}
    for name in queues():
        shape = re.sub(rf"^alerts\.({'|'.join(targets)})\b", "alerts.<target>", name)
        shape = re.sub(r"\.retry\.\d+$", ".retry.<seconds>", shape)
        shape = re.sub(r"^alerts\.epoch\..*", "alerts.epoch.<id>", shape)
        assert {shape, re.sub(r"^.+(?=\.(retry|dead)$)", "<any>", shape)} & told, name


def test_the_page_shows_every_picture_there_is() -> None:
    shown = set(re.findall(r"images/(rabbitmq-[\w-]+\.png)", PAGE))
    assert shown == {path.name for path in (ROOT / "docs" / "images").glob("rabbitmq-*.png")}
    taken = (ROOT / "tests" / "pages" / "test_rabbitmq_ui.py").read_text(encoding="utf-8")
    assert shown == {f"{name}.png" for name in re.findall(r'photograph\(ui, "([\w-]+)"\)', taken)}
