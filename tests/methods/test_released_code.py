"""What the released code does in training, as values: copies in an epoch, a sampled baseline."""

from collections import Counter

import numpy as np
import pytest
import torch

from namd.diffusion.schedule import noise_schedule
from namd.diffusion.settings import NoiseScheduleSettings
from namd.methods.namd.settings import FinetuneSettings
from namd.methods.shared.denoising import BatchSource, condition_of
from namd.methods.shared.latents import PairedLatents
from namd.models.vae import Posterior
from namd.train.world import LocalWorld

ANGLES, PAIRS = 5, 7


def latents() -> PairedLatents:
    """Every posterior mean names its angle and pair: 100 angle + pair; follow-ups are 50 above."""
    angle, pair = np.indices((ANGLES, PAIRS))
    mean = torch.from_numpy((100 * angle + pair).astype(np.float32))[..., None, None, None]
    mean = mean.expand(-1, -1, 4, 2, 2).contiguous()
    narrow = torch.full_like(mean, -20.0)
    tensors = {"baseline_mean": mean, "baseline_logvar": torch.zeros_like(mean)}
    tensors |= {"followup_mean": mean + 50, "followup_logvar": narrow}
    return PairedLatents(tensors, np.array([f"case-{n}" for n in range(PAIRS)]))


def source(**options) -> BatchSource:
    schedule = noise_schedule(NoiseScheduleSettings())
    return BatchSource(
        "finetune", 3, latents(), schedule, LocalWorld(), paired=True, batch_size=7, **options
    )


def copies_seen(made: BatchSource, steps: int) -> Counter[int]:
    """How often each rotated copy was the target, by its follow-up's mean."""
    targets = [
        made.at(step).latents.mean((1, 2, 3)).round().int().tolist() for step in range(steps)
    ]
    return Counter(value - 50 for values in targets for value in values)


def test_an_epoch_of_copies_walks_every_rotated_pair_once():
    made = source(copies=True)
    assert made.num_items == ANGLES * PAIRS
    settings = FinetuneSettings(num_epochs=60, batch_size=7, epoch="copies")
    steps = settings.steps_for(made.num_items)
    assert steps == 60 * ANGLES == ANGLES * settings.steps_for(source().num_items)
    every = {100 * angle + pair for angle in range(ANGLES) for pair in range(PAIRS)}
    assert copies_seen(made, ANGLES) == Counter(every)
    # By pairs, as many steps repeat some copies and miss others.
    assert copies_seen(source(), ANGLES) != Counter(every)
    assert {copy % 100 for copy in copies_seen(source(), ANGLES)} == set(range(PAIRS))


@pytest.mark.parametrize("copies", [True, False])
def test_baseline_and_followup_are_the_same_copy(copies):
    batch = source(copies=copies).at(0)
    difference = batch.latents.mean((1, 2, 3)) - batch.condition.mean((1, 2, 3))
    torch.testing.assert_close(difference, torch.full_like(difference, 50), atol=0.1, rtol=0)


def test_a_sampled_baseline_has_the_posteriors_spread_and_noise_of_its_own():
    plain, sampled = source(), source(sampled_condition=True)
    for step in range(3):
        mean, drawn = plain.at(step), sampled.at(step)
        torch.testing.assert_close(drawn.latents, mean.latents)
        torch.testing.assert_close(drawn.noise, mean.noise)
        spread = drawn.condition - mean.condition
        assert 0.7 < spread.std() < 1.3
        assert (spread - drawn.noise).abs().max() > 0.5
        torch.testing.assert_close(drawn.condition, sampled.at(step).condition)
    one, other = (made.validation()[0] for made in (plain, sampled))
    torch.testing.assert_close(one.latents, other.latents)
    assert 0.7 < (other.condition - one.condition).std() < 1.3
    torch.testing.assert_close(other.condition, sampled.validation()[0].condition)


def test_without_noise_the_condition_is_the_mean():
    posterior = Posterior(torch.ones(2, 4, 2, 2), torch.zeros(2, 4, 2, 2))
    assert condition_of(posterior, None) is posterior.mean
    noise = torch.full((2, 4, 2, 2), 3.0)
    torch.testing.assert_close(condition_of(posterior, noise), noise + 1)
