"""Tools of the Model Context Protocol: the commands of assistant.toml with --json."""

import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, get_args

import typer
from mcp.server.mcpserver import (
    AcceptedElicitation,
    Context,
    Elicit,
    ElicitationResult,
    MCPServer,
    Resolve,
)
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field

from ostoja import __version__
from ostoja.commands import table
from ostoja.failure import Failure
from ostoja.show import Screen, json_line
from ostoja.where import Session

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


class Agreement(BaseModel):
    agreed: bool = Field(title="Yes, do it")


class _Kept(Screen):
    """Keeps what it is to print: standard output belongs to the protocol."""

    def __init__(self) -> None:
        super().__init__(as_json=True)
        self.lines: list[str] = []

    def json(self, answer: Any) -> None:
        self.lines.append(json_line(answer))


def server(session: Session) -> "MCPServer[Any]":
    return MCPServer(
        "ostoja",
        instructions=_TABLE["instructions"],
        version=__version__,
        tools=[_tool(row, session) for row in _TABLE["tools"]],
        log_level="ERROR",  # refusals, which may name people, are logged below it
    )


def _tool(row: Mapping[str, Any], session: Session) -> Tool:
    acts, command, fixed = "asks" in row, row.get("command", ""), row.get("given", {})
    params = table.ROWS.get(command, {}).get("params", {}) | row.get("params", {})
    options = {name: table.param(each) for name, each in params.items() if name not in fixed}
    run = table.RUN.get(command) or partial(table.print_list, row)

    def call(agreement: Any = None, **given: Any) -> str:
        if acts and not (isinstance(agreement, AcceptedElicitation) and agreement.data.agreed):
            raise ToolError("nothing was done: the person did not agree")
        screen = _Kept()
        try:
            run(Session(session.api, screen), **fixed, **_parsed(given, options))
        except (Failure, typer.BadParameter) as failure:  # a check that fails has an answer, too
            raise ToolError("\n".join([str(failure), *screen.lines])) from None
        return "\n".join(screen.lines) or "none"

    def ask(context: Context, **given: Any) -> Elicit[Agreement]:
        if context.client_capabilities is None or context.client_capabilities.elicitation is None:
            said = "this client cannot ask a person first (elicitation), so nothing was done"
            raise ToolError(f"{said}: use `ostoja {command}` in a terminal")
        shown = [f"{name} {json_line(value)}" for name, value in given.items() if value is not None]
        return Elicit(f"{row['asks']} {', '.join(shown)}", Agreement)

    kinds = {name: _described(kind) for name, (kind, _) in options.items()}
    _sign(ask, {"context": Context, **kinds})
    asked = {"agreement": Annotated[ElicitationResult[Agreement], Resolve(ask)]} if acts else {}
    call.__name__ = row["name"]
    _sign(call, kinds | asked, {name: default for name, (_, default) in options.items()})
    hints = ToolAnnotations(read_only_hint=not acts, destructive_hint=acts)
    tool = Tool.from_function(
        call, row["name"], description=row["help"], annotations=hints, structured_output=False
    )
    # A mistyped filter would widen an act.
    model = tool.fn_metadata.arg_model
    model.model_config["extra"] = "forbid"
    model.model_rebuild(force=True)
    tool.parameters = model.model_json_schema(by_alias=True)
    return tool


def _described(kind: Any) -> Any:
    """Return what pydantic reads of what Typer reads."""
    plain, option = get_args(kind)
    return Annotated[plain, Field(description=option.help, ge=option.min, le=option.max)]


def _sign(
    function: Callable[..., Any],
    kinds: dict[str, Any],
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Give it the parameters by which the package finds what to ask a model or a person."""
    function.__annotations__ = kinds
    vars(function)["__signature__"] = Signature(
        [
            Parameter(
                name,
                Parameter.KEYWORD_ONLY,
                annotation=kind,
                default=defaults.get(name, Parameter.empty),
            )
            for name, kind in kinds.items()
        ]
    )


def _parsed(given: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    parsers = {name: get_args(kind)[1].parser for name, (kind, _) in options.items()}
    return {
        name: value if value is None or parsers[name] is None else parsers[name](value)
        for name, value in given.items()
    }
