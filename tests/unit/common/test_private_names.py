"""Private names of libraries: each list is complete, and each name is where it was."""

import ast
import inspect
from pathlib import Path
from types import ModuleType
from typing import TypeGuard

import pytest

from libs.common.database import aiopg_private, engine, statement
from libs.common.http import aiohttp_private, fast_response, server
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


@pytest.mark.parametrize(
    "module",
    [
        aiohttp_private,
        fast_response,
        aiopg_private,
        aiormq_private,
        statement,
        engine,
    ],
)
def test_each_private_name_is_where_it_was(module: ModuleType) -> None:
    for cls, names in module.NAMES.items():
        assert names <= defined_in(cls), cls


@pytest.mark.parametrize(
    ("module", "using"),
    [
        (aiohttp_private, aiohttp_private),
        (aiohttp_private, server),
        (fast_response, fast_response),
        (aiopg_private, aiopg_private),
        (aiormq_private, aiormq_private),
        (statement, statement),
        (engine, engine),
    ],
)
def test_each_private_name_that_is_used_is_listed(module: ModuleType, using: ModuleType) -> None:
    listed = {name for names in module.NAMES.values() for name in names}
    assert used_in(using) <= listed
