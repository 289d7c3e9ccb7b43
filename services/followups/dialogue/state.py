"""The state of a conversation between turns, as it is stored."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from services.followups.reading.consent_answer import Barred
from services.followups.rules.facts import OF_WORKS, Facts, Question

Script = Mapping[str, str]
"""The texts of one language: texts.*.toml."""
ABOUT_WORKS: tuple[Question, ...] = ("wish", "area", "budget", "start")
"""The facts that the form asks for, in their order, before the contact."""
SAID, SAID_LENGTH = 6, 400
"""Messages kept until staff are notified, and the characters kept of each."""


class State(NamedTuple):
    """What a conversation remembers between turns."""

    facts: Facts = Facts()
    language: str | None = None
    """The language of our replies, in chat and by mail."""
    spoken: str | None = None
    """The language the person writes in; there may be no texts for it."""
    asking: Question | None = None
    asked: Mapping[str, int] = MappingProxyType({})
    consent: Literal["given", "refused"] | None = None
    wording: str | None = None
    """The wording that was shown, or that the person agreed to on the website."""
    barred: Barred | None = None
    doubt: str | None = None
    """The suggested correction of an address, which the last reply asked about."""
    passed: Mapping[str, str] = MappingProxyType({})
    """What the page's own fields held. A page repeats them with each message, which must not undo a
    correction."""
    passed_consent: bool = False
    """The page's own box was ticked with the last message: repeated, it undoes no refusal."""
    granted_to: str | None = None
    """The address whose grant was recorded. It is recorded once: a page that repeats its checkbox
    with each message must not undo a later withdrawal."""
    grants: Mapping[str, str] = MappingProxyType({})
    """What else was agreed to here, by purpose and channel, each with the address or number."""
    withdrawn_from: str | None = None
    """The address whose withdrawal was recorded. A refusal also holds for the next address."""
    route: str | None = None
    """The route that replaces the form: a complaint, a wish for a human, …"""
    answered: str | None = None
    """The route that was answered last; next time its `again` is used, if it has one."""
    said: tuple[str, ...] = ()
    """Messages that staff have not been notified of."""
    call_time: str | None = None
    """What the person said about when to call."""
    replies: int = 0
    """How many there were; the last one's ask has this number."""
    by_email: bool = False
    """The contact that is asked for is an e-mail address."""
    offered: str | None = None
    """The route that the last reply asked about, because no rule is sure of it."""
    either: tuple[Mapping[str, Any], ...] = ()
    """The two values that the last reply offered, because no word says which is meant."""
    last_said: str | None = None
    """The last message, so that a double tap or a reload is passed on once."""
    unsure: tuple[str, ...] = ()
    """Facts that only a model found in what was said."""
    last_reply: str | None = None
    """Its hash: no reply comes twice in a row."""
    lead: str | None = None
    """The id of this conversation's lead."""
    over: str | None = None
    """That lead, once it was over and its works were forgotten here. No lead may follow it: the
    person complains."""
    wants_call: bool = False
    no_calls: bool = False
    wants_erasure: bool = False
    wants_quote: bool = False
    """A quote was requested within a complaint, so sales are notified as well."""
    wants_mails: bool = False
    """The person asked for mails, so the consent to them is asked for before anything else."""
    noticed: bool = False
    """The privacy notice was shown."""
    closed: bool = False
    """The closing was shown; it is not repeated."""

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "State":
        known = {name: value for name, value in stored.items() if name in _NAMES}
        lists = {name: tuple(stored.get(name, ())) for name in ("said", "unsure", "either")}
        return cls(**{**known, **lists, "facts": Facts.of(stored.get("facts", {}))})

    @classmethod
    def entered(cls, row: Mapping[str, Any]) -> "State":
        """Return the state of `enter_conversation`; of a request that is over only the person."""
        state = cls.of(row["state"])
        if not row["is_over"]:
            return state
        works = dict.fromkeys(OF_WORKS)
        return state._replace(
            facts=state.facts._replace(**works),
            asked={
                name: times
                for name, times in state.asked.items()
                if name not in OF_WORKS and not name.startswith(("told_", "said_"))
            },
            over=state.lead,
            **{name: getattr(_NEW, name) for name in _OF_REQUEST},
        )

    def stored(self) -> dict[str, Any]:
        """Return what differs from a new conversation."""
        new = _NEW._asdict()
        values = {name: each for name, each in self._asdict().items() if each != new[name]}
        return values | {"facts": self.facts.known(), "said": list(self.said)}

    @property
    def reachable(self) -> bool:
        return self.facts.email is not None or self.facts.phone is not None


_NEW = State()
_NAMES = frozenset(State._fields)
_OF_REQUEST = (
    "route",
    "answered",
    "said",
    "call_time",
    "offered",
    "wants_call",
    "wants_quote",
    "closed",
)
