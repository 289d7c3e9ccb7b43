"""Tells robots from people, as far as that costs people nothing. A suspicion never drops a lead."""

from datetime import UTC, datetime

from libs.common.forms import Form
from libs.common.signed_links import InvalidToken, Tokens
from services.gateway.forms.submission import Submission

ACTION = "form"


class Robots:
    def __init__(self, keys: str | None) -> None:
        """:param keys: FORM_KEYS; without them no page carries a time"""
        self._tokens = Tokens(keys) if keys else None

    def issued(self, form: str) -> str | None:
        """Return the time at which a form is shown, signed."""
        if self._tokens is None:
            return None
        return self._tokens.sign(form, "", ACTION, datetime.now(UTC))

    def suspicion(self, form: Form, given: Submission) -> str | None:
        """Return why a submission looks like a robot's; None if it does not."""
        if given.trap:
            return "trap"
        if given.issued is None or self._tokens is None:
            return None
        now = datetime.now(UTC)
        try:
            claims = self._tokens.verify(given.issued, ACTION, now)
        except InvalidToken:
            return "issued"
        if claims.subject != given.form:
            return "issued"
        return "fast" if now.timestamp() - claims.issued_at < form.minimum_seconds else None
