"""Three throw-away methods, each one folder, from a phantom cohort to their tables in one store."""

import pytest
import torch
from safetensors.torch import load_file

from namd.cli.main import main
from namd.pipeline.run import RunResult, run
from namd.pipeline.run_configuration import resolve
from namd.pipeline.store import open_store
from tests import throwaway

pytestmark = pytest.mark.serial


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunResult]:
    folder = tmp_path_factory.mktemp("throwaway")
    cohort = folder / "cohort"
    build = ["cohort", "build", "phantom", "--cases", "160", "--replicates", "2"]
    assert main([*build, "--seed", "2", "--out", str(cohort)]) == 0
    store = open_store(str(folder / "store"))
    return {
        name: run(resolve("tiny", None, [f"method={name}"], throwaway.METHODS), cohort, store)
        for name in throwaway.METHODS
    }


def images(result: RunResult, index: int) -> torch.Tensor:
    artifact = result.artifacts[f"draws-test[{index}]"]
    return load_file(artifact.payload / "images.safetensors")["images"]


def test_every_method_has_its_row_beside_the_same_references(results):
    tables = {name: {row["row"]: row for row in result.rows} for name, result in results.items()}
    for name, rows in tables.items():
        assert rows[name]["title"] == throwaway.METHODS[name].title
        assert 0 <= rows[name]["auroc"]["mean"] <= 1
        assert rows["real_baseline"] == tables["mean_change"]["real_baseline"]


def test_the_judge_and_the_rows_are_built_once(results):
    first, *others = results.values()
    assert not any(stage.cached for stage in first.stages)
    for result in others:
        cached = {stage.stage.label for stage in result.stages if stage.cached}
        shared = {"judge", "reference-test", "ideal-test[0]", "ideal-test[1]", "train_crops-test"}
        assert cached == shared


def test_draws_differ_only_if_the_method_says_so(results):
    borrowed = results["borrowed_change"]
    assert not torch.equal(images(borrowed, 0), images(borrowed, 1))
    for name in ("mean_change", "adversarial"):
        row = {row["row"]: row for row in results[name].rows}[name]
        assert row["num_draws"] == 1
        assert not [label for label in results[name].artifacts if label == "draws-test[1]"]
        assert row["auroc_per_draw"]["std"] in (None, 0)


def test_images_are_whole(results):
    for name, result in results.items():
        assert images(result, 0).shape[1:] == (32, 32)
        assert not torch.isnan(images(result, 0)).any(), name
