"""Laws of the latents that a diffusion model sees: there and back, and measured on train alone."""

import json

import numpy as np
import pytest
import torch

from namd.config.seeding import generator
from namd.methods.shared.latent_space import (
    FILE,
    LatentSpace,
    load_latent_space,
    measured_space,
)
from namd.methods.shared.settings import LatentSettings
from namd.models.vae import Posterior


def posterior(count=200, channels=4, seed=0):
    random = generator("test-latent-space", seed)
    centre = np.array([-0.9, 0.0, 0.4, 0.8])[:channels, None, None]
    spread = np.array([0.2, 1.0, 0.5, 0.3])[:channels, None, None]
    mean = centre + spread * random.standard_normal((count, channels, 4, 4))
    logvar = np.full_like(mean, -3.0) + 0.1 * random.standard_normal(mean.shape)
    return Posterior(torch.from_numpy(mean).float(), torch.from_numpy(logvar).float())


def test_one_factor_is_the_arithmetic_of_before():
    found, scale = posterior(), 1.7
    space = measured_space(LatentSettings(), scale, [found])
    scaled = space.posterior(found)
    assert torch.equal(scaled.mean, found.mean * scale)
    assert torch.equal(scaled.logvar, found.logvar + 2 * float(np.log(scale)))
    assert torch.equal(space.unscaled(found.mean), found.mean / scale)


def test_per_channel_every_channel_has_mean_0_and_deviation_1():
    first, second = posterior(seed=1), posterior(seed=2)
    space = measured_space(LatentSettings(scaling="per_channel"), 1.7, [first, second])
    both = Posterior(torch.cat([first.mean, second.mean]), torch.cat([first.logvar, second.logvar]))
    noise = torch.from_numpy(
        generator("test-noise", 0).standard_normal(both.mean.shape, np.float32)
    )
    drawn = space.posterior(both).sample(noise)
    assert drawn.mean((0, 2, 3)).abs().max() < 0.03
    torch.testing.assert_close(drawn.std((0, 2, 3)), torch.ones(4), atol=0.03, rtol=0)
    plain = measured_space(LatentSettings(), 1.7, [first]).posterior(both).sample(noise)
    assert plain.mean((0, 2, 3)).abs().max() > 1
    # Scaling a sample is sampling the scaled posterior: the log-variance is scaled alike.
    again = (both.sample(noise) - space.shift) * space.scale
    torch.testing.assert_close(drawn, again, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scaling", ["global", "per_channel"])
@pytest.mark.parametrize("fold", [1, 2])
def test_there_and_back_through_a_file(scaling, fold, tmp_path):
    found = posterior()
    space = measured_space(LatentSettings(scaling, fold), 1.7, [found])
    space.save(tmp_path)
    assert (tmp_path / FILE).is_file() == ((scaling, fold) != ("global", 1))
    loaded = load_latent_space(tmp_path, 1.7)
    seen = space.posterior(found)
    assert seen.mean.shape == (200, 4 * fold**2, 4 // fold, 4 // fold)
    torch.testing.assert_close(loaded.unscaled(seen.mean), found.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loaded.posterior(found).logvar, seen.logvar)
    if scaling == "per_channel":
        # The autoencoder's own factor no longer counts.
        content = json.loads((tmp_path / FILE).read_text())
        assert len(content["scale"]) == len(content["shift"]) == 4
        assert not torch.allclose(LatentSpace(1.7, None, fold).unscaled(seen.mean), found.mean)


def test_folding_keeps_neighbours_together():
    found = Posterior(torch.arange(16.0).view(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    folded = LatentSpace(1.0, fold=2).posterior(found).mean
    assert folded[0, :, 0, 0].tolist() == [0.0, 1.0, 4.0, 5.0]
