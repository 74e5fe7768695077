"""The denoising U-Net and the token of "no record" as files of an artifact."""

from pathlib import Path

from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from namd.models.unet import NullContext
from namd.models.vae import load_diffusers


def save_denoiser(unet: UNet2DConditionModel, null: NullContext, folder: Path) -> None:
    """Write the U-Net in diffusers' format and the null token."""
    unet.save_pretrained(folder / "unet", safe_serialization=True)
    save_file({"token": null.token.detach().cpu().contiguous()}, folder / "null_token.safetensors")


def load_denoiser(folder: Path) -> tuple[UNet2DConditionModel, NullContext]:
    """Undo `save_denoiser`."""
    token = load_file(folder / "null_token.safetensors")["token"]
    null = NullContext(token.shape[-1])
    null.token.data = token
    return load_diffusers(UNet2DConditionModel, folder, "unet"), null
