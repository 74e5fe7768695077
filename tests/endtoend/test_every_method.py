"""Every registered method at preset tiny, one cohort and one store: what its draws must keep to."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from namd.cli.main import main
from namd.data.cohort import Cohort
from namd.data.splits import evaluation_subset
from namd.methods.base import Method, StageContext
from namd.methods.registry import METHODS
from namd.pipeline.run import RunResult, plan_run, run
from namd.pipeline.run_configuration import RunConfiguration, resolve
from namd.pipeline.store import Store, open_store
from namd.sample.draws import Drawer, draw
from namd.train.world import LocalWorld

every_method = pytest.mark.parametrize("name", METHODS)
FEW = np.arange(5)


@dataclasses.dataclass
class Bench:
    """The cohort and the store; a method is run when a test first asks for it."""

    cohort: Path
    store: Store
    runs: dict[str, tuple[RunConfiguration, RunResult]] = dataclasses.field(default_factory=dict)

    def run(self, name: str) -> tuple[RunConfiguration, RunResult]:
        if name not in self.runs:
            configuration = resolve("tiny", None, [f"method={name}"])
            self.runs[name] = configuration, run(configuration, self.cohort, self.store)
        return self.runs[name]

    def drawer(self, name: str, cohort: Cohort) -> Drawer:
        """The trained drawer of a method, bound to the cases of a cohort."""
        configuration, _ = self.run(name)
        node = next(
            node for node in plan_run(configuration, self.cohort).nodes if node.stage.role == "draw"
        )
        found = {key: self.store.find(*pair) for key, pair in node.inputs.items()}
        context = StageContext(
            stage=node.stage,
            config=configuration.config,
            cohort_path=self.cohort,
            artifacts={key: item.payload for key, item in found.items() if item is not None},
            outputs={},
            checkpoints=self.cohort,
            world=LocalWorld(),
            warn=lambda _line: None,
        )
        module, _, attribute = node.stage.drawer.path.partition(":")
        made = getattr(__import__(module, fromlist=[attribute]), attribute)
        with torch.no_grad():
            return made(context, cohort)

    def cases(self) -> Cohort:
        configuration, _ = self.run("namd")
        cohort = Cohort.read(self.cohort, splits=("test",))
        subset = configuration.config.evaluate
        return cohort.select(
            evaluation_subset(cohort.table, "test", subset.num_cases, subset.minimum_malignant)
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("every-method")
    cohort = folder / "cohort"
    build = ["cohort", "build", "phantom", "--cases", "160", "--replicates", "2"]
    assert main([*build, "--seed", "2", "--out", str(cohort)]) == 0
    return Bench(cohort, open_store(str(folder / "store")))


def stored(result: RunResult, index: int) -> torch.Tensor:
    payload = result.artifacts[f"draws-test[{index}]"].payload
    return load_file(payload / "images.safetensors")["images"]


@every_method
def test_a_run_ends_with_a_row_beside_shared_references(bench, name):
    others = {row["row"]: row for row in bench.run("namd")[1].rows}
    configuration, result = bench.run(name)
    rows = {row["row"]: row for row in result.rows}
    assert 0 <= rows[name]["auroc"]["mean"] <= 1
    assert rows[name]["num_draws"] == (2 if METHODS[name].draws_differ(configuration.config) else 1)
    for row in ("real_baseline", "real_followup", "copied_baseline", "ideal_sampler"):
        assert rows[row] == others[row]
    if name != "namd":
        cached = {stage.stage.label for stage in result.stages if stage.cached}
        assert {"judge", "reference-test", "ideal-test[0]", "ideal-test[1]"} <= cached


@every_method
def test_draws_are_images_and_are_stored_as_drawn(bench, name):
    drawer = bench.drawer(name, bench.cases())
    images = draw(drawer, 0)
    assert images.shape == (len(drawer), 1, 32, 32)
    assert torch.isfinite(images).all()
    assert images.abs().max() <= 1
    _, result = bench.run(name)
    again = draw(bench.drawer(name, bench.cases()), 0)
    assert torch.equal(images, again)
    assert stored(result, 0).shape[0] == len(images)


@every_method
def test_a_draw_depends_on_its_case_and_index_alone(bench, name):
    """Neither on the batch, nor on the other cases, nor on their order."""
    cohort = bench.cases()
    all_of_them = draw(bench.drawer(name, cohort), 1)
    order = np.array([4, 0, 3])
    few = bench.drawer(name, cohort.select(order))
    assert torch.allclose(draw(few, 1), all_of_them[order], atol=2e-4)
    few.batch_size = 1
    assert torch.allclose(draw(few, 1), all_of_them[order], atol=2e-4)
    # Twin: another case's draw is another image.
    assert not torch.allclose(draw(few, 1), all_of_them[order[::-1].copy()], atol=2e-3)


@every_method
def test_another_index_is_another_draw_exactly_if_the_method_is_stochastic(bench, name):
    drawer = bench.drawer(name, bench.cases())
    same = torch.equal(draw(drawer, 0, FEW), draw(drawer, 1, FEW))
    configuration, _ = bench.run(name)
    assert same is not METHODS[name].draws_differ(configuration.config)


@every_method
def test_the_baseline_is_used(bench, name):
    cohort = bench.cases()
    before = draw(bench.drawer(name, cohort), 0, FEW)
    cohort.baseline = np.roll(np.asarray(cohort.baseline), 1, axis=0)
    assert not torch.allclose(draw(bench.drawer(name, cohort), 0, FEW), before, atol=1e-4)


@every_method
def test_nothing_that_only_the_followup_knows_is_used(bench, name):
    cohort = bench.cases()
    before = draw(bench.drawer(name, cohort), 0, FEW)
    cohort.followup = np.roll(np.asarray(cohort.followup), 1, axis=0)
    cohort.table["label"] = 1 - cohort.table["label"]
    for column in ("followup_SCT_LONG_DIA", "followup_SCT_PERP_DIA"):
        cohort.table[column] = 30.0
    assert torch.equal(draw(bench.drawer(name, cohort), 0, FEW), before)


def test_a_method_that_reads_its_batch_is_found(bench, monkeypatch):
    """The laws above can fail: a drawer that subtracts its batch's mean breaks one of them."""
    drawer_class = type(bench.drawer("regression", bench.cases()))
    whole = drawer_class.draw

    def leaning(self, cases, index):
        images = whole(self, cases, index)
        return images - images.mean()

    monkeypatch.setattr(drawer_class, "draw", leaning)
    with pytest.raises(AssertionError):
        test_a_draw_depends_on_its_case_and_index_alone(bench, "regression")


def test_the_registry_is_what_is_tried():
    assert all(isinstance(method, Method) for method in METHODS.values())
