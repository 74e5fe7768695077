"""Draws and scores from actor pools: the launcher's artifacts, no pair lost, no worker trusted."""

import os
import shutil
import signal
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from namd.config.errors import StageError
from namd.distributed import drawing
from namd.distributed.draw_files import DrawnFiles
from namd.distributed.draw_workers import MAX_TRIES, DrawWorker, Work
from namd.distributed.drawing import counted_tries, draw_and_score, stream
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
def test_a_block_that_ends_every_worker_is_given_up_by_name(ray_cluster):
    draws = SimpleNamespace(stage=SimpleNamespace(name="draws-test"))

    class Step:
        def __init__(self, tries):
            self.work = Work({0: draws}, "", Path(), "cpu", tries)

        def __call__(self, batch):
            self.work.begin(batch)
            if "case05" in batch["case_id"] and 1 in batch["k"]:
                os.kill(os.getpid(), signal.SIGKILL)
            return batch

    pairs = pair_blocks(IDS, [0, 1], ROWS)
    named = rf"4 pairs from \(case case04, k=1\) killed {MAX_TRIES} workers"
    with counted_tries() as tries, pytest.raises(StageError, match=named):
        list(stream(pairs, [(Step, {"tries": tries})], ROWS, StageResources()))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pairs(ray_cluster, tmp_path):
    class Step:
        def __call__(self, batch):
            images = np.zeros((len(batch["k"]), 64, 64), np.float16)
            images[:] = batch["k"][:, None, None]
            return {**batch, "image": images}

    ids, draws, rows = [f"case{number:05d}" for number in range(4096)], range(20), 128
    coverage = Coverage("draws-test", ids, draws)
    files = {k: DrawnFiles(tmp_path / str(k), ids) for k in draws}
    for k in draws:
        files[k].folder.mkdir()
    start, most = own_memory_mib(), 0.0
    for block in stream(pair_blocks(ids, draws, rows), [(Step, {})], rows, StageResources()):
        places = coverage.add(block["case_id"], block["k"])
        files[int(block["k"][0])].put(places, block)
        most = max(most, own_memory_mib() - start)
    coverage.require()
    written = sum(file.path.stat().st_size for file in files.values()) / 2**20
    assert written > 600
    assert most < 150


def own_memory_mib() -> float:
    """Memory that is this process's alone: what it maps of the object store is not counted."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


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
    seen = []
    draw_and_score(
        nodes,
        store_url=str(tmp_path / "store"),
        cohort=tiny.cohort,
        resources=StageResources(),
        relay=lambda *step: seen.append(step),
    )
    assert_equal_artifacts(tiny, store, nodes)
    finished = {(stage.label, key) for stage, key, step in seen if step.finished is not None}
    assert finished == {(node.label, node.key) for node in nodes}
    for node in nodes:
        assert not store.leases.holder(f"{node.stage.name}/{node.key}")


def test_scores_of_stored_draws_draw_nothing_and_what_is_there_starts_no_pool(
    ray_cluster, tiny, tmp_path
):
    store = tiny.without(tmp_path / "store", "scores-test", "vae", "finetune")
    nodes = tiny.nodes("draws-test", "scores-test")
    seen = []
    again = {
        "store_url": str(tmp_path / "store"),
        "cohort": tiny.cohort,
        "resources": StageResources(),
        "relay": lambda *step: seen.append(step),
    }
    draw_and_score(nodes, **again)
    assert_equal_artifacts(tiny, store, nodes)
    assert {stage.name for stage, _, _ in seen} == {"scores-test"}
    seen.clear()
    draw_and_score(nodes, **again)
    assert seen == []


@pytest.mark.slow
def test_a_killed_actor_costs_its_block_only(ray_cluster, tiny, tmp_path, monkeypatch):
    class Mortal(DrawWorker):
        def __call__(self, batch):
            (tmp_path / f"begun-{uuid.uuid4().hex}").touch()
            if 1 in batch["k"] and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch)

    monkeypatch.setattr(drawing, "DrawWorker", Mortal)
    store = tiny.without(tmp_path / "store", "draws-test", "scores-test")
    nodes = tiny.nodes("draws-test", "scores-test")
    draw_and_score(
        nodes,
        store_url=str(tmp_path / "store"),
        cohort=tiny.cohort,
        resources=StageResources(),
        relay=lambda *_: None,
    )
    assert (tmp_path / "killed").exists()
    assert_equal_artifacts(tiny, store, nodes)
    draws = 3
    assert len(list(tmp_path.glob("begun-*"))) == draws + 1


def test_other_stages_are_refused(tiny):
    with pytest.raises(ValueError, match="vae: neither draws nor scores"):
        draw_and_score(
            tiny.nodes("vae", "draws-test"),
            store_url=tiny.local.backend.name,
            cohort=tiny.cohort,
            resources=StageResources(),
            relay=lambda *_: None,
        )
