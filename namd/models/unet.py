"""The denoising U-Net: diffusers' UNet2DConditionModel. It knows nothing of noise schedules."""

from collections.abc import Mapping

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from namd.models.settings import TextProjection, UNetArchitecture
from namd.models.vae import load_diffusers
from namd.models.weights import require

SD15_CONTEXT_WIDTH = 768


def build_unet(
    architecture: UNetArchitecture,
    in_channels: int,
    out_channels: int,
    context_width: int,
    sample_size: int,
) -> UNet2DConditionModel:
    """Return an (unconditional) U-Net whose cross-attention reads `context_width` numbers a token.

    From a folder of weights, only the K/V projections of cross-attention (or the new text
    projection) keep random weights; every other tensor must match.

    Raises InputError if the folder is not a U-Net, ValueError where its shapes do not fit.
    """
    if architecture.weights is None:
        arguments = _diffusers_arguments(architecture, in_channels, out_channels, sample_size)
        context = _context(architecture.text_projection, context_width)
        return UNet2DConditionModel(**arguments, **context)
    folder = require("sd15-unet", architecture.weights)
    pretrained = load_diffusers(UNet2DConditionModel, folder, "unet")
    if (pretrained.config.in_channels, pretrained.config.out_channels) != (
        in_channels,
        out_channels,
    ):
        raise ValueError(
            f"{architecture.weights}: U-Net maps {pretrained.config.in_channels} channels to "
            f"{pretrained.config.out_channels}, the latents need {in_channels} to {out_channels}"
        )
    config = {k: v for k, v in pretrained.config.items() if not k.startswith("_")}
    config["sample_size"] = sample_size
    return _reading(pretrained, config, architecture.text_projection, context_width)


def reading(
    unet: UNet2DConditionModel, context_width: int, text_projection: TextProjection
) -> UNet2DConditionModel:
    """Return a U-Net with the weights of another one whose context has another width.

    Its K/V projections (or its new text projection) keep random weights, as from a folder.
    """
    config = {k: v for k, v in unet.config.items() if not k.startswith("_")}
    return _reading(unet, config, text_projection, context_width)


def width_read(unet: UNet2DConditionModel) -> int:
    """Return how many numbers a token of the context has."""
    return int(unet.config.encoder_hid_dim or unet.config.cross_attention_dim)


class NullContext(nn.Module):
    """The learned token that stands for "no record" in unconditional pretraining (Eq 9).

    Args:
        width: Numbers of a token.
        states: Frozen states that stand for it instead, (1, L, width).
    """

    def __init__(self, width: int, states: Float[Tensor, "1 L D"] | None = None) -> None:
        super().__init__()
        token = torch.zeros(1, 1, width) if states is None else states
        self.token = nn.Parameter(token, requires_grad=states is None)

    def forward(self, batch: int) -> Tensor:
        """Return the tokens for each case: (batch, L, width), L 1 for the learned one."""
        return self.token.expand(batch, -1, -1)


def _reading(
    pretrained: UNet2DConditionModel,
    config: dict[str, object],
    text_projection: TextProjection,
    context_width: int,
) -> UNet2DConditionModel:
    own = pretrained.config.cross_attention_dim
    unet = UNet2DConditionModel(**(config | _context(text_projection, context_width, own)))
    _take_over(unet, pretrained.state_dict())
    return unet


def _context(
    text_projection: TextProjection, context_width: int, pretrained_width: int = SD15_CONTEXT_WIDTH
) -> dict[str, object]:
    if text_projection == "none":
        return {"cross_attention_dim": context_width}
    return {
        "cross_attention_dim": pretrained_width,
        "encoder_hid_dim": context_width,
        "encoder_hid_dim_type": "text_proj",
    }


def _diffusers_arguments(
    architecture: UNetArchitecture, in_channels: int, out_channels: int, sample_size: int
) -> dict[str, object]:
    levels = len(architecture.block_out_channels)
    attends = [level >= architecture.attention_from for level in range(levels)]
    attends[-1] = attends[-1] and architecture.attention_last
    down = tuple("CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in attends)
    up = tuple("CrossAttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attends))
    return {
        "sample_size": sample_size,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "down_block_types": down,
        "up_block_types": up,
        "block_out_channels": architecture.block_out_channels,
        "layers_per_block": architecture.layers_per_block,
        "attention_head_dim": architecture.num_attention_heads,
        "norm_num_groups": architecture.norm_num_groups,
        "dropout": architecture.dropout,
    }


def _take_over(unet: UNet2DConditionModel, weights: Mapping[str, Tensor]) -> None:
    own = unet.state_dict()
    fitting = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    fresh = {k for k in own if k not in fitting}
    strangers = {k for k in fresh if not _depends_on_context(k)} | (weights.keys() - own.keys())
    if strangers:
        raise ValueError(f"the U-Net's weights do not fit: {sorted(strangers)[:3]}")
    unet.load_state_dict(fitting, strict=False)


def _depends_on_context(name: str) -> bool:
    return "attn2.to_k" in name or "attn2.to_v" in name or name.startswith("encoder_hid_proj")
