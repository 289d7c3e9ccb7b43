"""The pages that the gateway makes itself."""

import json
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from libs.domain.company import name_of, style_of

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)
TEMPLATES.filters["json"] = partial(json.dumps, ensure_ascii=False)
TEMPLATES.globals |= {"style": "", "company": ""}


def dress(company_config: Path) -> None:
    """Give the pages the company's name and accent."""
    TEMPLATES.globals["style"] = Markup(style_of(company_config))  # noqa: S704 - digits
    TEMPLATES.globals["company"] = name_of(company_config)
