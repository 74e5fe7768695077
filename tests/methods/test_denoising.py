"""Batches and objective of both diffusion stages, against posteriors made by hand (Eq 9, 10)."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from namd.diffusion.noise import training_noise
from namd.diffusion.schedule import noise_schedule
from namd.diffusion.settings import NoiseScheduleSettings
from namd.losses.total import StepOutput
from namd.methods.shared.denoising import BatchSource, DenoisingBatch, DenoisingObjective, validator
from namd.methods.shared.latents import PairedLatents
from namd.train.world import LocalWorld

SCHEDULE = noise_schedule(NoiseScheduleSettings())
ANGLES, CASES, SHAPE = 3, 5, (2, 4, 4)
DEVIATION = {"baseline": 2.0, "followup": 3.0}
FIRST = {"baseline": 0.0, "followup": 1000.0}


def latents(num_angles=ANGLES, num_cases=CASES):
    """Posterior means that say which they are: 100 angle + case, follow-ups 1000 above."""
    tensors = {}
    number = 100 * torch.arange(num_angles)[:, None] + torch.arange(num_cases)[None]
    for name, first in FIRST.items():
        mean = (first + number.float())[..., None, None, None].expand(-1, -1, *SHAPE)
        tensors[f"{name}_mean"] = mean.contiguous()
        deviation = torch.tensor(DEVIATION[name])
        tensors[f"{name}_logvar"] = torch.full_like(mean, float(2 * deviation.log()))
    return PairedLatents(tensors, np.array([f"c{n}" for n in range(num_cases)]))


def source(*, paired=True, drop_rate=0.0, batch_size=6, world=None, made=None, seed=7):
    return BatchSource(
        "stage",
        seed,
        made or latents(),
        SCHEDULE,
        world or LocalWorld(),
        paired=paired,
        batch_size=batch_size,
        drop_rate=drop_rate,
    )


def posterior_noise(step, batch_size=6, seed=7):
    return training_noise(seed, "stage", step, batch_size, SHAPE, purpose="posterior-noise")


def test_a_pair_is_one_case_at_one_angle_baseline_its_mean_and_followup_a_sample():
    turns = set()
    for step in range(8):
        batch = source().at(step)
        found = batch.condition[:, 0, 0, 0]
        assert torch.equal(batch.condition, found[:, None, None, None].expand(-1, *SHAPE))
        turn, case = found // 100, found % 100
        assert case.tolist() == batch.cases.tolist()
        turns.update(turn.tolist())
        mean = (1000 + 100 * turn + case)[:, None, None, None]
        torch.testing.assert_close(
            (batch.latents - mean) / 3.0, posterior_noise(step), atol=2e-4, rtol=0
        )
    assert turns == {0, 1, 2}


def test_single_crops_are_samples_of_both_time_points_each_as_often():
    singles = source(paired=False, batch_size=5)
    assert singles.num_items == 2 * CASES
    seen = []
    for step in range(2):
        batch = singles.at(step)
        assert batch.condition is None
        noise = posterior_noise(step, 5)
        for row in range(5):
            later = bool(batch.latents[row].mean() > 500)
            name = "followup" if later else "baseline"
            mean = batch.latents[row] - DEVIATION[name] * noise[row]
            assert float(mean.std()) < 1e-3
            assert round(float(mean.mean() - FIRST[name])) % 100 == batch.cases[row]
            seen.append((name, int(batch.cases[row])))
    assert sorted(seen) == [(name, case) for name in FIRST for case in range(CASES)]


def test_timesteps_cover_the_schedule_and_change_from_step_to_step():
    steps = [source(batch_size=64, made=latents(1, 64)).at(step).timesteps for step in range(20)]
    together = torch.cat(steps)
    assert together.min() < 20
    assert together.max() > SCHEDULE.settings.num_train_timesteps - 20
    assert float(together.float().mean()) == pytest.approx(500, abs=40)
    assert not torch.equal(steps[0], steps[1])


def test_every_seed_and_step_has_noise_of_its_own_and_the_posteriors_is_another():
    one, two, other = source().at(0), source().at(1), source(seed=8).at(0)
    drawn = [one.noise, two.noise, other.noise, posterior_noise(0), posterior_noise(1)]
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
    assert torch.equal(one.noise, training_noise(7, "stage", 0, 6, SHAPE))
    assert abs(float(torch.cat(drawn).std()) - 1) < 0.1


@pytest.mark.parametrize("paired", [True, False])
def test_ranks_hold_the_parts_of_one_global_batch(paired):
    whole = source(paired=paired, drop_rate=0.5).at(3)
    parts = [
        source(paired=paired, drop_rate=0.5, world=LocalWorld(rank, 3)).at(3) for rank in range(3)
    ]
    for name in ("latents", "noise", "timesteps", "drop"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert np.array_equal(np.concatenate([part.cases for part in parts]), whole.cases)


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_as_many_records_are_dropped_as_is_asked(rate):
    many = source(drop_rate=rate, batch_size=256)
    dropped = torch.cat([many.at(step).drop for step in range(8)])
    assert set(dropped.tolist()) <= {0.0, 1.0}
    assert float(dropped.mean()) == pytest.approx(rate, abs=0.03)


def test_validation_is_every_case_unturned_with_its_record_at_each_quarter_of_the_schedule():
    batches = source(drop_rate=0.9, made=latents(ANGLES, 70)).validation()
    again = source(drop_rate=0.9, made=latents(ANGLES, 70), seed=99).validation()
    assert len(batches) == 8
    for quarter in range(4):
        pair = batches[2 * quarter : 2 * quarter + 2]
        assert np.concatenate([batch.cases for batch in pair]).tolist() == list(range(70))
        for batch in pair:
            assert batch.condition[:, 0, 0, 0].tolist() == batch.cases.tolist()
            assert not batch.drop.any()
            assert (batch.timesteps // 250 == quarter).all()
            own = (batch.latents - 1000 - batch.condition) / 3
            assert 0.75 < float(own.std()) < 1.25
            assert abs(float((own * batch.noise).mean())) < 0.3
    assert all(torch.equal(a.noise, b.noise) for a, b in zip(batches, again, strict=True))
    singles = source(paired=False).validation()
    assert [len(batch.cases) for batch in singles] == [2 * CASES] * 4


class NotingUNet(UNet2DConditionModel):
    """Predicts a constant; notes what it was given."""

    def __init__(self, answer=0.0):
        nn.Module.__init__(self)
        self.answer, self.seen = answer, []

    def forward(self, sample, timestep, encoder_hidden_states, return_dict=True):
        self.seen.append((sample, timestep, encoder_hidden_states))
        return (torch.full_like(sample[:, : SHAPE[0]], self.answer),)


class NotingContext(nn.Module):
    def forward(self, cases, drop):
        return torch.stack([torch.from_numpy(cases).float(), drop], 1)[:, None]


def made_batch(condition=True):
    def constant(value):
        return torch.full((2, *SHAPE), value)

    return DenoisingBatch(
        latents=constant(2.0),
        noise=torch.stack([torch.full(SHAPE, 1.0), torch.full(SHAPE, -3.0)]),
        timesteps=torch.tensor([0, 999]),
        condition=constant(50.0) if condition else None,
        cases=np.array([4, 1]),
        drop=torch.tensor([0.0, 1.0]),
    )


def test_the_network_sees_noisy_latents_then_baseline_and_the_records_of_the_cases():
    unet = NotingUNet()
    DenoisingObjective(unet, NotingContext(), SCHEDULE)(made_batch())
    ((sample, timesteps, states),) = unet.seen
    signal = SCHEDULE.alphas_cumprod[[0, 999]]
    noisy = signal.sqrt() * 2.0 + (1 - signal).sqrt() * torch.tensor([1.0, -3.0])
    torch.testing.assert_close(sample[:, 0, 0, 0], noisy)
    assert (sample[:, : SHAPE[0]] == sample[:, :1, :1, :1]).all()
    assert (sample[:, SHAPE[0] :] == 50.0).all()
    assert timesteps.tolist() == [0, 999]
    assert states[:, 0].tolist() == [[4.0, 0.0], [1.0, 1.0]]
    DenoisingObjective(unet, NotingContext(), SCHEDULE)(made_batch(condition=False))
    assert unet.seen[1][0].shape[1] == SHAPE[0]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_loss_is_the_squared_error_of_the_noise_or_of_v(kind):
    schedule = noise_schedule(NoiseScheduleSettings(prediction_type=kind))
    output = DenoisingObjective(NotingUNet(0.5), NotingContext(), schedule)(made_batch())
    signal = schedule.alphas_cumprod[[0, 999]].double()
    noise = torch.tensor([1.0, -3.0]).double()
    velocity = signal.sqrt() * noise - (1 - signal).sqrt() * 2.0
    target = noise if kind == "epsilon" else velocity
    assert float(output.loss) == pytest.approx(float((target - 0.5).square().mean()), rel=1e-5)


def test_a_validation_weighs_batches_by_their_cases():
    class ByCase(DenoisingObjective):
        def __init__(self):
            nn.Module.__init__(self)

        def forward(self, batch):
            return StepOutput(torch.tensor(float(batch.cases[0])))

    def cases(*numbers):
        return dataclasses.replace(made_batch(), cases=np.array(numbers))

    batches = [cases(1, 1, 1), cases(5)]
    assert validator(ByCase(), batches, "fp32", "cpu")() == {"validation_loss": 2.0}
