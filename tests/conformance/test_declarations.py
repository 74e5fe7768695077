"""A stage's body reads what its stage declares, and is refused everything else by name.

Every stage of every registered method is tried, under the launcher, with a body that reads one
declared thing and with one that reads one thing more. That the stages' own bodies get on with what
they declare is shown where they run: `tests/endtoend`.
"""

import ast
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from namd.config.errors import UndeclaredError
from namd.config.fingerprint import fingerprint
from namd.config.parsing import to_mapping
from namd.data.schema import COLUMN_TYPES, SPLITS, TENSORS
from namd.methods.base import CohortSlice, Stage, StageContext
from namd.methods.registry import METHODS
from namd.methods.shared import judge
from namd.methods.source_hash import code_places, reachable
from namd.pipeline.graph import Node, Plan
from namd.pipeline.launcher import Launcher
from namd.pipeline.reporting import SilentReporter
from namd.pipeline.run_configuration import resolve
from namd.pipeline.store import Store, open_store
from tests import throwaway
from tests.conformance.laws import leaves, planned
from tests.conformance.reaching import look
from tests.data.conftest import make_cohort

REPOSITORY = Path(__file__).resolve().parents[2]
ALL = {**METHODS, **throwaway.METHODS}
READABLE = (*COLUMN_TYPES, *TENSORS, "sim_p", "card.simulation", "card.seed")
ALWAYS = {"case_id", "split"}
KINDS = {
    "split": "splits of its CohortSlice",
    "column": "columns of its CohortSlice",
    "value": "reads",
    "input": "upstream",
}
"""What a body may reach for, and where the way out is to declare it."""


def nodes_of(method: str) -> dict[str, Node]:
    """One node of each stage name of the smallest preset."""
    nodes = planned(resolve("tiny", None, [f"method={method}"], ALL))
    return {node.stage.name: node for node in reversed(nodes)}


NODES = {(method, name): node for method in ALL for name, node in nodes_of(method).items()}
STAGES = list(NODES)
every_stage = pytest.mark.parametrize(("method", "name"), STAGES, ids=map("-".join, STAGES))


def covered(path: str, paths: tuple[str, ...]) -> bool:
    return any(path == one or path.startswith(f"{one}.") for one in paths)


def things(method: str, name: str, kind: str) -> tuple[list[str], list[str]]:
    """What the stage declares of a kind, and what else there is to reach for."""
    node = NODES[method, name]
    stage, read = node.stage, node.stage.cohort
    if kind == "split":
        everything, declared = SPLITS, () if read is None else read.splits
    elif kind == "column":
        everything, declared = READABLE, () if read is None else {*read.columns, *ALWAYS}
    elif kind == "value":
        config = resolve("tiny", None, [f"method={method}"], ALL).config
        everything = [".".join(path) for path in leaves(to_mapping(config))]
        paths = (*stage.reads, *stage.seeds)
        declared = {path for path in everything if covered(path, paths)}
    else:
        everything = [other.label for (m, _), other in NODES.items() if m == method]
        declared = set(node.inputs)
    allowed = [thing for thing in everything if thing in declared]
    return allowed, [thing for thing in everything if thing not in declared]


def first_undeclared(node: Node, path: str) -> str:
    """The section on the way to a value at which the stage's declaration ends."""
    declared = (*node.stage.reads, *node.stage.seeds)
    parts = path.split(".")
    ways = [".".join(parts[: count + 1]) for count in range(len(parts))]
    return next(w for w in ways if not any(covered(one, (w,)) for one in declared))


