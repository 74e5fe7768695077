"""No module imports itself in a circle, not even by imports inside functions."""

import ast
import graphlib
from collections.abc import Iterable, Mapping

import pytest

from tests.test_house import FRONT, PACKAGES, dotted, modules

Graph = dict[str, set[str]]


class Imports(ast.NodeVisitor):
    """The names that a module imports, apart from those that only type checkers read."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.names += [alias.name for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.names += [f"{node.module}.{alias.name}" for alias in node.names]


def imported(source: str, known: Iterable[str]) -> set[str]:
    """Return which of the known modules a source imports."""
    found = Imports()
    found.visit(ast.parse(source))
    longest = ({name, name.rpartition(".")[0]} & set(known) for name in found.names)
    return {max(names, key=len) for names in longest if names}


def graph(sources: Mapping[str, str]) -> Graph:
    return {name: imported(source, sources) - {name} for name, source in sources.items()}


def order(edges: Graph) -> list[str]:
    return list(graphlib.TopologicalSorter(edges).static_order())


def test_no_module_imports_itself_in_a_circle():
    # The public names lead to every room, and no room imports them.
    paths = [path for path in modules(*PACKAGES) if path != FRONT]
    sources = {dotted(path): path.read_text(encoding="utf-8") for path in paths}
    edges = graph(sources)
    assert sum(map(len, edges.values())) > len(sources)
    assert set(order(edges)) == set(sources)


def test_a_circle_inside_functions_would_be_seen():
    sources = {
        "a.one": "def f():\n    from a.two import g",
        "a.two": "from a import one\nif TYPE_CHECKING:\n    import a.three",
        "a.three": "import a.two",
    }
    assert graph(sources) == {"a.one": {"a.two"}, "a.two": {"a.one"}, "a.three": {"a.two"}}
    with pytest.raises(graphlib.CycleError):
        order(graph(sources))
    assert order(graph(sources | {"a.one": ""})) == ["a.one", "a.two", "a.three"]
