"""Where the posterior's log-variance starts."""

from dataclasses import replace

import pytest
import torch

from namd.models.initialisation import initialised_from
from namd.models.settings import VAEArchitecture
from namd.models.vae import build_vae

SMALL = VAEArchitecture(block_out_channels=(8, 8), norm_num_groups=4, latent_channels=3)


def posterior(architecture):
    with initialised_from("test-vae", 0):
        vae = build_vae(architecture).eval()
    images = torch.linspace(-1, 1, 2 * 16 * 16).view(2, 1, 16, 16)
    return vae, vae.encode(images)


def test_it_starts_at_the_given_value_and_means_stay():
    _, plain = posterior(SMALL)
    vae, low = posterior(replace(SMALL, posterior_logvar_init=-6.0))
    torch.testing.assert_close(low.logvar, torch.full_like(low.logvar, -6.0))
    assert plain.logvar.std() > 0.01
    assert torch.equal(low.mean, plain.mean)
    low.logvar.sum().backward()
    gradient = vae.autoencoder.quant_conv.weight.grad
    assert gradient[3:].abs().max() > 0  # it can still learn to differ from image to image
    assert gradient[:3].abs().max() == 0


def test_it_is_refused_for_pretrained_weights_and_beyond_what_diffusers_keeps():
    assert replace(SMALL, posterior_logvar_init=-30.0).posterior_logvar_init == -30
    with pytest.raises(ValueError, match="lies in"):
        replace(SMALL, posterior_logvar_init=-31.0)
    with pytest.raises(ValueError, match="overwrite"):
        replace(SMALL, posterior_logvar_init=-6.0, weights="somewhere")
