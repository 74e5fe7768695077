"""Which project source a stage's body can reach, as a digest. Reads source, imports nothing.

The digest is of syntax trees without docstrings: comments, formatting and documentation may
change freely, and every Python version gives the same digest for the same code. It is recorded in
manifests and in `tests/stage_versions.json`; it never enters a key, which has `code_version` for
that.
"""

import ast
import hashlib
import importlib.util
import re
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from namd.methods.base import Stage

PACKAGE = "namd"
ROOT = Path(__file__).resolve().parents[2]

_FACADE = PACKAGE
"""Its `__init__` only maps public names to where they live; it changes nothing that is computed."""

_IMPORT_PATH = re.compile(r"\w+(\.\w+)+:\w+")
# `kind` marks u"" strings and `ctx` follows from the place: neither changes what code does.
_WITHOUT_MEANING = frozenset({"ctx", "kind", "type_ignores", "type_comment"})
_ONE_PARSER = threading.Lock()
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def source_hash(stage: Stage) -> str:
    """Return the SHA-256 (hex) of the project source that the stage's body can reach.

    Raises ModuleNotFoundError if a module that the stage names has no source file.
    """
    modules = dict.fromkeys(place.partition(":")[0] for place in code_places(stage))
    hashes = [module_hash(module) for module in modules]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def code_places(stage: Stage) -> tuple[str, ...]:
    """Return the import paths that a stage names: its body, then those among its values.

    A body that takes the class to use from a value (the drawer of a method) reaches that
    class's module as well, although it imports no such name.
    """
    named = (value for _, value in sorted(stage.constants.items()) if isinstance(value, str))
    return (stage.body, *(value for value in named if _IMPORT_PATH.fullmatch(value)))


@cache
def module_hash(module: str, root: Path = ROOT) -> str:
    """Return the SHA-256 (hex) of the project source that a module can reach, itself included.

    Args:
        module: Dotted name; a module outside the project is followed into its own package too.
        root: Folder that holds the package `namd`.

    Raises:
        ModuleNotFoundError: The module has no source file.
    """
    if _source_file(module, root) is None:
        raise ModuleNotFoundError(f"{module}: no source file to hash")
    digest = hashlib.sha256()
    for name in sorted(reachable(module, root)):
        digest.update(f"{name} {_own_hash(name, root)}\n".encode())
    return digest.hexdigest()


@cache
def reachable(module: str, root: Path = ROOT) -> frozenset[str]:
    """Return the modules of the project that a module can import, itself included.

    Imports inside functions count, and so do the packages above an imported module, because
    importing it executes them. What the package `namd` itself offers by name is not followed: no
    module below imports from there.
    """
    packages = {PACKAGE, module.partition(".")[0]}
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or _source_file(name, root) is None:
            continue
        found.add(name)
        parent = name.rpartition(".")[0]
        waiting += [parent] if parent else []
        waiting += [other for other in _imports(name, root) if other.partition(".")[0] in packages]
    return frozenset(found)


def meaning(source: str) -> str:
    """Return a text that is equal for two sources with the same syntax tree, docstrings apart."""
    return "".join(_tokens(_parsed(source)))


def _parsed(source: str) -> ast.Module:
    """Return the syntax tree; by one thread at a time.

    CPython 3.11 counts the depth of trees for all threads together, and fails with a SystemError
    where two parse at once.
    """
    with _ONE_PARSER:
        return ast.parse(source)


@cache
def _own_hash(module: str, root: Path) -> str:
    if module == _FACADE:
        return hashlib.sha256(meaning("").encode()).hexdigest()
    return hashlib.sha256(meaning(_read(module, root)).encode()).hexdigest()


@cache
def _imports(module: str, root: Path) -> frozenset[str]:
    names: set[str] = set()
    if module == _FACADE:
        return frozenset()
    for node in ast.walk(_parsed(_read(module, root))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from a.b import c`: c may be a module or a name; the wrong guess has no file.
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def _read(module: str, root: Path) -> str:
    path = _source_file(module, root)
    if path is None:
        raise ModuleNotFoundError(f"{module}: no source file to hash")
    return path.read_text(encoding="utf-8")


@cache
def _source_file(module: str, root: Path) -> Path | None:
    if module.partition(".")[0] != PACKAGE:
        return _foreign_file(module)
    base = root.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _foreign_file(module: str) -> Path | None:
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if loaded is not None:
        return Path(loaded)
    try:
        spec = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def _tokens(value: object) -> Iterator[str]:
    """Yield the tree in prefix order. Empty fields are left out: their set grows with Python."""
    if isinstance(value, ast.Constant):
        yield f"<{type(value.value).__name__} {value.value!r}>"
    elif isinstance(value, ast.AST):
        yield f"({type(value).__name__}"
        for name in value._fields:
            content = getattr(value, name, None)
            if name == "body" and isinstance(value, _WITH_DOCSTRING):
                content = _without_docstring(content)
            if name in _WITHOUT_MEANING or content is None or content == []:
                continue
            yield f" {name}="
            yield from _tokens(content)
        yield ")"
    elif isinstance(value, list):
        yield "["
        for item in value:
            yield from _tokens(item)
        yield "]"
    else:
        yield repr(value)


def _without_docstring(body: object) -> object:
    if not isinstance(body, list) or not body or not isinstance(body[0], ast.Expr):
        return body
    first = body[0].value
    is_text = isinstance(first, ast.Constant) and isinstance(first.value, str)
    return body[1:] if is_text else body
