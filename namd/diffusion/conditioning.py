"""How the baseline enters the U-Net: as further input channels (NAMD Section 3.4).

Reports enter by cross-attention, which the U-Net has already.
"""

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn


def expand_conv_in(convolution: nn.Conv2d, added_channels: int) -> nn.Conv2d:
    """Return the convolution with further input channels of zero weight behind its own.

    Weights and bias are copied, so before the first optimiser step the answer is the same,
    whatever the added channels hold.
    """
    weight = convolution.weight
    expanded = nn.utils.skip_init(
        nn.Conv2d,
        convolution.in_channels + added_channels,
        convolution.out_channels,
        convolution.kernel_size,
        convolution.stride,
        convolution.padding,
        bias=convolution.bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    with torch.no_grad():
        expanded.weight.zero_()
        expanded.weight[:, : convolution.in_channels] = weight
        if expanded.bias is not None:
            expanded.bias.copy_(convolution.bias)
    return expanded


def condition_on_latents(unet: UNet2DConditionModel, added_channels: int) -> UNet2DConditionModel:
    """Widen a U-Net's conv_in in place and in its configuration, and return it.

    Raises ValueError if it is wide already: its second half would be lost among zeros.
    """
    if unet.config.in_channels != unet.config.out_channels:
        raise ValueError(
            f"the U-Net takes {unet.config.in_channels} channels for "
            f"{unet.config.out_channels}: it is conditioned already"
        )
    unet.conv_in = expand_conv_in(unet.conv_in, added_channels)
    unet.register_to_config(in_channels=unet.config.in_channels + added_channels)
    return unet


def conditioned_input(
    noisy_latents: Float[Tensor, "B C h w"], baseline_latents: Float[Tensor, "B D h w"]
) -> Float[Tensor, "B E h w"]:
    """Return the U-Net's input: noisy latents first, baseline latents second."""
    return torch.cat([noisy_latents, baseline_latents], 1)
