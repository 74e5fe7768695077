"""What `finetune` diffuses: the follow-up, or the change from the baseline; and guided drawing."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from namd.config.seeding import generator
from namd.diffusion.conditioning import condition_on_latents
from namd.diffusion.schedule import noise_schedule, sigmas
from namd.diffusion.settings import DDIMSettings, NoiseScheduleSettings, TimestepSettings
from namd.methods.namd.latent_diffusion import LatentDiffusionDrawer
from namd.methods.shared.denoising import BatchSource, DenoisingObjective
from namd.methods.shared.diffusion_settings import DrawSettings
from namd.methods.shared.latent_space import LatentSpace
from namd.methods.shared.latents import PairedLatents
from namd.methods.shared.target import (
    FILE,
    FollowupTarget,
    ResidualTarget,
    load_target,
    measured_target,
)
from namd.models.initialisation import initialised_from
from namd.models.settings import UNetArchitecture
from namd.models.unet import build_unet
from namd.models.vae import Posterior
from namd.train.world import LocalWorld

SHAPE = (4, 8, 8)
SETTINGS = NoiseScheduleSettings(prediction_type="v_prediction", timestep_spacing="trailing")


def normal(*shape, seed=0):
    return torch.from_numpy(generator("test-target", seed).standard_normal(shape, np.float32))


def pairs(count=40, change=0.25):
    baseline = normal(1, count, *SHAPE)
    tensors = {
        "baseline_mean": baseline,
        "baseline_logvar": torch.full((1, count, *SHAPE), -2.0),
        "followup_mean": baseline + change * normal(1, count, *SHAPE, seed=1),
        "followup_logvar": torch.full((1, count, *SHAPE), -2.0),
    }
    return PairedLatents(tensors, np.array([f"c{i}" for i in range(count)]))


def source(latents, **more):
    schedule = noise_schedule(SETTINGS)
    return BatchSource("finetune", 3, latents, schedule, LocalWorld(), True, 16, **more)


def test_the_residual_has_deviation_1_and_is_of_posterior_means():
    latents = pairs()
    target = measured_target("residual", latents)
    assert target.deviation == pytest.approx(0.25, rel=0.02)
    batch = source(latents, target=target).at(0)
    assert batch.latents.std() == pytest.approx(1.0, abs=0.03)
    change = latents.followup.mean[0, batch.cases] - latents.baseline.mean[0, batch.cases]
    torch.testing.assert_close(batch.latents * target.deviation, change)
    assert torch.equal(batch.condition, latents.baseline.mean[0, batch.cases])


def test_the_follow_up_is_sampled_and_is_the_default():
    latents = pairs()
    plain, named = source(latents).at(0), source(latents, target=FollowupTarget()).at(0)
    assert torch.equal(plain.latents, named.latents)
    assert measured_target("followup", latents) == FollowupTarget()
    noise = (plain.latents - latents.followup.mean[0, plain.cases]) / np.exp(-1.0)
    assert noise.std() == pytest.approx(1.0, abs=0.05)


def test_the_inverse_gives_the_follow_up_and_survives_the_artifact(tmp_path):
    latents = pairs()
    target = measured_target("residual", latents)
    target.save(tmp_path)
    loaded = load_target(tmp_path)
    assert loaded == target
    everyone = (np.zeros(40, int), np.arange(40))
    baseline, followup = latents.baseline.at(*everyone), latents.followup.at(*everyone)
    diffused = target.of(normal(40, *SHAPE), followup.mean, baseline.mean)
    back = loaded.followup(diffused, baseline.mean)
    torch.testing.assert_close(back, followup.mean, atol=1e-5, rtol=1e-5)
    (tmp_path / FILE).unlink()
    assert load_target(tmp_path) == FollowupTarget()
    assert not torch.allclose(load_target(tmp_path).followup(diffused, baseline.mean), back)


class Prepared:
    """A U-Net whose answer says by which states it was asked; 0 is the null token's."""

    def __init__(self):
        self.asked = []

    def bind(self, condition, states):
        level = float(states.mean())

        def predict(latents, timestep):
            self.asked.append((level, timestep))
            return torch.full_like(latents, level)

        return predict