def reaching(node: Node, kind: str, thing: str) -> Node:
    """The same stage with a body that reads one thing."""
    values = {**node.stage.values, "kind": kind, "name": thing}
    stage = dataclasses.replace(
        node.stage, body="tests.conformance.reaching:run", values=values, drawer=None
    )
    return dataclasses.replace(node, stage=stage, key=fingerprint([node.key, kind, thing]))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "C"
    made = make_cohort()
    made.card |= {"seed": 3}
    made.write(folder)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that holds an artifact, an empty one, for every input of every stage."""
    found = open_store(str(tmp_path_factory.mktemp("store")))
    for stage, key in {place for node in NODES.values() for place in node.inputs.values()}:
        found.publish(found.open_attempt(stage, key))
    return found


def build(node: Node, store: Store, cohort: Path) -> None:
    world = SimpleNamespace(rank=0, size=1, device="cpu")
    Launcher(store, cohort, SilentReporter(), lambda: world).build(Plan((node,)))


def context_of(node: Node, cohort: Path) -> StageContext:
    return StageContext(
        stage=node.stage,
        config=node.settings,
        cohort_path=cohort,
        artifacts=dict.fromkeys(node.inputs, cohort),
        outputs={},
        checkpoints=cohort,
        world=SimpleNamespace(rank=0, size=1, device="cpu"),
        warn=pytest.fail,
    )


TRIED = [
    (method, name, kind)
    for method, name in STAGES
    for kind in KINDS
    if kind != "column" or NODES[method, name].stage.cohort is not None
]


@pytest.mark.parametrize(("method", "name", "kind"), TRIED, ids=map("-".join, TRIED))
def test_a_body_that_reaches_for_more_fails_by_name(method, name, kind, store, cohort):
    node = NODES[method, name]
    declared, more = things(method, name, kind)
    for thing in declared[:1]:
        build(reaching(node, kind, thing), store, cohort)
    rogue = reaching(node, kind, more[-1])
    with pytest.raises(UndeclaredError) as refusal:
        build(rogue, store, cohort)
    said = str(refusal.value)
    asked = first_undeclared(node, more[-1]) if kind == "value" else more[-1]
    assert said.startswith(f"stage {name} reads ")
    assert f" {asked}" in said
    assert f'add "{asked.partition("[")[0]}" to ' in said
    assert KINDS[kind] in said
    assert "\n" not in said
    assert store.find(name, rogue.key) is None


@every_stage
def test_all_that_a_stage_declares_is_open_and_all_else_is_shut(method, name, cohort):
    context = context_of(NODES[method, name], cohort)
    for kind in KINDS:
        declared, more = things(method, name, kind)
        assert more, kind
        if kind == "column" and context.stage.cohort is None:
            continue
        for thing in declared:
            look(context, kind, thing)
        for thing in more:
            with pytest.raises(UndeclaredError, match="which it does not declare"):
                look(context, kind, thing)


def test_a_judge_that_reads_the_test_split_fails(cohort, monkeypatch):
    """It trains as before, and its scores are better than they should be."""
    honest = judge._labelled
    monkeypatch.setattr(judge, "_labelled", lambda context, _split: honest(context, "test"))
    with pytest.raises(UndeclaredError, match=r'^stage judge reads split test .* add "test"'):
        next(judge.run(context_of(NODES["namd", "judge"], cohort)))


def test_a_body_that_asks_before_it_reads_is_refused_as_well(cohort):
    """An answer of no would make an undeclared column look like one that the cohort lacks."""
    node = NODES["namd", "reference-test"]
    columns = tuple(name for name in node.stage.cohort.columns if name != "sim_p")
    stage = dataclasses.replace(node.stage, cohort=CohortSlice(columns, node.stage.cohort.splits))
    context = context_of(dataclasses.replace(node, stage=stage), cohort)
    with pytest.raises(UndeclaredError, match="stage reference-test reads column sim_p"):
        _ = "sim_p" in context.cohort.read("test").table
    with pytest.raises(UndeclaredError, match="configuration value judge"):
        getattr(context.settings, "judge", None)
    with pytest.raises(UndeclaredError, match="artifact vae"):
        context.inputs.get("vae")


def test_the_member_of_another_index_is_not_an_input(cohort):
    context = context_of(NODES["namd", "scores-test"], cohort)
    assert "draws-test[0]" in context.inputs
    with pytest.raises(UndeclaredError, match="the member of its own index"):
        context.inputs["draws-test[7]"]


def test_a_runner_cannot_hand_a_body_more_than_its_stage_declares(cohort):
    stage = Stage("small", 1, "map", "none:none", reads=("judge.seed",), upstream=("vae",))
    context = StageContext(
        stage=stage,
        config=resolve("tiny").config,
        cohort_path=cohort,
        artifacts={"vae": cohort, "judge": cohort},
        outputs={},
        checkpoints=cohort,
        world=SimpleNamespace(rank=0, size=1, device="cpu"),
        warn=pytest.fail,
    )
    assert dict(context.inputs) == {"vae": cohort}
    assert isinstance(context.settings.judge.seed, int)
    for kind, thing in (("value", "judge.noise"), ("input", "judge"), ("split", "train")):
        with pytest.raises(UndeclaredError):
            look(context, kind, thing)


ROUND = {"CASES_FILE", "cohort_fingerprint", "read_cases", "read_columns", "_folder"}
"""Names by which a body would read a cohort that is not its view."""

ROOMS = ("namd.methods.", "namd.train.", "namd.sample.", "namd.evaluate.", "tests.throwaway.")
VIEWS = {"namd.methods.base", "namd.methods.declared", "namd.methods.source_hash"}

UPWARDS = {"parent", "parents"}
"""From an input or output of its own a body would come to every other artifact."""


def ways_round(source: str) -> list[str]:
    """What in a body's source leads past its context to a cohort or to others' artifacts."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            whose = ast.unparse(node.value)
            if node.attr in ROUND or (node.attr == "read" and whose == "Cohort"):
                found.append(ast.unparse(node))
            if node.attr in UPWARDS and whose != "Path(__file__)":
                found.append(ast.unparse(node))
        elif isinstance(node, ast.alias) and node.name in ROUND:
            found.append(node.name)
    return found


def body_modules() -> dict[str, Path]:
    """The modules of methods that a stage's body can reach, without those that make its views."""
    found = {}
    for node in NODES.values():
        for code in code_places(node.stage):
            for name in reachable(code.partition(":")[0]):
                if name.startswith(ROOMS) and name not in VIEWS:
                    place = REPOSITORY.joinpath(*name.split("."))
                    module = place.with_suffix(".py")
                    found[name] = module if module.is_file() else place / "__init__.py"
    return found


def test_no_body_goes_round_its_context():
    modules = body_modules()
    assert {"namd.methods.shared.judge", "tests.throwaway.adversarial.bodies"} <= set(modules)
    for name, path in modules.items():
        assert ways_round(path.read_text(encoding="utf-8")) == [], name


@pytest.mark.parametrize(
    "source",
    [
        "from namd.data.cohort import read_cases",
        "Cohort.read(folder)",
        "context.cohort._folder",
        'context.inputs["vae"].parents[2]',
        "context.out.parent",
    ],
)
def test_a_way_round_would_be_seen(source):
    assert ways_round(source)
    assert not ways_round("Path(__file__).parent; context.cohort.read(split); cohort.select(x)")
