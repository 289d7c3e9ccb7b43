"""Templates: one per (target, event type); without one the payload's own text is sent."""

import json
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from services.alerts.rules.delivery import Claimed

SHIPPED = Path(__file__).parents[1] / "templates"


class Templates:
    """Parsed at start, so that a syntax error stops the start and not the first alert."""

    def __init__(self, folder: Path) -> None:
        # The text is JSON, Slack markup or plain, so each template escapes for itself.
        self._environment = ImmutableSandboxedEnvironment(
            loader=jinja2.FileSystemLoader([folder, SHIPPED]), autoescape=False
        )
        # Jinja's tojson escapes for HTML, and Slack and Monday would show \u003c.
        self._environment.filters["tojson"] = _json
        self._environment.filters["slack"] = escape_slack
        self._templates: dict[tuple[str, str], jinja2.Template] = {}

    def add(self, target: str, event_type: str, file: str) -> None:
        """:raises jinja2.TemplateError: it is missing, or does not parse"""
        self._templates[target, event_type] = self._environment.get_template(file)

    def render(self, target: str, job: Claimed) -> str | None:
        """Return the text, or None when this event type has no template here.

        :raises jinja2.TemplateError: the template cannot show this payload
        """
        template = self._templates.get((target, job.event_type))
        if template is None:
            return None
        return template.render(
            payload=job.payload,
            event_type=job.event_type,
            severity=job.severity,
            alert_id=str(job.alert_id),
            accepted_at=job.accepted_at,
        )

    def text(self, target: str, job: Claimed) -> str:
        return self.render(target, job) or text_of(job)


def text_of(job: Claimed) -> str:
    """Return the text of an alert without a template."""
    text = job.payload.get("text")
    if isinstance(text, str) and text:
        return text
    return f"{job.event_type}\n{json.dumps(job.payload, ensure_ascii=False, indent=1)[:2900]}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def escape_slack(text: object) -> str:
    """Escape Slack's control characters, so that a payload cannot notify a whole channel."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
