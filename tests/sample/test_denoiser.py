"""The prepared U-Net against diffusers' own forward pass."""

import copy

import pytest
import torch

from namd.config.seeding import generator
from namd.diffusion.conditioning import condition_on_latents, conditioned_input
from namd.models.initialisation import initialised_from
from namd.models.settings import UNetArchitecture
from namd.models.unet import build_unet
from namd.sample.denoiser import PreparedUNet, group_norm, is_supported

WIDTH = 24
TIMESTEPS = (981, 441, 1)
SMALL = {"block_out_channels": (32, 64), "num_attention_heads": 4, "norm_num_groups": 8}


def normal(*shape, seed=0):
    return torch.from_numpy(generator("test-denoiser", seed).standard_normal(shape)).float()


def conditional_unet(**changes):
    with initialised_from("test-denoiser", 0):
        unet = condition_on_latents(
            build_unet(UNetArchitecture(**SMALL | changes), 4, 4, WIDTH, 8), 4
        )
        torch.nn.init.normal_(unet.conv_in.weight, std=0.2)
    return unet.eval().requires_grad_(False)


def inputs(batch=3, num_tokens=2):
    return (
        normal(batch, 4, 8, 8),
        normal(batch, 4, 8, 8, seed=1),
        normal(batch, num_tokens, WIDTH, seed=2),
    )


def literal(unet, latents, condition, states, timestep):
    return unet(conditioned_input(latents, condition), timestep, states).sample


@pytest.mark.parametrize(
    ("changes", "num_tokens"),
    [
        ({}, 2),
        ({"layers_per_block": 1}, 1),
        ({"attention_from": 1}, 5),
        ({"attention_last": False}, 2),
        ({"block_out_channels": (32, 64, 64), "num_attention_heads": 8}, 2),
    ],
)
def test_it_predicts_what_diffusers_predicts(changes, num_tokens):
    unet = conditional_unet(**changes)
    latents, condition, states = inputs(num_tokens=num_tokens)
    expected = [literal(unet, latents, condition, states, timestep) for timestep in TIMESTEPS]
    predict = PreparedUNet(unet, TIMESTEPS).bind(condition, states)
    for timestep, noise in zip(TIMESTEPS, expected, strict=True):
        torch.testing.assert_close(predict(latents, timestep), noise, atol=2e-5, rtol=1e-4)


def test_parity_would_notice_another_timestep_record_or_baseline():
    unet = conditional_unet()
    latents, condition, states = inputs()
    prepared = PreparedUNet(unet, TIMESTEPS)
    expected = prepared.bind(condition, states)(latents, 441)
    others = [
        prepared.bind(condition, states)(latents, 981),
        prepared.bind(condition, -states)(latents, 441),
        prepared.bind(-condition, states)(latents, 441),
    ]
    assert all((other - expected).abs().max() > 1e-3 for other in others)


def test_nothing_that_is_handed_in_is_changed():
    unet = conditional_unet()
    latents, condition, states = inputs()
    kept = [tensor.clone() for tensor in (latents, condition, states)]
    predict = PreparedUNet(unet, TIMESTEPS).bind(condition, states)
    first = predict(latents, 441)
    assert torch.equal(predict(latents, 441), first)
    assert all(torch.equal(a, b) for a, b in zip(kept, (latents, condition, states), strict=True))


def test_a_network_with_unknown_parts_is_called_as_it_is():
    projected = conditional_unet(text_projection="text_proj")
    assert not is_supported(projected)
    assert is_supported(conditional_unet())
    latents, condition, states = inputs()
    predict = PreparedUNet(projected, TIMESTEPS).bind(condition, states)
    expected = literal(projected, latents, condition, states, 441)
    torch.testing.assert_close(predict(latents, 441), expected)


def test_in_bf16_it_predicts_what_diffusers_predicts_under_autocast_and_in_fp32():
    unet = conditional_unet()
    latents, condition, states = inputs()
    exact = literal(unet, latents, condition, states, 441)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = literal(unet, latents, condition, states, 441).float()
    predicted = PreparedUNet(unet, TIMESTEPS, "bf16").bind(condition, states)(latents, 441)
    assert predicted.dtype == torch.float32
    assert 0 < (predicted - exact).abs().mean() < 2 * (autocast - exact).abs().mean()
    assert unet.conv_in.weight.dtype == torch.float32, "the weights handed in are kept"
    assert not torch.equal(autocast, exact)


def test_a_callers_autocast_changes_nothing():
    unet = conditional_unet()
    latents, condition, states = inputs()
    expected = PreparedUNet(unet, TIMESTEPS).bind(condition, states)(latents, 441)
    with torch.autocast("cpu", torch.bfloat16):
        predicted = PreparedUNet(unet, TIMESTEPS).bind(condition, states)(latents, 441)
    assert torch.equal(predicted, expected)


@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_group_norm_is_torchs(mean):
    norm = torch.nn.GroupNorm(4, 32, eps=1e-5)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = (normal(5, 32, 8, 6) + mean).contiguous(memory_format=torch.channels_last)
    normed = group_norm(norm, x)
    exact = copy.deepcopy(norm).double()(x.double()).float()
    torch.testing.assert_close(normed, exact, atol=5e-4 if mean else 1e-5, rtol=1e-4)
    assert normed.is_contiguous(memory_format=torch.channels_last)


def test_group_norm_of_a_constant_is_the_bias():
    norm = torch.nn.GroupNorm(4, 32)
    torch.nn.init.normal_(norm.bias)
    normed = group_norm(norm, torch.full((2, 32, 4, 4), 7.3))
    torch.testing.assert_close(
        normed, norm.bias.view(1, -1, 1, 1).expand_as(normed), atol=1e-2, rtol=0
    )
