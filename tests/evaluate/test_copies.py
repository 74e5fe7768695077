"""Laws of copies: planted ones are found, real follow-ups stand at a hundredth, noise at none."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter

from namd.config.seeding import generator
from namd.data.intensity import to_hu
from namd.evaluate import copies
from namd.evaluate.copies import (
    crop_features,
    features,
    nearest,
    nearest_hundredth,
    nearest_train,
    offsets,
)
from namd.evaluate.settings import EvaluateSettings

SIZE, TRAIN, TEST = 64, 300, 200
SETTINGS = EvaluateSettings(num_bootstrap=400)


def structures(count, *identifiers):
    noise = generator("test-copies", *identifiers).normal(size=(count, SIZE + 16, SIZE + 16))
    smooth = gaussian_filter(noise, (0, 3, 3))
    return smooth / smooth.std()


def textured(count, seed):
    """Crops in [-1, 1], alike in most of their structures, with room to be shifted."""
    crops = 0.85 * structures(1, "common") + 0.53 * structures(count, seed)
    return np.clip(crops / 3, -1, 1).astype(np.float32)


def cut(crops, down=0, right=0):
    return crops[:, 8 + down : 8 + down + SIZE, 8 + right : 8 + right + SIZE]


@pytest.fixture(scope="module")
def train():
    return textured(TRAIN, 0)


@pytest.fixture(scope="module")
def references(train):
    return features(torch.from_numpy(cut(train).copy()))


@pytest.fixture(scope="module")
def real(references):
    return found(cut(textured(TEST, 1)), references)[0]


def found(images, references, patients=None, owners=None):
    mine = np.array([f"test{n}" for n in range(len(images))]) if patients is None else patients
    theirs = np.array([f"train{n}" for n in range(len(references))]) if owners is None else owners
    return nearest(torch.from_numpy(np.ascontiguousarray(images)), references, mine, theirs)


def noisy(images):
    noise = generator("test-copies-noise", 0).normal(size=images.shape)
    return np.clip(images + 0.1 * noise, -1, 1).astype(np.float32)


def share(distances, real):
    threshold = nearest_hundredth(real, np.ones((len(real), 1)))[0]
    return float(np.mean(distances <= threshold))


@pytest.mark.parametrize(("down", "right"), [(0, 0), (1, 0), (-1, 1), (2, 0), (2, -2), (-2, 1)])
def test_a_train_crop_with_noise_or_shifted_by_two_pixels_is_a_copy(
    train, references, real, down, right
):
    places = np.arange(0, TRAIN, 3)
    distances, place = found(noisy(cut(train, down, right)[places]), references)
    assert share(distances, real) > 0.95
    assert (place == places).mean() > 0.95


def test_copies_are_found_in_another_contrast(train, references, real):
    distances, _ = found(0.5 * cut(train)[:50] - 0.3, references)
    assert share(distances, real) == 1
    assert distances.max() < 1e-3


def test_real_followups_stand_at_a_hundredth_and_independent_images_at_about_it(references, real):
    assert share(real, real) == 0.01
    assert share(found(cut(textured(400, 2)), references)[0], real) < 0.05
    white = generator("test-copies-white", 0).normal(size=(200, SIZE, SIZE)).astype(np.float32)
    assert share(found(white, references)[0], real) == 0


def test_a_far_shift_is_no_copy(train, references, real):
    distances, _ = found(cut(train, 6, 6)[:100], references)
    assert share(distances, real) == 0


def test_without_shifted_comparisons_a_shifted_copy_would_be_missed(
    train, references, real, monkeypatch
):
    monkeypatch.setattr(copies, "offsets", lambda _: ((0, 0),))
    distances, _ = found(noisy(cut(train, 2, 2)[:100]), references)
    assert share(distances, real) < 0.5


@pytest.mark.parametrize("blocks", [(256, 2048), (7, 11)])
def test_blocks_change_nothing_and_a_loop_agrees(train, references, monkeypatch, blocks):
    monkeypatch.setattr(copies, "QUERIES", blocks[0])
    monkeypatch.setattr(copies, "REFERENCES", blocks[1])
    images = noisy(cut(textured(20, 5)))
    owners = np.array([f"p{n % 9}" for n in range(TRAIN)])
    patients = np.array([f"p{n % 9}" for n in range(20)])
    distances, place = found(images, references, patients, owners)
    for number, image in enumerate(images):
        products = [
            features(torch.from_numpy(image[None].copy()), each).numpy() @ references.numpy().T
            for each in offsets(SIZE)
        ]
        best = np.max(products, axis=0)[0]
        best[owners == patients[number]] = -9
        assert place[number] == best.argmax()
        assert distances[number] == pytest.approx(1 - best.max(), abs=1e-5)


def test_a_features_product_is_numpys_correlation_of_what_is_left_of_the_cells():
    images = torch.from_numpy(cut(textured(2, 6)).copy())
    window = images[:, 2:-2, 2:-2]
    cells = torch.nn.functional.adaptive_avg_pool2d(window[:, None], 16)[:, 0].numpy()
    left = np.empty_like(cells)
    for row in range(16):
        for column in range(16):
            rows = slice(max(row - 2, 0), row + 3)
            columns = slice(max(column - 2, 0), column + 3)
            around = cells[:, rows, columns].mean(axis=(1, 2))
            left[:, row, column] = cells[:, row, column] - around
    expected = np.corrcoef(left.reshape(2, -1))[0, 1]
    one, other = features(images)
    assert float(one @ other) == pytest.approx(expected, abs=1e-5)
    assert float(one @ one) == pytest.approx(1, abs=1e-5)


def test_crops_of_the_same_patient_do_not_count(train, references):
    images = cut(train)[:4]
    owners = np.array([f"p{n}" for n in range(TRAIN)])
    own, place = found(images, references, owners[:4], owners)
    assert own.min() > 0.05
    assert not (place == np.arange(4)).any()
    other, place = found(images, references, np.array(["q"] * 4), owners)
    assert other.max() < 1e-5
    assert place.tolist() == [0, 1, 2, 3]
    alone, place = found(images, references, np.array(["q"] * 4), np.array(["q"] * TRAIN))
    assert np.isnan(alone).all()
    assert (place == -1).all()


def test_an_even_image_resembles_nothing(references):
    distances, _ = found(np.full((2, SIZE, SIZE), -0.7, np.float32), references)
    assert distances == pytest.approx([1, 1])


def test_small_crops_have_features_and_crops_in_hu_have_those_of_their_images(train):
    assert offsets(16) == ((0, 0),)
    assert (len(set(offsets(32))), len(set(offsets(64)))) == (9, 13)
    assert all(
        min(abs(down - d) + abs(right - r) for d, r in offsets(64)) <= 1
        for down in range(-2, 3)
        for right in range(-2, 3)
    )
    assert features(torch.from_numpy(train[:3, :16, :16].copy())).shape == (3, 256)
    assert features(torch.from_numpy(train[:3, :8, :8].copy())).shape == (3, 64)
    images = cut(train)[:5]
    products = (crop_features(to_hu(images)) * features(torch.from_numpy(images.copy()))).sum(1)
    assert products.min() > 0.999


def made(distances, k=0):
    ids = [f"c{n:03d}" for n in range(len(distances))]
    return pd.DataFrame({"case_id": ids, "k": k, "distance": distances})


CASES = pd.DataFrame(
    {
        "case_id": [f"c{n:03d}" for n in range(TEST)],
        "patient_id": [f"p{n // 2}" for n in range(TEST)],
    }
)


def test_a_rows_share_is_the_mean_over_draws_and_has_an_interval(real):
    random = generator("test-copies-row", 0)
    copied = [np.where(random.random(TEST) < 0.4, 0.0, real) for _ in range(3)]
    row = pd.concat([made(each, k) for k, each in enumerate(copied)])
    near = nearest_train(row.sample(frac=1, random_state=1), made(real), CASES, SETTINGS)
    threshold = np.sort(real)[1]
    assert near.threshold == threshold
    assert near.copies["value"] == pytest.approx(np.mean(np.stack(copied) <= threshold))
    assert near.copies["low"] < near.copies["value"] < near.copies["high"]
    assert near.copies["low"] > 0.3
    assert near.distance["value"] == pytest.approx(np.mean(copied))
    assert near.real_distance["value"] == pytest.approx(real.mean())
    assert near.cases == near.real_cases == TEST
    honest = nearest_train(made(real), made(real), CASES, SETTINGS)
    assert honest.copies["value"] == 0.01
    assert honest.copies["high"] < 0.03


def test_cases_without_a_distance_are_left_out_of_their_side_alone(real):
    absent = np.where(np.arange(TEST) < 50, np.nan, real)
    near = nearest_train(made(real), made(absent), CASES, SETTINGS)
    assert (near.cases, near.real_cases) == (TEST, TEST - 50)
    near = nearest_train(made(absent), made(real), CASES, SETTINGS)
    assert (near.cases, near.real_cases) == (TEST - 50, TEST)
    assert nearest_train(made(real), made(absent * np.nan), CASES, SETTINGS) is None


def test_the_hundredth_is_scipys_and_follows_the_weights():
    distances = generator("test-copies-hundredth", 0).random(250)
    expected = np.quantile(distances, 0.01, method="inverted_cdf")
    assert nearest_hundredth(distances, np.ones((250, 1)))[0] == expected
    weights = np.ones((250, 3))
    weights[np.argsort(distances)[:5], 1] = 0
    weights[:, 2] = 3
    found = nearest_hundredth(distances, weights)
    assert found[1] == np.sort(distances)[7] > found[0]
    assert found[2] == found[0]
