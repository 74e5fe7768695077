"""Rows, scores, the ideal sampler and the autoencoder's row, under a judge of plain brightness."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from namd.data.intensity import to_unit
from namd.evaluate.scores import load_rows, load_scores
from namd.methods.shared import ideal, reconstruction, reference, scores
from tests.methods import made

CASES = list(made.SPLITS["test"])
FOLLOWED = made.FOLLOWED["test"]
WHOLE = ("evaluate.num_cases=null", "evaluate.lpips=off", "evaluate.fid=off")


@pytest.fixture
def context_of(monkeypatch, tmp_path):
    monkeypatch.setattr(scores, "load_judge", lambda _folder, _device: made.BrightnessJudge())

    def context(**named):
        values = {"split": "test", "scored": "draws-test"}
        return made.context(tmp_path, *WHOLE, values=values, **named)

    return context


def folders(tmp_path, *indices, name="scores"):
    made_folders = {k: tmp_path / f"{name}{k}" for k in indices}
    for folder in made_folders.values():
        folder.mkdir()
    return made_folders


def chances(frame, column="probability"):
    return dict(zip(frame["case_id"], frame[column], strict=True))


def wanted(offset=0.0, absent=()):
    return {
        f"c{case:02d}": np.nan if case in absent else made.probability(case + offset)
        for case in CASES
    }


def same(found, expected):
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=1e-3)


def test_each_draw_is_scored_under_its_own_index(context_of, tmp_path):
    outputs, inputs = folders(tmp_path, 0, 2), {}
    for k, folder in folders(tmp_path, 0, 2, name="draws").items():
        images = [np.full((16, 16), made.unit(case + 3 * k), np.float16) for case in CASES]
        save_file({"images": torch.from_numpy(np.stack(images))}, folder / "images.safetensors")
        pd.DataFrame({"case_id": [f"c{n}" for n in CASES]}).to_parquet(folder / "cases.parquet")
        inputs[f"draws-test[{k}]"] = folder
    steps = list(scores.run(context_of(inputs=inputs, outputs=outputs)))
    for k, step in zip((0, 2), steps, strict=True):
        frame, _ = load_scores(outputs[k])
        same(chances(frame), wanted(3 * k))
        assert set(frame["k"]) == {k}
        assert step.metrics["mean_probability"] == pytest.approx(frame["probability"].mean())


def test_the_autoencoders_row_is_of_followups_that_exist(context_of, tmp_path, monkeypatch):
    monkeypatch.setattr(reconstruction, "load_vae", lambda _folder: (made.FoldingVAE(), 9.0))
    (step,) = reconstruction.run(context_of())
    frame, (sets,) = load_scores(tmp_path / "out")
    same(chances(frame), wanted(0.5, made.ALONE))
    assert frame["psnr"].isna().tolist() == [case in made.ALONE for case in CASES]
    assert frame["psnr"].min() > 90
    assert step.metrics["psnr"] == pytest.approx(frame["psnr"].mean())
    assert sets.fid_judge == pytest.approx(0, abs=1e-6)


def test_reconstructions_are_those_of_the_posteriors_mean_clamped():
    images = np.stack([np.full((16, 16), level, np.float32) for level in (0.5, -1.5)])
    again = reconstruction.reconstructed(made.FoldingVAE(5.0), images, "fp32", "cpu")
    assert again.mean((1, 2)).tolist() == pytest.approx([0.5, -1.0])


def test_the_ideal_sampler_redraws_every_index_of_the_evaluated_cases(
    context_of, tmp_path, monkeypatch
):
    asked = []

    def redraw(cohort, index, seed, k):
        asked.append((len(index), seed, k))
        return np.stack([made.crop(case + k) for case in CASES])

    monkeypatch.setattr(ideal, "redraw", redraw)
    cohort = made.cohort(sim_p=0.5)
    cohort.card = {"simulation": {"settings": {}}}
    outputs = folders(tmp_path, 1, 2)
    list(ideal.run(context_of(outputs=outputs, made=cohort)))
    assert asked == [(5, 0, 1), (5, 0, 2)]
    for k in (1, 2):
        same(chances(load_scores(outputs[k])[0]), wanted(float(k)))


@pytest.fixture
def rows(context_of, tmp_path):
    """The rows of a cohort in which men are malignant in train, and women in test."""
    gender = [1 + (n % 2 if n in CASES else 1 - n % 2) for n in range(18)]
    label = [float(n % 2) for n in range(18)]
    diameter = [np.nan if n == 15 else 5.0 + n for n in range(18)]
    cohort = made.cohort(
        gender=np.array(gender, float),
        label=label,
        age=60.0,
        SCT_LONG_DIA=diameter,
        SCT_PERP_DIA=4.0,
        SCT_EPI_LOC=1.0,
        SCT_MARGINS=1.0,
        sim_p=np.linspace(0.1, 0.9, 18),
    )
    list(reference.run(context_of(made=cohort)))
    return {name: frame for name, (frame, _) in load_rows(tmp_path / "out").items()}


def test_real_images_are_scored_as_what_they_are(rows):
    same(chances(rows["real_baseline"]), wanted())
    same(chances(rows["real_followup"]), wanted(0.5, made.ALONE))
    same(chances(rows["copied_baseline"]), wanted())
    assert rows["real_baseline"][["ssim", "psnr"]].isna().all(axis=None)
    step = made.unit(0.5) - made.unit(0)
    psnr = rows["copied_baseline"].set_index("case_id")["psnr"]
    assert psnr[[f"c{case}" for case in FOLLOWED]].to_numpy() == pytest.approx(
        10 * np.log10(4 / step**2), abs=0.2
    )


def test_a_record_is_read_as_it_was_in_train(rows):
    chance = chances(rows["ehr_logistic_regression"], "score")
    women, men = ([chance[f"c{n}"] for n in CASES if n % 2 == odd] for odd in (1, 0))
    assert max(women) < min(men)


def test_plain_predictors_are_the_diameter_and_p_themselves(rows):
    found = chances(rows["longest_diameter"], "score")
    assert list(found.values()) == [18, 19, 20.0, 21, 22], "the unknown one is the median"
    p = np.linspace(0.1, 0.9, 18)[CASES]
    np.testing.assert_allclose(rows["ideal_predictor"]["score"], p, atol=1e-6)


def test_the_crops_are_those_of_the_cohort():
    cohort = made.cohort()
    followed = to_unit(cohort.followup[FOLLOWED][:, 4:-4, 4:-4])
    assert made.which(followed) == [case + 0.5 for case in FOLLOWED]
