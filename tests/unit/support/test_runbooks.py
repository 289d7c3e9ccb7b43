from pathlib import Path

import pytest

from tests.support.runbooks import answers, sections

PAGE = """\
# Title

```sh run
A=1
```

## First

```sh
not this
```

```sh run
echo one
```

```text
one
```

## Second

```sh run make
echo two
```

```sh run compose
echo 2
```

Words between: no answer.

```text
three
```
"""


def test_a_page_s_commands_are_found_under_their_headings_with_what_they_print(
    tmp_path: Path,
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    found = {
        name: [(block.line, block.way, block.commands, block.expected) for block in blocks]
        for name, blocks in sections(page).items()
    }
    assert found == {
        "": [(4, None, "A=1\n", None)],
        "First": [(14, None, "echo one\n", "one\n")],
        "Second": [(24, "make", "echo two\n", None), (28, "compose", "echo 2\n", None)],
    }


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("one\n", "one", True),
        ('{"ok": true, "rows": 3}', '{"ok": true,\n "rows": …}', True),
        ("one two", "one", False),
        ("one two three", "one … three", True),
        ("one three", "one … three", True),
        ("axb", "a.b", False),
    ],
)
def test_an_answer_is_compared_word_by_word(printed: str, expected: str, *, same: bool) -> None:
    assert answers(printed, expected) is same
