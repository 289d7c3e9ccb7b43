"""The command line: its global options and exit codes."""

from typing import Annotated, Any

import typer
import typer.core
from typer.core import TyperGroup

from ostoja import __version__, where
from ostoja.commands import alerts, chat, consent, deployment, forms, keys, listen, table, tier1
from ostoja.failure import Exit, Failure

EPILOG = (
    "Exit codes: 0 success; 1 a check failed, or the named object does not exist; 2 wrong usage; "
    "3 the gateway or a service behind it does not answer; 4 refused (the key, or a rate limit)."
)
_ANYWHERE = {"--url": 2, "--key": 2, "--operator": 2, "--json": 1}
"""Global options with the number of words each takes; they may also follow the command."""


class _Root(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _global_first(args))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Failure as failure:
            typer.echo(f"ostoja: {failure}", err=True)
            raise typer.Exit(failure.code) from None


def _global_first(args: list[str]) -> list[str]:
    first: list[str] = []
    rest: list[str] = []
    left = list(args)
    while left:
        word = left.pop(0)
        if word == "--":
            rest += [word, *left]
            break
        words = _ANYWHERE.get(word)
        if words:
            first += [word, *left[: words - 1]]
            del left[: words - 1]
        elif word.partition("=")[0] in _ANYWHERE:
            first.append(word)
        else:
            rest.append(word)
    return first + rest


# Typer 0.29 shows Python's types in help, `<str>` and `<list[UUID]>`, beside the metavar.
_TYPES = {
    "str": None, "bool": None, "UUID": None, "list[str]": None, "list[UUID]": None,
    "int range": "number", "FileBinaryRead": "file",
}  # fmt: skip
_display_type = typer.core._TyperParameter.display_type  # noqa: SLF001


def _plainly(parameter: Any, context: Any) -> str | None:
    label = _display_type(parameter, context).strip("<>")
    return _TYPES.get(label, label)


typer.core._TyperParameter.display_type = _plainly  # type: ignore[method-assign,assignment]  # noqa: SLF001


def _print_version(*, asked: bool) -> None:
    if asked:
        typer.echo(f"ostoja {__version__}")
        raise typer.Exit


def main() -> None:
    app(prog_name="ostoja")


def _assist(session: where.Session) -> None:
    try:
        from ostoja import assistant
    except ModuleNotFoundError:
        raise Failure(
            Exit.USAGE,
            "this needs a package: pipx install 'ostoja[mcp]', or '.[mcp]' in a checkout",
        ) from None
    assistant.server(session).run()


app = typer.Typer(
    cls=_Root,
    no_args_is_help=True,
    epilog=EPILOG,
    pretty_exceptions_enable=False,  # a traceback with values would show keys and addresses
    context_settings={"help_option_names": ["-h", "--help"]},
)
alerts.add_to(app)
table.add(app, "Cases", "cases", "heartbeats")
caches = typer.Typer(no_args_is_help=True, help="The gateway's caches.")
table.add(app, "Targets and traffic", "subscriptions", "traffic", cache=caches)
listen.add_to(app)
consent.add_to(app)
mails = typer.Typer(no_args_is_help=True, help="Messages to a lead.")
table.add(app, "People", "stop", followups=mails)
forms.add_to(app)
chat.add_to(app)
table.add(app, "People", "on_call")
keys.add_to(app)
table.add(app, "People", "staff")
deployment.add_to(app)
tier1.add_to(app)
table.add(app, "Deployment", "assistant", do={"mcp": _assist})


@app.callback()
def root(
    context: typer.Context,
    *,
    url: Annotated[
        str | None,
        typer.Option(envvar="OSTOJA_URL", help="The gateway's URL. Default: this checkout's."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            envvar="OSTOJA_KEY",
            help="A key. Default: those of .env. Prefer OSTOJA_KEY: arguments are visible in ps.",
        ),
    ] = None,
    operator: Annotated[
        str | None,
        typer.Option(
            envvar="OSTOJA_OPERATOR",
            help="Who runs the command, for the audit record. Default: your user name.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the API's answer as JSON, a list line by line.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Inspect and operate a running Ostoja.

    These options may also follow the command.
    """
    context.obj = where.session(url=url, key=key, operator=operator, as_json=as_json)
