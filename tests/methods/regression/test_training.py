"""The regression: it starts as a copy, and learns a change that a copy cannot show."""

import numpy as np
import pytest
import torch

from namd.losses.reconstruction import reconstruction_loss
from namd.methods.regression.settings import RegressionConfig, RegressionSettings
from namd.methods.regression.training import Regression, build_network
from namd.methods.shared.pair_set import PairBatch, PairSet
from namd.methods.shared.settings import ImageSettings
from namd.models.initialisation import initialised_from
from tests.data.conftest import make_cohort

SMALL = RegressionSettings(block_out_channels=(8, 16), norm_num_groups=4)


@pytest.fixture
def objective() -> Regression:
    with initialised_from("test", 1):
        return Regression(build_network(SMALL, 16))


@pytest.fixture
def pairs() -> PairBatch:
    """32 baselines with a square; its follow-up is brighter where the baseline is."""
    rng = np.random.default_rng(0)
    before = torch.from_numpy(rng.uniform(-0.9, -0.4, (32, 1, 16, 16)).astype(np.float32))
    before[:, :, 5:11, 5:11] += 0.5
    after = before + 0.4 * (before > -0.3)
    return PairBatch(before, after)


def test_untrained_it_copies_the_baseline(objective, pairs):
    assert torch.equal(objective.predict(pairs.baseline), pairs.baseline)
    expected = (pairs.followup - pairs.baseline).abs().mean()
    assert torch.isclose(objective(pairs).loss, expected)


def test_it_overfits_32_pairs_and_needs_their_baselines(objective, pairs):
    optimiser = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    copied = float(objective(pairs).loss.detach())
    for _ in range(60):
        optimiser.zero_grad()
        objective(pairs).loss.backward()
        optimiser.step()
    with torch.no_grad():
        learned = float(objective(pairs).loss)
        shuffled = objective.predict(pairs.baseline.roll(1, 0))
        assert learned < 0.5 * copied
        assert reconstruction_loss(shuffled, pairs.followup) > 2 * learned


def test_both_images_of_a_pair_are_turned_alike():
    cohort = make_cohort()
    cohort.followup = np.asarray(cohort.baseline).copy()
    cohort.has_followup[:] = True
    pairs = PairSet(cohort, ImageSettings(size=8, rotations="quarter"))
    turn = pairs.turns("test", 1, 0, len(pairs))
    assert len(set(turn)) > 1
    batch = pairs.batch(np.arange(len(pairs)), turn)
    assert torch.equal(batch.baseline, batch.followup)
    assert not torch.equal(batch.baseline, pairs.batch(np.arange(len(pairs))).baseline)


def test_cases_without_a_followup_are_left_out():
    cohort = make_cohort()
    cohort.has_followup[:] = False
    cohort.has_followup[[1, 3]] = True
    pairs = PairSet(cohort, ImageSettings(size=8, rotations="none"))
    assert list(pairs.case_ids) == list(cohort.table["case_id"].iloc[[1, 3]])


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"block_out_channels": ()}, "at least one level"),
        ({"block_out_channels": (12,)}, "multiples of norm_num_groups 8, not 12"),
        ({"layers_per_block": 0}, "layers_per_block"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(values, word):
    with pytest.raises(ValueError, match=word):
        RegressionSettings(**values)


def test_an_image_that_cannot_be_halved_so_often_is_refused():
    deep = RegressionSettings(block_out_channels=(8,) * 8)
    with pytest.raises(ValueError, match="halved 7 times"):
        RegressionConfig(regression=deep)
    assert RegressionConfig(regression=SMALL).image.size == 64
