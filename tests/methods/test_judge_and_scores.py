"""Stage bodies of judge, scores, references and reconstruction on a small made-up cohort."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save_file
from scipy.ndimage import gaussian_filter

from namd.config.errors import InputError
from namd.config.seeding import generator
from namd.data.cohort import Cohort
from namd.evaluate.scores import load_rows, load_scores
from namd.evaluate.settings import EvaluateSettings
from namd.methods.shared import ideal, judge, reference, rejudged, scores
from namd.methods.shared.judge_settings import JudgeSettings
from namd.methods.shared.settings import ImageSettings
from namd.models.judge_settings import JudgeArchitecture
from namd.train.world import LocalWorld
from tests.contexts import open_context

SIZE = 32
ARCHITECTURE = JudgeArchitecture(SIZE, 8, (8, 8, 16), 1, 16, 1, 2, 16, dropout=0.1)
JUDGE = JudgeSettings(
    num_steps=60,
    batch_size=16,
    validate_every=20,
    checkpoint_every=10,
    warmup_steps=5,
    architecture=ARCHITECTURE,
)


def image(diameter_mm, random):
    rows, columns = (np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2) * 0.5
    inside = np.hypot(rows, columns) <= diameter_mm / 2
    hu = gaussian_filter(np.where(inside, 0.0, -850.0), 0.7)
    return (hu + 20 * random.normal(size=hu.shape)).astype(np.int16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cohort in which a malignant follow-up is larger, the baseline almost not."""
    random = generator("test-cohort", 0)
    count = 90
    labels = (np.arange(count) % 3 == 0).astype(float)
    first = random.uniform(4, 8, count)
    second = first + np.where(labels == 1, 4.0, 0.0)
    table = pd.DataFrame(
        {
            "case_id": [f"c{i:03d}" for i in range(count)],
            "patient_id": [f"p{i:03d}" for i in range(count)],
            "lesion_id": [f"l{i:03d}" for i in range(count)],
            "source": "made-up",
            "split": np.array(["train", "validation", "test"])[np.arange(count) // 3 % 3],
            "label": labels,
            "months": 12.0,
            "spacing_mm": 0.5,
            "SCT_PRE_ATT": 1.0,
            "SCT_EPI_LOC": 1.0,
            "SCT_MARGINS": 2.0,
            "SCT_LONG_DIA": first,
            "SCT_PERP_DIA": first,
            "age": np.where(np.arange(count) % 7 == 0, np.nan, 60.0 + 5 * labels),
            **dict.fromkeys(("gender", "diagemph", "famfather", "fammother"), 1.0),
            **dict.fromkeys(("fambrother", "famsister", "famchild"), np.nan),
            "followup_SCT_LONG_DIA": second,
            "followup_SCT_PERP_DIA": second,
        }
    )
    cohort = Cohort(
        table,
        np.stack([image(d, random) for d in first]),
        np.stack([image(d, random) for d in second]),
    )
    path = tmp_path_factory.mktemp("cohort") / "made-up"
    cohort.write(path)
    return path


def context(folder, out, *, inputs=None, outputs=None, checkpoints=None, settings=JUDGE):
    out.mkdir(parents=True, exist_ok=True)
    (out / "checkpoints").mkdir(exist_ok=True)
    return open_context(
        settings=SimpleNamespace(
            judge=settings,
            image=ImageSettings(SIZE, "quarter"),
            precision="fp32",
            evaluate=EvaluateSettings(num_draws=2, lpips="off", fid="off"),
        ),
        values={"split": "test", "scored": "draws-test"},
        cohort_path=folder,
        inputs=inputs or {},
        outputs=outputs or {None: out},
        checkpoints=checkpoints or out / "checkpoints",
        world=LocalWorld(),
        warn=lambda _: None,
    )


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("judge")
    steps = list(judge.run(context(folder, out)))
    return out, steps


def test_the_judge_learns_and_keeps_what_validates_best(trained):
    out, steps = trained
    losses = [s.metrics["validation_loss"] for s in steps if "validation_loss" in s.metrics]
    assert losses[0] == pytest.approx(np.log(2), abs=0.05)
    assert min(losses) < losses[0] - 0.02
    assert (out / "model.safetensors").is_file()
    assert json.loads((out / "config.json").read_text())["image_size"] == SIZE


def test_a_resumed_judge_equals_an_uninterrupted_one_bit_for_bit(trained, folder, tmp_path):
    out, _ = trained
    first = judge.run(context(folder, tmp_path / "a", checkpoints=_made(tmp_path / "kept")))
    for step in first:
        if step.index >= 40:
            break
    first.close()
    assert any((tmp_path / "kept").iterdir())
    list(judge.run(context(folder, tmp_path / "b", checkpoints=tmp_path / "kept")))
    whole, resumed = (load_file(f / "model.safetensors") for f in (out, tmp_path / "b"))
    assert all((whole[name] == resumed[name]).all() for name in whole)
    other = JudgeSettings(**{**vars(JUDGE), "seed": 1})
    list(judge.run(context(folder, tmp_path / "c", settings=other)))
    another = load_file(tmp_path / "c" / "model.safetensors")
    assert any((whole[name] != another[name]).any() for name in whole)


def _made(folder):
    folder.mkdir(parents=True)
    return folder


def test_shifting_moves_the_picture_and_repeats_its_border():
    picture = torch.arange(16.0).reshape(1, 1, 4, 4)
    moved = judge.shifted(picture, torch.tensor([[1, 0]]))
    assert moved[0, 0, 0].tolist() == moved[0, 0, 1].tolist() == [0, 1, 2, 3]
    assert (judge.shifted(picture, torch.tensor([[0, 0]])) == picture).all()


def test_a_judge_of_another_size_is_refused(folder, tmp_path):
    wrong = JudgeSettings(**{**vars(JUDGE), "architecture": JudgeArchitecture()})
    with pytest.raises(InputError, match="image_size 64"):
        next(judge.run(context(folder, tmp_path, settings=wrong)))


def test_scores_of_a_draw_are_those_of_its_images(trained, folder, tmp_path):
    out, _ = trained
    cohort = Cohort.read(folder, splits=("test",))
    inputs = {"judge": out}
    for k in range(2):
        drawn = _made(tmp_path / f"draws{k}")
        images = np.clip((cohort.followup.astype(np.float32) + 1000) / 700 - 1 + 0.1 * k, -1, 1)
        save_file({"images": images.astype(np.float16)}, drawn / "images.safetensors")
        cohort.table[["case_id"]].to_parquet(drawn / "cases.parquet")
        inputs[f"draws-test[{k}]"] = drawn
    outputs = {k: _made(tmp_path / f"scores{k}") for k in range(2)}
    steps = list(scores.run(context(folder, tmp_path / "o", inputs=inputs, outputs=outputs)))
    assert [step.finished for step in steps] == [0, 1]
    (near, near_sets), (far, far_sets) = (load_scores(outputs[k]) for k in range(2))
    assert near["case_id"].tolist() == cohort.table["case_id"].tolist()
    assert near["k"].unique().tolist() == [0]
    assert near["psnr"].mean() > far["psnr"].mean() + 20
    assert near_sets[0].fid_judge < far_sets[0].fid_judge
    assert near_sets[0].fid is None
    truth = cohort.table["followup_SCT_LONG_DIA"]
    assert np.abs(near["diameter_mm"] - truth).median() < 1.0
    cohort.table[["case_id"]].iloc[::-1].to_parquet(tmp_path / "draws0" / "cases.parquet")
    with pytest.raises(RuntimeError, match="other cases"):
        list(scores.run(context(folder, tmp_path / "p", inputs=inputs, outputs=outputs)))


def test_rows_without_training(trained, folder, tmp_path):
    out, _ = trained
    list(reference.run(context(folder, tmp_path / "r", inputs={"judge": out})))
    rows = load_rows(tmp_path / "r")
    assert list(rows) == [
        "real_baseline",
        "real_followup",
        "copied_baseline",
        "longest_diameter",
        "ehr_logistic_regression",
    ]
    baseline, copied = rows["real_baseline"][0], rows["copied_baseline"][0]
    assert (baseline["probability"].to_numpy() == copied["probability"].to_numpy()).all()
    assert baseline["psnr"].isna().all()
    assert copied["psnr"].notna().all()
    labels = Cohort.read(folder, splits=("test",)).table["label"].to_numpy()
    regression = rows["ehr_logistic_regression"][0]["score"].to_numpy()
    assert regression[labels == 1].mean() > regression[labels == 0].mean() + 0.1


def put_draws(folder, cohort, count=2):
    """Write draws as their stage does, each brighter than the one before."""
    made = {}
    for k in range(count):
        drawn = _made(folder / f"draws{k}")
        images = np.clip((cohort.followup.astype(np.float32) + 1000) / 700 - 1 + 0.1 * k, -1, 1)
        save_file({"images": images.astype(np.float16)}, drawn / "images.safetensors")
        cohort.table[["case_id"]].to_parquet(drawn / "cases.parquet")
        made[f"draws-test[{k}]"] = drawn
    return made


def rejudge(folder, out, judged_by, draws):
    body = context(folder, out, inputs={"judge-5": judged_by, **draws})
    body.values = {**body.values, "judge": "judge-5"}
    list(rejudged.run(body))
    return pd.read_parquet(out / "scores.parquet")


def test_a_further_judge_scores_what_the_first_one_scored(trained, folder, tmp_path):
    out, _ = trained
    draws = put_draws(tmp_path, Cohort.read(folder, splits=("test",)))
    same = rejudge(folder, tmp_path / "same", out, draws)
    list(reference.run(context(folder, tmp_path / "r", inputs={"judge": out})))
    outputs = {k: _made(tmp_path / f"scores{k}") for k in range(2)}
    inputs = {"judge": out, **draws}
    list(scores.run(context(folder, tmp_path / "o", inputs=inputs, outputs=outputs)))
    by_row = load_rows(tmp_path / "r")
    expected = {name: by_row[name][0] for name in ("real_baseline", "real_followup")}
    expected["drawn"] = pd.concat([load_scores(place)[0] for place in outputs.values()])
    for name, frame in expected.items():
        found = same[same["row"] == name]
        pd.testing.assert_frame_equal(
            found[["case_id", "k", "score"]].reset_index(drop=True),
            frame[["case_id", "k", "score"]].reset_index(drop=True),
            check_dtype=False,
        )
    assert set(same["row"]) == {*expected, "copied_baseline"}
    further = context(folder, tmp_path / "further")
    further.values = {**further.values, "seed": 5}
    list(judge.run(further))
    other = rejudge(folder, tmp_path / "other", tmp_path / "further", draws)
    assert (other["case_id"] == same["case_id"]).all()
    assert (other["score"] - same["score"]).abs().mean() > 1e-3


def test_the_seed_of_a_further_judge_is_its_own(folder, tmp_path):
    """Seed 5 as a further judge is the judge of a configuration with seed 5."""
    short = replace(JUDGE, num_steps=4)
    further = context(folder, tmp_path / "a", settings=short)
    further.values = {**further.values, "seed": 5}
    list(judge.run(further))
    list(judge.run(context(folder, tmp_path / "b", settings=replace(short, seed=5))))
    list(judge.run(context(folder, tmp_path / "c", settings=short)))
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all((a[name] == b[name]).all() for name in a)
    assert any((a[name] != c[name]).any() for name in a)


def test_a_real_cohort_has_no_ideal_sampler(trained, folder, tmp_path):
    outputs = {0: _made(tmp_path / "ideal")}
    list(ideal.run(context(folder, tmp_path / "i", inputs={"judge": trained[0]}, outputs=outputs)))
    frame, sets = load_scores(outputs[0])
    assert len(frame) == 0
    assert sets == []
