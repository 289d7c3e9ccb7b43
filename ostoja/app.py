"""The command line: its global options, and what an exit code means."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from deploy.local.servers import ServerError
from ostoja import where
from ostoja.commands import alerts, consent, doctor, followups, limits, targets
from ostoja.failure import Exit, Failure

EPILOG = (
    "Exit codes: 0 all is well; 1 the answer is no (a check fails, or what was named is not "
    "there); 2 wrong usage; 3 the gateway or a part behind it does not answer; 4 refused (the key, "
    "or a rate limit)."
)
_ANYWHERE = {"--url": 2, "--key": 2, "--operator": 2, "--json": 1}
"""Global options, with how many words each is: allowed behind the command as well."""


class _Root(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _global_first(args))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (Failure, ServerError) as failure:
            typer.echo(f"ostoja: {failure}", err=True)
            code = (
                failure.code if isinstance(failure, Failure) else Exit.USAGE
            )  # a port that is none
            raise typer.Exit(code) from None


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


app = typer.Typer(
    cls=_Root,
    no_args_is_help=True,
    epilog=EPILOG,
    pretty_exceptions_enable=False,  # a traceback with values would show keys and addresses
    context_settings={"help_option_names": ["-h", "--help"]},
)
alerts.add_to(app)
targets.add_to(app)
limits.add_to(app)
consent.add_to(app)
followups.add_to(app)
doctor.add_to(app)


@app.callback()
def root(
    context: typer.Context,
    *,
    url: Annotated[
        str | None,
        typer.Option(envvar="OSTOJA_URL", help="The gateway. Default: the one of this checkout."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            envvar="OSTOJA_KEY",
            help="The admin key. Default: .env's. In the environment nobody sees it, here ps does.",
        ),
    ] = None,
    operator: Annotated[
        str | None,
        typer.Option(envvar="OSTOJA_OPERATOR", help="Who does it, for the record. Default: you."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what the API answers; a list line by line.")
    ] = False,
) -> None:
    """See and steer a running Ostoja.

    The options here may stand behind the command as well.
    """
    context.obj = where.session(url=url, key=key, operator=operator, as_json=as_json)
