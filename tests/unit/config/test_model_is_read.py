"""What the language compiles, something reads: every field of the model's structs is read outside ``config`` and ``model``.

A field counts as read where its name is an attribute that is loaded, a keyword of a class pattern, or a constant name given to
``getattr``. Names are all that is compared: a field of a common name may pass without a reader of its own.
"""

import ast
import importlib
import pkgutil
from pathlib import Path

import msgspec
import pytest

import relevo
import relevo.model

SOURCE = Path(relevo.__file__).parent


def structs() -> list[type[msgspec.Struct]]:
    found: dict[str, type[msgspec.Struct]] = {}
    for module in pkgutil.iter_modules(relevo.model.__path__):
        for value in vars(importlib.import_module(f"relevo.model.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, msgspec.Struct) and value is not msgspec.Struct:
                found[value.__name__] = value
    return list(found.values())


def names_read(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            found.add(node.attr)
        elif isinstance(node, ast.MatchClass):
            found.update(node.kwd_attrs)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            found.update(str(argument.value) for argument in node.args[1:2] if isinstance(argument, ast.Constant))
    return found


@pytest.fixture(scope="module")
def read() -> set[str]:
    files = [path for path in SOURCE.rglob("*.py") if path.relative_to(SOURCE).parts[0] not in ("config", "model")]
    return set().union(*(names_read(ast.parse(path.read_text())) for path in files))


FIELDS = [(struct.__name__, name) for struct in structs() for name in struct.__struct_fields__]


def test_the_model_has_structs():
    assert {"VrrpInstance", "VirtualServer", "HttpCheck", "GlobalDefs"} <= {name for name, _ in FIELDS}


@pytest.mark.parametrize(("struct", "field"), FIELDS)
def test_every_field_is_read_somewhere(struct, field, read):
    assert field in read, f"nothing reads {struct}.{field}"


def test_what_counts_as_read():
    tree = ast.parse("a.b\na.c = 1\nmatch a:\n    case X(d=1):\n        pass\ngetattr(a, 'e')\ngetattr(a, name)\nf(g=1)")
    assert names_read(tree) == {"b", "e", "d"}