def drawer(settings, target=None, space=None):
    made = LatentDiffusionDrawer.__new__(LatentDiffusionDrawer)
    made.settings, made.precision, made.device = settings, "fp32", "cpu"
    made.draw_seed, made.case_ids = 0, ["a", "b", "c"]
    made.schedule = noise_schedule(SETTINGS)
    made.sigmas = sigmas(made.schedule)
    mean = 0.1 * normal(3, *SHAPE)
    made.baseline, made.samples_baseline = Posterior(mean, torch.zeros_like(mean)), False
    made.states = torch.ones(3, 2, 5)
    made.space, made.target = space or LatentSpace(2.0), target or FollowupTarget()
    made.prepared, made.null = Prepared(), lambda count: torch.zeros(count, 1, 5)
    made.vae = SimpleNamespace(decode=lambda latents: latents[:, :1])
    return made


def test_the_drawer_adds_the_baseline_to_a_residual():
    settings = DrawSettings(ddim=DDIMSettings(4))
    cases = np.array([2, 0])
    # Small enough that no pixel is clamped.
    plain = drawer(settings, space=LatentSpace(20.0)).draw(cases, 1)
    moved = drawer(settings, ResidualTarget(0.5), LatentSpace(20.0)).draw(cases, 1)
    condition = (0.1 * normal(3, *SHAPE))[[2, 0], :1]
    torch.testing.assert_close(moved, 0.5 * plain + condition / 20.0, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(moved, plain)


def test_guidance_applies_inside_its_interval_alone():
    ddim = DDIMSettings(10)
    bounds = (0.5, 3.0)
    everywhere = drawer(DrawSettings(ddim=ddim, guidance_scale=1.5))
    middle = drawer(DrawSettings(ddim=ddim, guidance_scale=1.5, guidance_interval=bounds))
    none = drawer(DrawSettings(ddim=ddim, guidance_interval=bounds))
    for each in (everywhere, middle, none):
        each.draw(np.arange(3), 0)
    levels = sigmas(noise_schedule(SETTINGS))
    unguided = {t for level, t in middle.prepared.asked if level == 0.0}
    asked = {t for level, t in middle.prepared.asked if level == 1.0}
    assert unguided == {t for t in asked if bounds[0] <= levels[t] <= bounds[1]}
    assert 0 < len(unguided) < len(asked) == 10
    assert {t for level, t in everywhere.prepared.asked if level == 0.0} == asked
    assert all(level == 1.0 for level, _ in none.prepared.asked)


class Nothing(torch.nn.Module):
    def forward(self, cases, drop):
        return torch.zeros(len(cases), 1, 5)


def test_min_snr_weighs_training_and_never_validation():
    batch = source(pairs()).at(0)
    shape = UNetArchitecture(None, (16, 16), 1, 2, 4)
    with initialised_from("test-target", 0):
        unet = condition_on_latents(build_unet(shape, 4, 4, 5, 8), 4)
    plain, weighed = (
        DenoisingObjective(unet, Nothing(), noise_schedule(SETTINGS), gamma)
        for gamma in (None, 5.0)
    )
    assert weighed.train()(batch).loss < plain.train()(batch).loss
    assert weighed.eval()(batch).loss == plain.eval()(batch).loss


def test_timesteps_of_training_follow_the_setting_and_those_of_validation_do_not():
    latents = pairs()
    narrow = TimestepSettings("log_normal", log_sigma_mean=0.0, log_sigma_std=0.05)
    drawn, plain = source(latents, timesteps=narrow), source(latents)
    levels = sigmas(noise_schedule(SETTINGS))
    assert np.abs(np.log(levels[drawn.at(0).timesteps.numpy()])).max() < 0.3
    assert np.abs(np.log(levels[plain.at(0).timesteps.numpy()])).max() > 1
    for one, other in zip(drawn.validation(), plain.validation(), strict=True):
        assert torch.equal(one.timesteps, other.timesteps)
