"""The released code's context of "no record": CLIP's states of an empty prompt.

What is read here is frozen; the learned token that stands for the same is `unet.NullContext`.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from namd.config.errors import InputError
from namd.models.language import without_progress_bars
from namd.models.weights import require
from namd.models.weights_settings import WEIGHTS

NAME = "clip-text"


@torch.no_grad()
def empty_prompt_states(configured: str) -> Float[Tensor, "1 L D"]:
    """Return the states of "", padded to CLIP's whole length as Stable Diffusion pads it.

    Args:
        configured: Folder or hub name of Stable Diffusion 1.5, or of its text encoder.

    Raises InputError if there is no such encoder with its tokenizer.
    """
    folder, place = require(NAME, configured), WEIGHTS[NAME].config_path
    beside = folder.parent / "tokenizer"
    try:
        with without_progress_bars():
            tokenizer = CLIPTokenizer.from_pretrained(
                folder if (folder / "vocab.json").is_file() else beside, local_files_only=True
            )
            model = CLIPTextModel.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, dtype=torch.float32
            ).eval()
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{place}={configured}: no CLIP text encoder with tokenizer can be read there "
            f"({reason}); see `namd weights`, or set {place} to null"
        ) from error
    length = model.config.max_position_embeddings
    ids = tokenizer("", padding="max_length", max_length=length, return_tensors="pt").input_ids
    return model(ids).last_hidden_state
