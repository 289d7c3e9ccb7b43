"""Answers by the buttons of an app's Slack messages; the gateway has checked Slack's signature."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic import AliasPath, BaseModel, ConfigDict, Field

from libs.common.http.application import Problem, parse
from services.alerts.cases.answers import Answers, Refusal, Result
from services.alerts.channels.network import Networks
from services.alerts.channels.slack import SlackTarget, changed, private, replacing, reply
from services.alerts.channels.templates import Templates
from services.alerts.config.texts import refusal
from services.alerts.delivery import case_messages
from services.alerts.rules.case import MENUS, Answer, ButtonValue, State, Verb, Via, offered

_VERBS = {*offered(State.OPEN, None), *offered(State.ANSWERED, None)}


def _at(first: str, *path: str | int, **bounds: Any) -> Any:
    return Field("", validation_alias=AliasPath(first, *path), **bounds)


class Pressed(BaseModel):
    """An interaction as Slack sends it; only `block_actions` are presses of our buttons.

    A press is one action. The chosen item of a menu has the value, not the menu.
    """

    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)
    type: str
    user: str = Field(validation_alias=AliasPath("user", "id"), min_length=1, max_length=100)
    of_team: str = Field(validation_alias=AliasPath("user", "team_id"))
    """Not always the app's: channels may be shared with other companies."""
    name: str = _at("user", "name", max_length=100)
    team: str = _at("team", "id")
    enterprise: str = _at("enterprise", "id")
    channel: str = _at("channel", "id")
    ts: str = _at("message", "ts")
    trigger_id: str = Field("", max_length=200)
    action: str = _at("actions", 0, "action_id")
    value: str = _at("actions", 0, "value")
    item: str = _at("actions", 0, "selected_option", "value")
    response_url: str = ""

    @property
    def receipt(self) -> dict[str, str]:
        """What identifies the pressed message for changes, as a place's receipt does."""
        return {"channel": self.channel, "ts": self.ts}


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
            value = _value(verb, pressed.item or pressed.value)
            answer = self._answer(pressed, verb, value)
            result = await self.answers.answer(value.case_id, answer)
            await asyncio.gather(
                self._say(name, pressed, result), self._replace_copy(name, pressed, value)
            )
        return web.Response()

    def _app(self, pressed: Pressed) -> str:
        """Return the target whose button this is.

        :raises Problem: 401 it is of another team, or the person is
        """
        teams = {pressed.team, pressed.enterprise} - {""}
        names = [name for name, app in self.apps.items() if app.team in teams]
        if not names or pressed.of_team not in teams:
            raise Problem(401, detail="this is for members of the configured team")
        here = (name for name in names if self.apps[name].post_to == pressed.channel)
        return next(here, names[0])

    def _answer(self, pressed: Pressed, verb: Verb, value: ButtonValue) -> Answer:
        user, people = pressed.user, self.answers.rules.people.items()
        known = {each.slack: (key, each.name) for key, each in people if each.slack}
        person, name = known.get(user, (user, pressed.name or user))
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

    async def _say(self, name: str, pressed: Pressed, result: Result | Refusal) -> None:
        if isinstance(result, Refusal):
            text = refusal(result.why, result.owner, result.language)
            await self._reply(name, pressed, private(text))

    async def _replace_copy(self, name: str, pressed: Pressed, value: ButtonValue) -> None:
        """Make a message that no update reaches show the state of its case, as the others will."""
        answers = self.answers
        job = await case_messages.unknown_copy(
            answers.engine, answers.rules, name, value, pressed.receipt
        )
        if job is not None:
            await self._reply(name, pressed, replacing(changed(self.templates, job)))

    async def _reply(self, name: str, pressed: Pressed, message: Mapping[str, object]) -> None:
        await reply(self.apps[name], pressed.response_url, message, self.networks)


def _verb(pressed: Pressed) -> Verb | None:
    """Return our button's answer; None for any other button, such as a template's link."""
    if pressed.type != "block_actions" or not pressed.trigger_id:
        return None
    return next((verb for verb in _VERBS if verb == pressed.action), None)


def _value(verb: Verb, text: str) -> ButtonValue:
    """:raises Problem: 422 no message of ours has a button with this value"""
    try:
        value = ButtonValue.read(text)
    except ValueError:
        raise Problem(422, detail="no case has a button with this value") from None
    menu = MENUS.get(verb, (None,))
    if value.choice not in menu or (value.to is None) == (verb is Verb.HAND_OVER):
        raise Problem(422, detail=f"{verb} has no menu with this item")
    return value
