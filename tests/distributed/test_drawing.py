"""Draws and scores from actor pools: the launcher's artifacts, no pair lost, no worker trusted."""

import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from namd.config.errors import StageError
from namd.distributed.drawing import draw_and_score, stream
from namd.distributed.pairs import Coverage, pair_blocks
from namd.pipeline.graph import Plan, make_plan
from namd.pipeline.store import Store, open_store
from namd.study.spec import StageResources

pytestmark = pytest.mark.ray

IDS = [f"case{number:02d}" for number in range(12)]
ROWS = 4
HALF = 2.0**-11  # between neighbours of float16 below 1
IMAGES = 1e-4 + HALF
SCORES = {"rtol": 2e-3, "atol": 2e-3}


def through(step, resources=None) -> Coverage:
    """Send all pairs of 12 cases and 2 draws through one pool; return what came."""
    coverage = Coverage("draws-test", IDS, [0, 1])
    pairs = pair_blocks(IDS, [0, 1], ROWS)
    for block in stream(pairs, [(step, {})], ROWS, resources or StageResources()):
        coverage.add(block["case_id"], block["k"])
    return coverage


def dropping():
    class Step:
        def __call__(self, batch):
            kept = ~((batch["case_id"] == "case05") & (batch["k"] == 1))
            return {name: values[kept] for name, values in batch.items()}

    return Step


def doubling():
    class Step:
        def __call__(self, batch):
            twice = (batch["case_id"] == "case07") & (batch["k"] == 0)
            return {name: np.repeat(v, 1 + twice, axis=0) for name, v in batch.items()}

    return Step


def test_a_worker_that_drops_a_pair_is_refused(ray_cluster):
    with pytest.raises(StageError, match=r"\(case case05, k=1\) did not return"):
        through(dropping()).require()


def test_a_worker_that_doubles_a_pair_is_refused(ray_cluster):
    with pytest.raises(StageError, match=r"\(case case07, k=0\) returned twice"):
        through(doubling())


def test_what_a_worker_says_is_the_error(ray_cluster):
    class Step:
        def __call__(self, batch):
            raise StageError("draws-test: no such drawer")

    with pytest.raises(StageError, match=r"^draws-test: no such drawer$"):
        through(Step)


@pytest.mark.slow
def test_a_killed_actor_costs_its_block_only(ray_cluster, tmp_path):
    class Step:
        def __call__(self, batch):
            flag = tmp_path / "killed"
            (tmp_path / f"{batch['case_id'][0]}-{batch['k'][0]}-{os.getpid()}").touch()
            if (batch["case_id"] == "case05").any() and not flag.exists():
                flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return batch

    through(Step, StageResources(workers=2)).require()
    assert len(list(tmp_path.glob("case*"))) <= 2 * len(IDS) / ROWS + 2


@dataclass(frozen=True)
class Tiny:
    """A plan of which everything but draws and scores is built, and the launcher's own answer."""

    cohort: Path
    local: Store
    plan: Plan

    def nodes(self, *families: str):
        return [node for node in self.plan.nodes if node.stage.name in families]

    def without(self, folder: Path, *families: str) -> Store:
        """A copy of the store that lacks some families."""
        left_out = shutil.ignore_patterns(*families)
        shutil.copytree(self.local.backend.name, folder, ignore=left_out)
        return open_store(str(folder))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Tiny:
    from namd.cli.main import main
    from namd.pipeline.launcher import Launcher
    from namd.pipeline.reporting import SilentReporter
    from namd.pipeline.run_configuration import resolve

    folder = tmp_path_factory.mktemp("drawing")
    cohort = folder / "cohort"
    build = ["cohort", "build", "phantom", "--cases", "300", "--replicates", "1", "--seed", "2"]
    assert main([*build, "--out", str(cohort)]) == 0
    overrides = ["evaluate.num_draws=3", "pretrain.num_steps=0"]
    configuration = resolve("tiny", None, overrides)
    store = open_store(str(folder / "store"))
    plan = make_plan(configuration.stages(), configuration.config, cohort, targets=["scores-test"])
    Launcher(store, cohort, SilentReporter()).build(plan)
    return Tiny(cohort, store, plan)


def assert_equal_artifacts(tiny: Tiny, store: Store, nodes) -> None:
    from safetensors.numpy import load_file

    for node in nodes:
        ours, theirs = (s.find(node.stage.name, node.key) for s in (store, tiny.local))
        assert sorted(ours.files) == sorted(theirs.files), node.label
        assert [*ours.manifest()] == [*theirs.manifest()]
        for name in ("label", "key", "identity", "source_hash", "notes", "warnings", "world"):
            assert ours.manifest()[name] == theirs.manifest()[name]
        assert ours.manifest()["wall_seconds"] > 0
        assert [set(line) for line in ours.metrics()] == [set(line) for line in theirs.metrics()]
        if "images.safetensors" in {Path(name).name for name in ours.files}:
            a, b = (load_file(x.payload / "images.safetensors")["images"] for x in (ours, theirs))
            np.testing.assert_allclose(a, b, rtol=0, atol=IMAGES)
            a, b = (pd.read_parquet(x.payload / "cases.parquet") for x in (ours, theirs))
            pd.testing.assert_frame_equal(a, b)
        else:
            assert_equal_scores(ours.payload, theirs.payload)


def assert_equal_scores(ours: Path, theirs: Path) -> None:
    from namd.evaluate.scores import load_scores

    (a, mine), (b, other) = load_scores(ours), load_scores(theirs)
    pd.testing.assert_frame_equal(a, b, **SCORES)
    for name in ("fid_judge", "kid_judge"):
        assert getattr(mine[0], name) == pytest.approx(getattr(other[0], name), rel=2e-2, abs=1e-3)


def test_the_artifacts_are_the_launchers(ray_cluster, tiny, tmp_path):
    families = ("draws-test", "scores-test")
    store = tiny.without(tmp_path / "store", *families)
    nodes = tiny.nodes(*families)
    told = []
    draw_and_score(
        nodes,
        store_url=str(tmp_path / "store"),
        cohort=tiny.cohort,
        resources=StageResources(),
        relay=lambda *step: told.append(step),
    )
    assert_equal_artifacts(tiny, store, nodes)
    finished = {(label, key) for label, key, step in told if step.finished is not None}
    assert finished == {(node.label, node.key) for node in nodes}
    for node in nodes:
        assert not store.leases.holder(f"{node.stage.name}/{node.key}")


def test_scores_of_stored_draws_draw_nothing_and_what_is_there_starts_no_pool(
    ray_cluster, tiny, tmp_path
):
    store = tiny.without(tmp_path / "store", "scores-test", "vae", "finetune")
    nodes = tiny.nodes("draws-test", "scores-test")
    told = []
    again = {
        "store_url": str(tmp_path / "store"),
        "cohort": tiny.cohort,
        "resources": StageResources(),
        "relay": lambda *step: told.append(step),
    }
    draw_and_score(nodes, **again)
    assert_equal_artifacts(tiny, store, nodes)
    assert {label.partition("[")[0] for label, _, _ in told} == {"scores-test"}
    told.clear()
    draw_and_score(nodes, **again)
    assert told == []


def test_other_stages_are_refused(tiny):
    with pytest.raises(ValueError, match="vae: neither draws nor scores"):
        draw_and_score(
            tiny.nodes("vae", "draws-test"),
            store_url=tiny.local.backend.name,
            cohort=tiny.cohort,
            resources=StageResources(),
            relay=lambda *_: None,
        )
