"""Answers by the buttons of an app's Slack messages; the gateway has checked Slack's signature."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from libs.common.http.application import Problem, parse
from services.alerts.cases.answers import Answers, KeyUsed, Refusal, UnknownCase
from services.alerts.channels.network import Networks
from services.alerts.channels.slack import SlackTarget, changed, private, replacing, reply
from services.alerts.channels.templates import Templates
from services.alerts.config.texts import refusal
from services.alerts.delivery import case_messages
from services.alerts.rules.case import (
    MENUS,
    Answer,
    ButtonValue,
    Refused,
    State,
    Verb,
    Via,
    offered,
)

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


class _Item(_Part):
    value: str = ""


class _Action(_Part):
    action_id: str = ""
    value: str = ""
    selected_option: _Item | None = None
    """The chosen item of a menu, which has no value of its own."""


class _Message(_Part):
    ts: str = ""


class Pressed(_Part):
    """An interaction as Slack sends it; only `block_actions` are presses of our buttons."""

    type: str
    user: _User
    team: _Named | None = None
    enterprise: _Named | None = None
    channel: _Named | None = None
    message: _Message | None = None
    trigger_id: str = Field("", max_length=200)
    actions: list[_Action] = []
    response_url: str = ""

    def receipt(self) -> dict[str, str]:
        """Return what identifies the pressed message for changes, as a place's receipt does."""
        return {
            "channel": self.channel.id if self.channel else "",
            "ts": self.message.ts if self.message else "",
        }


@dataclass(frozen=True, eq=False)
class SlackRoutes:
    answers: Answers
    apps: Mapping[str, SlackTarget]
    templates: Templates
    networks: Networks

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/api/slack/actions", self.press)

    async def press(self, request: web.Request) -> web.Response:
        """Answer after the commit. Slack shows the person a warning unless it gets a 200 in 3 s."""
        pressed = await parse(request, Pressed)
        name = self._app(pressed)
        if (verb := _verb(pressed)) is not None:
            value = _value(verb, pressed.actions[0])
            refused = await self._refused(value.case_id, self._answer(pressed, verb, value))
            await asyncio.gather(
                self._say(name, pressed, refused), self._replace_copy(name, pressed, value)
            )
        return web.Response()

    def _app(self, pressed: Pressed) -> str:
        """Return the target whose button this is.

        :raises Problem: 401 it is of another team, or the person is
        """
        teams = {each.id for each in (pressed.team, pressed.enterprise) if each is not None}
        names = [name for name, app in self.apps.items() if app.team in teams]
        if not names or pressed.user.team_id not in teams:
            raise Problem(401, detail="this is for members of the configured team")
        channel = pressed.receipt()["channel"]
        return next((name for name in names if self.apps[name].post_to == channel), names[0])

    def _answer(self, pressed: Pressed, verb: Verb, value: ButtonValue) -> Answer:
        user, people = pressed.user, self.answers.rules.people.items()
        known = {each.slack: (key, each.name) for key, each in people if each.slack}
        person, name = known.get(user.id, (user.id, user.name or user.id))
        return Answer(
            verb,
            person,
            name,
            Via.SLACK,
            key=f"slack {pressed.trigger_id}",
            choice=value.choice,
            generation=value.generation,
            to=self.answers.rules.people.get(value.to or ""),
            to_key=value.to,
        )

    async def _refused(self, case_id: UUID, answer: Answer) -> Refusal | None:
        try:
            result = await self.answers.answer(case_id, answer)
        except UnknownCase:  # it was purged, long after its end
            return Refusal(Refused.ENDED)
        except KeyUsed:
            return Refusal(Refused.STALE)
        return result if isinstance(result, Refusal) else None

    async def _say(self, name: str, pressed: Pressed, refused: Refusal | None) -> None:
        if refused is not None:
            text = refusal(refused.why, refused.owner, refused.language)
            await self._reply(name, pressed, private(text))

    async def _replace_copy(self, name: str, pressed: Pressed, value: ButtonValue) -> None:
        """Make a message that no update reaches show the state of its case, as the others will."""
        answers = self.answers
        job = await case_messages.unknown_copy(
            answers.engine, answers.rules, name, value, pressed.receipt()
        )
        if job is not None:
            await self._reply(name, pressed, replacing(changed(self.templates, job)))

    async def _reply(self, name: str, pressed: Pressed, message: Mapping[str, object]) -> None:
        await reply(self.apps[name], pressed.response_url, message, self.networks)


def _verb(pressed: Pressed) -> Verb | None:
    """Return our button's answer; None for any other button, such as a template's link."""
    if pressed.type != "block_actions" or not pressed.trigger_id or not pressed.actions:
        return None
    action = pressed.actions[0]  # a press is one action
    return next((verb for verb in _VERBS if verb == action.action_id), None)


def _value(verb: Verb, action: _Action) -> ButtonValue:
    """:raises Problem: 422 no message of ours has a button with this value"""
    item = action.selected_option
    try:
        value = ButtonValue.read(action.value if item is None else item.value)
    except ValueError:
        raise Problem(422, detail="no case has a button with this value") from None
    menu = MENUS.get(verb, (None,))
    if value.choice not in menu or (value.to is None) == (verb is Verb.HAND_OVER):
        raise Problem(422, detail=f"{verb} has no menu with this item")
    return value
