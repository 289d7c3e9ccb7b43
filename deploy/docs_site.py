"""The changes that `make docs` makes to a page: fence names for tests, and links out of docs/."""

import re
from pathlib import PurePosixPath
from typing import Any

_FENCE = re.compile(r"^(```\w+) .+$", re.MULTILINE)
_UPWARD = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+)([^)#]+)[^)]*\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Keep only the language of a fence, and replace a link into the repository by its path."""
    depth = len(PurePosixPath(page.file.src_uri).parents)

    def outside(link: re.Match[str]) -> str:
        text, up, path = link.groups()
        return f"{text} (`{path}`)" if up.count("../") >= depth else link[0]

    return _UPWARD.sub(outside, _FENCE.sub(r"\1", markdown))
