"""The velocity network: diffusers' FluxTransformer2DModel on packed latents.

Baseline latents enter as further numbers of each token, behind the noisy ones, as in diffusers'
flux-control example.
"""

import torch
from diffusers import FluxTransformer2DModel
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from namd.config.errors import InputError
from namd.methods.flux.settings import PATCH, FluxArchitecture, misfit
from namd.models.vae import load_diffusers
from namd.models.weights import require

WEIGHT = "flux"


def packed(latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B n D"]:
    """Return 2 x 2 positions as one token of 4 C numbers: 4 x 8 x 8 becomes 16 tokens of 16."""
    return pixel_unshuffle(latents, PATCH).flatten(2).transpose(1, 2)


def unpacked(tokens: Float[Tensor, "B n D"], height: int, width: int) -> Float[Tensor, "B C h w"]:
    """Undo `packed` for latents of that height and width."""
    rows, columns = height // PATCH, width // PATCH
    return pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (rows, columns)), PATCH)


def token_positions(height: int, width: int) -> Float[Tensor, "n 3"]:
    """Return (0, row, column) of each token; tokens of the record all stand at (0, 0, 0)."""
    rows, columns = height // PATCH, width // PATCH
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], -1).flatten(0, 1).float()


def build_transformer(
    architecture: FluxArchitecture, latent_channels: int, guided: bool
) -> FluxTransformer2DModel:
    """Return a transformer that reads noisy and baseline latents and gives a velocity.

    From a folder of weights, `x_embedder` gets columns of zeros for the baseline, so that before
    the first step it does what it did without one; a transformer that has columns for a condition
    already, as flux-control saves it, keeps them. From random weights, modulations and the last
    layer start at zero (Peebles and Xie 2023) [ours: diffusers leaves them random].

    Raises InputError if the folder has no FLUX transformer or one for other latents.
    """
    width = PATCH**2 * latent_channels
    if architecture.weights is not None:
        return _from_folder(architecture.weights, width, guided)
    transformer = FluxTransformer2DModel(
        in_channels=2 * width,
        out_channels=width,
        num_layers=architecture.num_layers,
        num_single_layers=architecture.num_single_layers,
        attention_head_dim=architecture.attention_head_dim,
        num_attention_heads=architecture.num_attention_heads,
        joint_attention_dim=architecture.record_width,
        pooled_projection_dim=architecture.record_width,
        guidance_embeds=guided,
        axes_dims_rope=architecture.axes_dims_rope,
    )
    _start_at_zero(transformer)
    return transformer


def condition_on_baseline(transformer: FluxTransformer2DModel) -> FluxTransformer2DModel:
    """Double `x_embedder`'s input in place and in the configuration; new columns are zero.

    Raises ValueError if it is wide already.
    """
    own, out = transformer.config.in_channels, transformer.proj_out.out_features
    if own != out:
        raise ValueError(f"x_embedder reads {own} numbers for {out}: it is conditioned already")
    narrow = transformer.x_embedder
    wide = nn.utils.skip_init(nn.Linear, 2 * own, narrow.out_features, dtype=narrow.weight.dtype)
    with torch.no_grad():
        wide.weight.zero_()
        wide.weight[:, :own] = narrow.weight
        wide.bias.copy_(narrow.bias)
    transformer.x_embedder = wide
    transformer.register_to_config(in_channels=2 * own, out_channels=out)
    return transformer


def _from_folder(configured: str, width: int, guided: bool) -> FluxTransformer2DModel:
    transformer = load_diffusers(FluxTransformer2DModel, require(WEIGHT, configured), "transformer")
    if problem := misfit(configured, transformer.config, width, guided):
        raise InputError(problem)
    is_wide = transformer.config.in_channels == 2 * width
    return transformer if is_wide else condition_on_baseline(transformer)


@torch.no_grad()
def _start_at_zero(transformer: FluxTransformer2DModel) -> None:
    """Make every block the identity and the velocity 0."""
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    modulations = [
        norm.linear
        for block in blocks
        for name in ("norm1", "norm1_context", "norm")
        if (norm := getattr(block, name, None)) is not None
    ]
    for layer in (*modulations, transformer.norm_out.linear, transformer.proj_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
