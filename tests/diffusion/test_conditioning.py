import pytest
import torch
from diffusers import UNet2DConditionModel

from namd.config.seeding import generator
from namd.diffusion.conditioning import condition_on_latents, conditioned_input, expand_conv_in


def normal(*shape, seed=0):
    return torch.from_numpy(generator("test-conditioning", seed).standard_normal(shape)).float()


def small_unet():
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=12,
        attention_head_dim=4,
        norm_num_groups=8,
    ).eval()


NOISY, BASELINE, REPORT = normal(3, 4, 8, 8), normal(3, 4, 8, 8, seed=1), normal(3, 2, 12, seed=2)
TIMESTEPS = torch.tensor([1, 500, 981])


@torch.no_grad()
def test_before_the_first_step_the_conditional_net_is_the_unconditional_one_exactly():
    unet = small_unet()
    unconditional = unet(NOISY, TIMESTEPS, REPORT).sample
    conditional = condition_on_latents(unet, 4)
    answer = conditional(conditioned_input(NOISY, BASELINE), TIMESTEPS, REPORT).sample
    assert torch.equal(answer, unconditional)


@torch.no_grad()
def test_the_other_order_of_channels_is_not_the_unconditional_net():
    unet = small_unet()
    unconditional = unet(NOISY, TIMESTEPS, REPORT).sample
    conditional = condition_on_latents(unet, 4)
    swapped = conditional(conditioned_input(BASELINE, NOISY), TIMESTEPS, REPORT).sample
    assert (swapped - unconditional).abs().max() > 1e-3


def test_the_baseline_matters_after_one_step():
    unet = condition_on_latents(small_unet(), 4)
    optimiser = torch.optim.SGD(unet.parameters(), lr=1.0)
    unet(conditioned_input(NOISY, BASELINE), TIMESTEPS, REPORT).sample.square().mean().backward()
    assert unet.conv_in.weight.grad[:, 4:].abs().max() > 0
    optimiser.step()
    with torch.no_grad():
        one = unet(conditioned_input(NOISY, BASELINE), TIMESTEPS, REPORT).sample
        other = unet(conditioned_input(NOISY, -BASELINE), TIMESTEPS, REPORT).sample
    assert (one - other).abs().max() > 1e-5


def test_weights_and_bias_are_copied_and_the_rest_is_zero():
    old = torch.nn.Conv2d(4, 6, 3, padding=1)
    new = expand_conv_in(old, 4)
    assert new.weight.shape == (6, 8, 3, 3)
    assert torch.equal(new.weight[:, :4], old.weight)
    assert not new.weight[:, 4:].any()
    assert torch.equal(new.bias, old.bias)
    assert new.bias is not old.bias


def test_it_saves_and_loads_wide(tmp_path):
    unet = condition_on_latents(small_unet(), 4)
    unet.save_pretrained(tmp_path)
    loaded = UNet2DConditionModel.from_pretrained(tmp_path)
    assert loaded.config.in_channels == 8
    assert torch.equal(loaded.conv_in.weight, unet.conv_in.weight)


def test_widening_twice_is_refused():
    unet = condition_on_latents(small_unet(), 4)
    with pytest.raises(ValueError, match="takes 8 channels for 4"):
        condition_on_latents(unet, 4)
