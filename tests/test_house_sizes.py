"""How long a function may be, its signature and docstring included."""

import ast
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
MAX_LINES = 60


def too_long(tree: ast.AST) -> dict[str, int]:
    """Return the lines of functions that have too many, by name; decorators do not count."""
    functions = (
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    lines = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    return {name: number for name, number in lines.items() if number > MAX_LINES}


def test_no_function_is_too_long_to_read_at_once():
    for package in ("namd", "analysis"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            assert too_long(tree) == {}, path.relative_to(REPOSITORY)


def test_a_function_of_one_line_more_would_be_seen():
    body = "    x = 1\n"
    assert too_long(ast.parse("def f():\n" + body * (MAX_LINES - 1))) == {}
    assert too_long(ast.parse("def f():\n" + body * MAX_LINES)) == {"f": MAX_LINES + 1}
    assert too_long(ast.parse("async def f():\n" + body * MAX_LINES)) == {"f": MAX_LINES + 1}
    method = "class A:\n    def f(self):\n" + "        x = 1\n" * MAX_LINES
    assert too_long(ast.parse(method)) == {"f": MAX_LINES + 1}
