"""The released code's context of "no record": CLIP's states of an empty prompt.

What is read here is frozen; the learned token that stands for the same is `unet.NullContext`.
"""

from jaxtyping import Float
from torch import Tensor

from namd.models.clip_text import load_clip_text
from namd.models.weights import require

NAME = "clip-text"


def empty_prompt_states(configured: str) -> Float[Tensor, "1 L D"]:
    """Return the states of "", padded to CLIP's whole length as Stable Diffusion pads it.

    Args:
        configured: Folder or hub name of Stable Diffusion 1.5, or of its text encoder.

    Raises InputError if there is no such encoder with its tokenizer.
    """
    folder = require(NAME, configured)
    reader = load_clip_text(
        folder, f"pretrain.clip_weights={configured}", "pretrain.clip_weights to null"
    )
    return reader([""])
