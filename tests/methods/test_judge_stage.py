"""Stage `judge`: what it learns from, what stops it, and how crops are augmented."""

import numpy as np
import pytest
import torch

from namd.data.intensity import to_unit
from namd.methods.shared import judge as stage
from namd.methods.shared.crop_set import CropBatch
from namd.methods.shared.judge import JudgeObjective
from tests.methods import made

PLAIN = (
    "judge.shift=0",
    "judge.noise=0",
    "judge.mirror=false",
    "judge.batch_size=6",
    "image.rotations=none",
)


def labelled(split):
    cases = [*made.SPLITS[split], *(case + 0.5 for case in made.FOLLOWED[split])]
    return [case for case in cases if int(case) not in made.UNLABELLED]


@pytest.fixture
def trained(monkeypatch, tmp_path):
    def train(*overrides):
        saved = []
        monkeypatch.setattr(stage, "Judge", made.BrightnessJudge)
        monkeypatch.setattr(stage, "save_judge", lambda judge, _folder: saved.append(judge))
        noted = made.noted_fit(monkeypatch, stage)
        context = made.context(tmp_path, *PLAIN, *overrides)
        list(stage.run(context))
        (noted["judge"],) = saved
        return noted, context

    return train


def test_it_learns_from_labelled_train_crops_of_both_time_points(trained):
    noted, _ = trained("judge.num_epochs=5")
    cases = labelled("train")
    assert noted["state"].num_steps == 5 * (len(cases) // 6)
    batches = [noted["batches"](step) for step in range(len(cases))]
    seen = [case for batch in batches for case in made.which(batch.images)]
    assert sorted(seen) == sorted(cases * 6)
    labels = [label for batch in batches for label in batch.labels.tolist()]
    assert labels == [int(case) % 2 for case in seen]


def test_it_is_stopped_by_labelled_validation_crops_alone(trained):
    noted, context = trained()
    cases = labelled("validation")
    judge = noted["judge"]
    judge.seen.clear()
    metrics = noted["validate"]()
    assert made.which(torch.cat(judge.seen)) == cases
    signs = np.array([2 * (int(case) % 2) - 1 for case in cases])
    logits = np.array([made.unit(case) for case in cases])
    wanted = np.log1p(np.exp(-signs * logits)).mean()
    assert metrics["validation_loss"] == pytest.approx(wanted, rel=1e-3)
    pairs = [(a, b) for a in logits[signs > 0] for b in logits[signs < 0]]
    assert metrics["validation_auroc"] == pytest.approx(np.mean([a > b for a, b in pairs]))
    assert context.notes["judge"] == metrics


def test_a_validation_of_several_batches_is_that_of_one(trained, monkeypatch):
    noted, _ = trained()
    whole = noted["validate"]()
    monkeypatch.setattr(stage, "BATCH", 2)
    assert noted["validate"]() == pytest.approx(whole)


def test_an_epoch_counts_labelled_crops_alone(trained):
    noted, _ = trained("judge.batch_size=5", "judge.num_epochs=1")
    assert len(labelled("train")) == 13
    assert noted["state"].num_steps == 2


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_cross_entropy_of_smoothed_labels(smoothing):
    images = torch.stack([torch.full((1, 4, 4), level) for level in (0.5, -1.0)])
    batch = CropBatch(images, torch.zeros(2, 0), torch.zeros(2), torch.tensor([1.0, 0.0]))
    loss = JudgeObjective(made.BrightnessJudge(), smoothing)(batch).loss
    high, low = 1 - smoothing / 2, smoothing / 2
    p = 1 / (1 + np.exp(-np.array([0.5, -1.0])))
    wanted = -np.mean(
        [
            high * np.log(p[0]) + low * np.log(1 - p[0]),
            low * np.log(p[1]) + high * np.log(1 - p[1]),
        ]
    )
    assert float(loss) == pytest.approx(wanted, rel=1e-5)


def test_augmentation_is_noise_of_its_deviation_and_differs_from_step_to_step(trained):
    plain, _ = trained()
    noisy, _ = trained("judge.noise=0.1")
    added = [noisy["batches"](step).images - plain["batches"](step).images for step in range(2)]
    assert float(added[0].std()) == pytest.approx(0.1, rel=0.1)
    assert not torch.equal(added[0], added[1])


def test_half_of_the_crops_are_mirrored_left_to_right(trained):
    plain, _ = trained()
    mirrored, _ = trained("judge.mirror=true")
    kinds = []
    for step in range(20):
        pairs = zip(mirrored["batches"](step).images, plain["batches"](step).images, strict=True)
        for ours, picture in pairs:
            assert not torch.equal(picture, picture.flip(2))
            kinds.append(torch.equal(ours, picture.flip(2)))
            assert kinds[-1] or torch.equal(ours, picture)
    assert np.mean(kinds) == pytest.approx(0.5, abs=0.15)


def test_crops_are_shifted_by_at_most_so_many_pixels_and_turned(trained):
    plain, _ = trained()
    shifted, _ = trained("judge.shift=2")
    turned, _ = trained("image.rotations=quarter")
    moves, quarters = set(), set()
    for step in range(12):
        pairs = zip(plain["batches"](step).images, shifted["batches"](step).images, strict=True)
        for picture, ours in pairs:
            padded = np.pad(picture[0].numpy(), 2, mode="edge")
            windows = np.lib.stride_tricks.sliding_window_view(padded, (16, 16))
            found = np.argwhere((windows == ours[0].numpy()).all((2, 3)))
            assert len(found)
            moves.update((2 - int(down), 2 - int(right)) for down, right in found)
        for picture, ours in zip(
            plain["batches"](step).images, turned["batches"](step).images, strict=True
        ):
            quarters |= {k for k in range(4) if torch.equal(ours, picture.rot90(k, (1, 2)))}
    assert {down for down, _ in moves} == {right for _, right in moves} == {-2, -1, 0, 1, 2}
    assert len(moves) > 10
    assert quarters == {0, 1, 2, 3}


def test_the_hand_made_crops_are_distinct():
    cohort = made.cohort()
    images = to_unit(cohort.baseline[:, 4:-4, 4:-4])
    assert made.which(images) == list(range(18))
