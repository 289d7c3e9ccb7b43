"""Private names of libraries: each list is complete, and each name is where it was."""

import ast
import inspect
import tomllib
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import TypeGuard

import pytest

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


MODULES = (aiohttp_private, aiopg_private, aiormq_private, engine, migrate, server, statement)
CLASSES: dict[str, list[str]] = tomllib.loads(
    Path(__file__).with_name("private_names.toml").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", CLASSES)
def test_each_listed_name_is_where_it_was(name: str) -> None:
    assert {*CLASSES[name]} <= defined_in(resolve_name(name))


@pytest.mark.parametrize("module", MODULES)
def test_each_private_name_that_is_used_is_listed(module: ModuleType) -> None:
    assert used_in(module) <= {name for listed in CLASSES.values() for name in listed}
