"""Preset tiny, every stage for real, from a phantom cohort to the table. One store serves all."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from namd.cli.main import main
from namd.data.cohort import Cohort
from namd.methods.base import StageContext
from namd.methods.namd import latent_diffusion
from namd.methods.namd.latent_diffusion import LatentDiffusionDrawer
from namd.methods.shared.draws import evaluation_cases
from namd.pipeline.run import RunResult, plan_run, run
from namd.pipeline.run_configuration import RunConfiguration, resolve
from namd.pipeline.store import Store, open_store
from namd.sample.draws import draw
from namd.train.world import LocalWorld

pytestmark = pytest.mark.serial

SERIES = str(Path(__file__).resolve().parents[1] / "data")
if SERIES not in sys.path:
    sys.path.insert(0, SERIES)

from dicom_series import IDENTIFIERS, ROOT, write_series  # noqa: E402 - found by the path above

CASES = 400


@dataclasses.dataclass(frozen=True)
class Finished:
    cohort: Path
    store: Store
    configuration: RunConfiguration
    result: RunResult

    def context(self, label: str) -> StageContext:
        nodes = {node.label: node for node in plan_run(self.configuration, self.cohort).nodes}
        node = nodes[label]
        found = {name: self.store.find(*pair) for name, pair in node.inputs.items()}
        return StageContext(
            stage=node.stage,
            config=node.settings,
            cohort_path=self.cohort,
            artifacts={name: item.payload for name, item in found.items() if item is not None},
            outputs={},
            checkpoints=self.cohort,
            world=LocalWorld(),
            warn=lambda _line: None,
        )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("tiny")
    cohort = folder / "cohort"
    build = ["cohort", "build", "phantom", "--cases", str(CASES), "--replicates", "4"]
    assert main([*build, "--seed", "2", "--out", str(cohort)]) == 0
    store = open_store(str(folder / "store"))
    configuration = resolve("tiny")
    return Finished(cohort, store, configuration, run(configuration, cohort, store))


def missing(finished: Finished, *overrides: str) -> list[str]:
    plan = plan_run(resolve("tiny", None, overrides), finished.cohort)
    return [n.label for n in plan.nodes if finished.store.find(n.stage.name, n.key) is None]


def test_the_table_has_every_row(finished: Finished):
    rows = {row["row"]: row for row in finished.result.rows}
    untrained = {
        "real_baseline",
        "real_followup",
        "copied_baseline",
        "longest_diameter",
        "ehr_logistic_regression",
        "ideal_predictor",
        "ideal_sampler",
        "reconstruction",
    }
    assert untrained | {"namd"} == set(rows)
    assert rows["namd"]["num_draws"] == 2
    for row in rows.values():
        assert 0 <= row["auroc"]["low"] <= row["auroc"]["mean"] <= row["auroc"]["high"] <= 1


def test_a_second_run_trains_nothing(finished: Finished):
    again = run(finished.configuration, finished.cohort, finished.store)
    assert all(stage.cached for stage in again.stages)
    assert again.run == finished.result.run
    assert again.rows == finished.result.rows


def test_artifacts_do_not_depend_on_the_threads_of_the_process(finished: Finished, tmp_path: Path):
    before = torch.get_num_threads()
    torch.set_num_threads(1 if before > 1 else 2)
    try:
        other = open_store(str(tmp_path / "store"))
        again = run(finished.configuration, finished.cohort, other)
    finally:
        torch.set_num_threads(before)
    assert again.run == finished.result.run
    differing = [
        label
        for label, artifact in again.artifacts.items()
        if contents(artifact.payload) != contents(finished.result.artifacts[label].payload)
    ]
    assert not differing
    assert again.rows == finished.result.rows


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_other_threads_are_other_artifacts(finished: Finished):
    assert len(missing(finished, "num_threads=2")) == len(finished.result.stages)
    assert missing(finished, "num_threads=1") == []


def test_sigma_f_retrains_from_vae_and_leaves_what_does_not_read_it(finished: Finished):
    names = missing(finished, "vae.alignment.sigma_f=2")
    assert names[0] == "vae"
    assert {"latents", "pretrain", "finetune", "draws-test[0]", "scores-test[1]"} <= set(names)
    assert not {"perceptual", "language", "judge", "reference-test", "ideal-test[0]"} & set(names)


def test_num_sets_retrains_finetune_only(finished: Finished):
    names = missing(finished, "finetune.soft_prompt.num_sets=3")
    assert names[0] == "finetune"
    drawn = {"draws-test", "scores-test", "copies-test"}
    assert {name.split("[")[0] for name in names} == {"finetune", *drawn}


def test_more_draws_add_draws_only(finished: Finished):
    names = missing(finished, "evaluate.num_draws=5")
    assert names == [
        f"{family}-test[{k}]"
        for family in ("ideal", "draws", "scores", "copies")
        for k in (2, 3, 4)
    ]
    assert missing(finished, "evaluate.num_draws=1") == []


def test_finetune_measures_its_draws_in_mm_at_every_validation(finished: Finished):
    nodes = {n.label: n for n in plan_run(finished.configuration, finished.cohort).nodes}
    artifact = finished.store.find("finetune", nodes["finetune"].key)
    log = (artifact.payload.parent / "metrics.jsonl").read_text().splitlines()
    lines = [line for line in map(json.loads, log) if "validation_loss" in line]
    assert [line["index"] for line in lines] == [0, 3, 6]
    assert all(0 < line["drawn_diameter_crps_mm"] < 50 for line in lines)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_draw_does_not_depend_on_the_batch_it_is_drawn_in(finished: Finished, eta: float):
    context = finished.context("draws-test[0]")
    cases = evaluation_cases(context)

    def drawer_of(cases: Cohort, eta: float = eta) -> LatentDiffusionDrawer:
        drawer = LatentDiffusionDrawer(context, cases)
        ddim = dataclasses.replace(drawer.settings.ddim, eta=eta)
        drawer.settings = dataclasses.replace(drawer.settings, ddim=ddim)
        return drawer

    drawer = drawer_of(cases)
    whole = draw(drawer, 1)
    drawer.batch_size = 5
    torch.testing.assert_close(draw(drawer, 1), whole, rtol=0, atol=1e-4)
    some = cases.select(np.arange(3, 7))
    torch.testing.assert_close(draw(drawer_of(some), 1), whole[3:7], rtol=0, atol=1e-4)
    assert not torch.allclose(draw(drawer, 0), whole, rtol=0, atol=1e-3)
    assert not torch.allclose(draw(drawer_of(cases, 1 - eta), 1), whole, rtol=0, atol=1e-3)


def test_the_evaluated_cases_are_whole_patients_of_the_test_split(finished: Finished):
    cases = evaluation_cases(finished.context("draws-test[0]"))
    test = Cohort.read(finished.cohort, splits=("test",))
    patients = set(cases.table["patient_id"])
    assert set(cases.table["split"]) == {"test"}
    assert int(test.table["patient_id"].isin(patients).sum()) == len(cases)


def test_the_command_finds_the_run_and_writes_its_picture(finished: Finished, tmp_path: Path):
    path = tmp_path / "draws.png"
    words = ["run", "--preset", "tiny", "--cohort", str(finished.cohort)]
    store = ["--store", str(finished.store.backend.name), "--picture", str(path)]
    assert main([*words, *store]) == 0
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def predict(finished: Finished, tmp_path: Path, *more: str, run: str | None = None) -> int:
    record = tmp_path / "record.json"
    record.write_text('{"age": 66, "gender": 1, "SCT_LONG_DIA": 11, "diagemph": 1}')
    words = ["predict", "--run", run or finished.result.run, "--dicom", str(tmp_path / "series")]
    words += ["--centre", "-10,-5,-120", "--ehr", str(record), "--draws", "3"]
    store = ["--store", str(finished.store.backend.name), "--out", str(tmp_path / "out")]
    return main([*words, *store, *more])


def test_a_prediction_from_dicom_names_nobody(finished: Finished, tmp_path: Path, capfd):
    write_series(tmp_path / "series")
    assert predict(finished, tmp_path, "--json") == 0
    shown = capfd.readouterr()
    value = json.loads(shown.out.splitlines()[-1])
    fields = {"probabilities", "mean", "std", "low", "high", "report_text", "missing", "warnings"}
    assert fields | {"files"} <= set(value)
    assert len(value["probabilities"]) == 3
    assert value["low"] <= value["mean"] <= value["high"]
    assert value["notice"] == "Research use only: not for clinical decisions."
    assert value["simulated"] is True
    assert value["warnings"][0].startswith("SIMULATED: this run learned from")
    assert "66 years old male" in value["report_text"]
    assert "SCT_MARGINS" in value["missing"]
    files = [Path(file) for file in value["files"]]
    assert {file.suffix for file in files} == {".npz", ".png", ".json"}
    with np.load(next(f for f in files if f.suffix == ".npz"), allow_pickle=False) as crops:
        size = finished.configuration.config.image.size
        assert crops["draws_hu"].shape == (3, size, size)
        assert crops["variance"].max() > 0
        assert float(crops["spacing_mm"]) == 0.5
        plain = b"".join(crops[name].tobytes() for name in crops.files)
    left = shown.out + shown.err + "".join(file.name for file in files)
    secrets = [part for text in IDENTIFIERS.values() for part in (text, *text.split("^"))]
    for secret in (*secrets, ROOT):
        assert secret not in left
        for content in (plain, *(file.read_bytes() for file in files)):
            assert secret.encode() not in content
    assert predict(finished, tmp_path) == 2  # --out holds the first answer


def test_a_prediction_sees_of_its_case_what_the_draws_declare(
    finished: Finished, tmp_path: Path, capfd, monkeypatch
):
    write_series(tmp_path / "series")
    monkeypatch.setattr(latent_diffusion, "reports_of", lambda cohort, _: cohort.table["months"])
    assert predict(finished, tmp_path) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "months" in line]
    assert "stage draws-test reads column months of the cohort" in line
    assert not (tmp_path / "out").exists()


def test_the_same_question_has_the_same_answer_and_a_refusal_names_nobody(
    finished: Finished, tmp_path: Path, capfd
):
    series = write_series(tmp_path / "series")
    answers = []
    for name in ("a", "b"):
        assert predict(finished, tmp_path, "--json", "--out", str(tmp_path / name)) == 0
        answers.append(json.loads(capfd.readouterr().out.splitlines()[-1])["probabilities"])
    assert answers[0] == answers[1]
    assert len(set(answers[0])) > 1
    assert predict(finished, tmp_path, run="0123") == 2
    write_series(series, PhotometricInterpretation="MONOCHROME1")
    assert predict(finished, tmp_path) == 2
    shown = "".join(capfd.readouterr())
    assert "MONOCHROME2" in shown
    assert not any(secret in shown for secret in (*IDENTIFIERS.values(), ROOT))
