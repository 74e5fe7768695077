"""What a score frame holds of each image, under a judge of plain brightness."""

import numpy as np
import pytest
import torch

from namd.evaluate.diameter import longest_diameter
from namd.evaluate.metrics import frechet_distance, kernel_distance, ssim_and_psnr
from namd.evaluate.scores import ImageFeatures, Scorer, load_rows, save_rows
from tests.methods.made import BrightnessJudge

LEVELS = np.array([-0.8, -0.2, 0.0, 0.3, 0.7])
HAS = np.array([True, False, True, True, True])
SPACING = np.array([0.5, 0.6, 0.7, 0.8, 0.9])
SIZE = 48


def disc(level, radius=9):
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    return np.where(np.hypot(rows, columns) < radius, level, -0.95).astype(np.float32)


FOLLOWUP = np.stack([disc(level) for level in LEVELS])
DRAWN = np.stack([disc(level + 0.1, 7) for level in LEVELS])


def scorer():
    return Scorer(BrightnessJudge(), [f"c{n}" for n in range(5)], FOLLOWUP, HAS, SPACING)


def test_each_image_is_scored_as_its_own_case_in_any_order():
    cases = np.array([3, 0, 1])
    frame, features = scorer().measure(DRAWN[cases], cases, 6)
    means = DRAWN[cases].mean((1, 2))
    assert frame["case_id"].tolist() == ["c3", "c0", "c1"]
    assert frame["k"].tolist() == [6, 6, 6]
    np.testing.assert_allclose(frame["probability"], 1 / (1 + np.exp(-means)), rtol=1e-5)
    assert frame["score"].equals(frame["probability"])
    np.testing.assert_allclose(features.judge[:, 0], means, rtol=1e-5)
    wanted = [longest_diameter(DRAWN[n][None], SPACING[n])[0] for n in cases]
    np.testing.assert_allclose(frame["diameter_mm"], wanted)
    error = ((DRAWN - FOLLOWUP) ** 2).mean((1, 2))[cases]
    psnr = np.where(HAS[cases], 10 * np.log10(4 / error), np.nan)
    np.testing.assert_allclose(frame["psnr"], psnr, rtol=1e-4)
    assert (frame["ssim"].dropna() <= 1).all()
    assert frame["ssim"].notna().tolist() == HAS[cases].tolist()


def test_real_followups_are_not_compared_with_themselves_and_absent_ones_not_scored():
    frame, sets = scorer().score(FOLLOWUP, is_followup=True)
    assert frame["probability"].notna().tolist() == HAS.tolist()
    assert frame[["ssim", "psnr"]].isna().all(axis=None)
    assert sets.fid_judge is None


def test_set_metrics_compare_cases_that_have_a_followup():
    _, sets = scorer().score(DRAWN, 2)
    ours, real = (images[HAS].mean((1, 2))[:, None] for images in (DRAWN, FOLLOWUP))
    gap = (ours.mean() - real.mean()) ** 2
    spread = (ours.std(ddof=1) - real.std(ddof=1)) ** 2
    assert sets.k == 2
    assert sets.fid_judge == pytest.approx(gap + spread, rel=1e-3)
    assert sets.fid is None
    _, same = scorer().score(FOLLOWUP)
    assert same.fid_judge == pytest.approx(0, abs=1e-9)


def test_distances_of_features_are_those_of_the_formulas():
    random = np.random.default_rng(0)
    ours, theirs = random.normal(size=(40, 3)), random.normal(0.5, 2, size=(40, 3))
    kernel = [[(a @ b / 3 + 1) ** 3 for b in theirs] for a in ours]
    own = [
        np.array([[(a @ b / 3 + 1) ** 3 for b in each] for a in each]) for each in (ours, theirs)
    ]
    within = sum((k.sum() - np.trace(k)) / (40 * 39) for k in own)
    features = [torch.from_numpy(each) for each in (ours, theirs)]
    assert kernel_distance(*features) == pytest.approx(within - 2 * np.mean(kernel), rel=1e-6)
    assert frechet_distance(*features) > 0.5
    assert frechet_distance(features[0], features[0]) == pytest.approx(0, abs=1e-6)


def test_an_image_that_equals_its_target_has_100_db_and_similarity_1():
    images = torch.from_numpy(FOLLOWUP[:2])[:, None]
    ssim, psnr = ssim_and_psnr(images, images)
    np.testing.assert_allclose(ssim, 1, atol=1e-5)
    np.testing.assert_allclose(psnr, 100, atol=1e-3)
    other = ssim_and_psnr(images, images + 0.2)[1]
    np.testing.assert_allclose(other, 20, atol=1e-3)


def test_features_are_selected_by_place_or_by_flag():
    features = ImageFeatures(torch.arange(5.0)[:, None], torch.arange(5.0)[:, None].expand(5, 2048))
    assert features.select(np.array([4, 1])).judge[:, 0].tolist() == [4, 1]
    assert features.select(HAS).judge[:, 0].tolist() == [0, 2, 3, 4]
    assert features.select(HAS).inception[:, 0].tolist() == [0, 2, 3, 4]


def test_rows_come_back_as_they_were_saved(tmp_path):
    one, one_sets = scorer().score(DRAWN)
    two, _ = scorer().score(FOLLOWUP, is_followup=True)
    save_rows(tmp_path, {"b": (one, [one_sets]), "a": (two, [])})
    found = load_rows(tmp_path)
    assert list(found) == ["b", "a"]
    assert found["b"][1] == [one_sets]
    np.testing.assert_allclose(found["a"][0]["probability"], two["probability"])
