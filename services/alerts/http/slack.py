"""Answers by the buttons of an app's Slack messages; the gateway has checked Slack's signature."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from libs.common.http.application import Problem, parse
from services.alerts.case import LATER, Answer, Refused, State, Verb, Via, offered
from services.alerts.case_text import refusal
from services.alerts.cases.answers import Answers, KeyUsed, Refusal, UnknownCase
from services.alerts.channels.network import Networks
from services.alerts.channels.slack_reply import reply
from services.alerts.config import SlackTarget

_VERBS = {*offered(State.OPEN, None), *offered(State.ANSWERED, None)}


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)


class _Named(_Part):
    id: str


class _User(_Part):
    id: str = Field(min_length=1, max_length=100)
    team_id: str
    """Not always the app's: channels may be shared with other companies."""
    name: str = Field("", max_length=100)


class _Action(_Part):
    action_id: str = ""
    value: str = ""


class Pressed(_Part):
    """An interaction as Slack sends it; only `block_actions` are presses of our buttons."""

    type: str
    user: _User
    team: _Named | None = None
    enterprise: _Named | None = None
    trigger_id: str = Field("", max_length=200)
    actions: list[_Action] = []
    response_url: str = ""


@dataclass(frozen=True, eq=False)
class SlackRoutes:
    answers: Answers
    targets: Sequence[SlackTarget]
    private: Networks

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/api/slack/actions", self.press)

    async def press(self, request: web.Request) -> web.Response:
        """Answer after the commit. Slack shows the person a warning unless it gets a 200 in 3 s."""
        pressed = await parse(request, Pressed)
        target = self._target(pressed)
        if (found := self._answer(pressed)) is not None:
            refused = await self._refused(*found)
            if refused is not None:
                text = refusal(refused.why, refused.owner, refused.language)
                await reply(target, pressed.response_url, text, self.private)
        return web.Response()

    def _target(self, pressed: Pressed) -> SlackTarget:
        """Return the app whose button this is.

        :raises Problem: 401 it is of another team, or the person is
        """
        teams = {each.id for each in (pressed.team, pressed.enterprise) if each is not None}
        for target in self.targets:
            if target.team in teams and pressed.user.team_id in teams:
                return target
        raise Problem(401, detail="this is for members of the configured team")

    def _answer(self, pressed: Pressed) -> tuple[UUID, Answer] | None:
        """Return the case and the answer; None for what is no button of ours."""
        if pressed.type != "block_actions" or not pressed.trigger_id or not pressed.actions:
            return None
        action, user = pressed.actions[0], pressed.user  # a press is one action
        case_id, _, generation = action.value.partition(" ")
        try:
            verb, id_, shown = Verb(action.action_id), UUID(case_id), int(generation[:9])
        except ValueError:
            return None
        if verb not in _VERBS:
            return None
        people = self.answers.rules.people.items()
        known = {each.slack: (key, each.name) for key, each in people if each.slack}
        person, name = known.get(user.id, (user.id, user.name or user.id))
        answer = Answer(
            verb,
            person,
            name,
            Via.SLACK,
            key=f"slack {pressed.trigger_id}",
            until=datetime.now(UTC) + LATER if verb is Verb.LATER else None,
            generation=shown,
        )
        return id_, answer

    async def _refused(self, case_id: UUID, answer: Answer) -> Refusal | None:
        try:
            result = await self.answers.answer(case_id, answer)
        except UnknownCase:  # it was purged, long after its end
            return Refusal(Refused.ENDED)
        except KeyUsed:
            return Refusal(Refused.STALE)
        return result if isinstance(result, Refusal) else None
