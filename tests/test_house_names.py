"""Stages are known by what records say of them: no label is taken apart, no stage is guessed."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from namd.methods.registry import METHODS
from namd.pipeline.run_configuration import resolve

REPOSITORY = Path(__file__).resolve().parents[1]
LABELS = "namd/storage/stage_names.py"
"""The one place where a label is taken apart."""

CUTS = ("partition", "rpartition", "split", "rsplit", "removesuffix", "index", "find", "endswith")
BRACKETS = ("[", "]")
INDEX = re.compile(r"\\\[\(?(\\d|\[0-9\])")
"""A pattern of a number in brackets."""
METHODS_FOLDER = "namd/methods/"


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in ("namd", "analysis"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            name = path.relative_to(REPOSITORY).as_posix()
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def cuts_of_labels(tree: ast.AST) -> list[str]:
    """Return the calls that cut a text at a square bracket, and patterns that look for an index."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
            cut = node.func.attr in CUTS and any(text in BRACKETS for text in texts)
            pattern = ast.unparse(node.func).startswith("re.") and any(
                isinstance(text, str) and INDEX.search(text) for text in texts
            )
            if cut or pattern:
                found.append(ast.unparse(node))
    return found


def test_a_label_is_taken_apart_in_one_place():
    for name, tree in sources():
        assert bool(cuts_of_labels(tree)) == (name == LABELS), name


@pytest.mark.parametrize(
    "line",
    [
        'label.partition("[")[0]',
        "label.split('[')",
        'label.removesuffix("]")',
        'label[: label.index("[")]',
        r're.match(r"(.+)\[(\d+)\]", label)',
    ],
)
def test_a_label_taken_apart_would_be_seen(line):
    assert cuts_of_labels(ast.parse(line))


def test_brackets_of_other_kinds_are_let_through():
    kept = 'json.loads("[" + ",".join(lines) + "]")\nre.sub(r"[\\s_.-]+", "", name)\nx = rows[0]'
    assert cuts_of_labels(ast.parse(kept)) == []


def own_names() -> set[str]:
    """Return the stages and metrics that belong to a method alone, by what it declares.

    A name under which shared bodies make something too, such as `vae`, belongs to no method.
    """
    names, shared = set(), set()
    for method in METHODS.values():
        folder = f"{METHODS_FOLDER.replace('/', '.')}{method.name}."
        stages = resolve("tiny", None, [f"method={method.name}"]).stages()
        own = {stage.family for stage in stages if stage.body.startswith(folder)}
        shared |= {stage.family for stage in stages} - own
        metrics = {
            metric
            for stage, measured in (method.rung_metrics or {}).items()
            if stage in own
            for metric in measured
        }
        names |= own | metrics
    return names - shared


def named(tree: ast.AST, names: set[str]) -> list[str]:
    """Return the texts of a module, docstrings aside, that are one of the names, or begin so."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, documented)]
    bodies += [[node] for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    documents = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in documents
        and any(node.value == name or node.value.startswith(f"{name}.") for name in names)
    ]


ALSO_NAMED = {
    "namd/models/clip_null.py": {"pretrain"},
    "namd/models/weights_settings.py": {"pretrain", "language"},
    "namd/models/language.py": {"language"},
    "namd/models/language_settings.py": {"language"},
    "namd/methods/shared/quick_draws.py": {"drawn_diameter_crps_mm"},
}
"""Files that name a section where weights are looked for, or measure what a stage reports."""


def test_a_method_s_own_stages_and_metrics_are_named_in_its_folder_alone():
    names = own_names()
    assert {"probe", "finetune", "pretrain", "probe_auroc"} <= names
    for name, tree in sources():
        if not any(name.startswith(f"{METHODS_FOLDER}{method}/") for method in METHODS):
            assert named(tree, names - ALSO_NAMED.get(name, set())) == [], name


def test_a_file_that_names_a_method_s_own_section_still_does():
    """An exemption that is no longer needed would let a name back in."""
    for name, allowed in ALSO_NAMED.items():
        tree = ast.parse((REPOSITORY / name).read_text(encoding="utf-8"))
        for word in allowed:
            assert named(tree, {word}), (name, word)


@pytest.mark.parametrize(
    "line", ['Rung("probe", "x")', 'Rung("x", "probe_auroc")', 'read(config, "finetune.report")']
)
def test_a_stage_named_elsewhere_would_be_seen(line):
    assert named(ast.parse(line), own_names())


def test_a_docstring_may_give_an_example():
    assert named(ast.parse('"""finetune"""\ndef f():\n    "probe"\n'), own_names()) == []
