"""Private names of libraries: each list is complete, and each name is where it was."""

import ast
import inspect
from pathlib import Path
from types import ModuleType
from typing import TypeGuard

import aiopg
import aiormq
import pytest
import sqlalchemy as sa
from aiohttp import web
from alembic.script import ScriptDirectory

from libs.common.database import aiopg_private, engine, migrate, statement
from libs.common.http import aiohttp_private, server
from libs.common.messaging import aiormq_private


def defined_in(cls: type) -> set[str]:
    """Return the attributes of the class's own code and of its bases': methods, slots, self.x."""
    names = {name for each in cls.__mro__ for name in vars(each)}
    for each in cls.__mro__[:-1]:
        try:
            tree = ast.parse(Path(inspect.getfile(each)).read_text(encoding="utf-8"))
        except TypeError:  # of C
            continue
        for code in ast.walk(tree):  # none for collections.abc, which names another file
            if isinstance(code, ast.ClassDef) and code.name == each.__name__:
                names |= {node.attr for node in ast.walk(code) if _is_stored(node)}
    return names


def used_in(module: ModuleType) -> set[str]:
    """Return the private attributes that the module uses and does not define itself."""
    own, used = set(), set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        match node:
            case ast.FunctionDef(name="__init__", body=body):
                own |= {each.attr for line in body for each in ast.walk(line) if _is_stored(each)}
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                own.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                own.add(name)
            case ast.Attribute(attr=name) if name.startswith("_") and not name.startswith("__"):
                used.add(name)
    return used - own


def _is_stored(node: ast.AST) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)


Names = dict[type, set[str]]
HTTP: Names = {
    web.RequestHandler: {
        *("_close", "_current_request", "_manager", "_messages", "_reading_paused"),
        *("_request_count", "_task_handler", "_waiter"),
    },
    web.Server: {"_kwargs", "_loop"},
    web.AppRunner: {"_kwargs", "_make_server"},
}
SQLALCHEMY: Names = {
    sa.Connection: {"_handle_dbapi_exception", "_has_events"},
    sa.Engine: {"_has_events"},
}
USED: list[tuple[ModuleType, Names]] = [
    (aiohttp_private, HTTP),
    (server, HTTP),
    (
        aiopg_private,
        {
            aiopg.Connection: {
                *("_close", "_conn", "_connect", "_create_waiter", "_fileno", "_loop", "_notifies"),
                *("_notifies_proxy", "_poll", "_ready", "_timeout", "_waiter", "_weakref"),
                "_writing",
            },
        },
    ),
    (
        aiormq_private,
        {
            aiormq.Connection: {"_closing", aiormq_private.BLOCKED, aiormq_private.UNBLOCKED},
            aiormq.Channel: {
                *("_split_body", "lock", "write_queue", "delivery_tag", "confirmations"),
                *("message_id_delivery_tag", aiormq_private.CLOSE_CHANNEL, "_close_exception"),
            },
        },
    ),
    (statement, SQLALCHEMY),
    (engine, SQLALCHEMY),
    (migrate, {ScriptDirectory: {"_upgrade_revs"}}),
]


@pytest.mark.parametrize(("module", "names"), USED)
def test_each_private_name_that_is_used_is_listed_and_where_it_was(
    module: ModuleType, names: Names
) -> None:
    for cls, listed in names.items():
        assert listed <= defined_in(cls), cls
    assert used_in(module) <= {name for listed in names.values() for name in listed}
