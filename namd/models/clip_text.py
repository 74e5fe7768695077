"""A frozen CLIP text model with its tokenizer, from a folder in transformers' format.

Stable Diffusion pads every prompt to CLIP's whole length and masks nothing; so does this.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import (
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from namd.config.errors import InputError
from namd.models.language import without_progress_bars


class ReportReader:
    """Texts to the last hidden states of a frozen CLIP text model, (B, L, D), L its whole length.

    Args:
        model: A CLIPTextModel.
        tokenizer: Its tokenizer; adds begin and end itself.
        device: Where it runs.
    """

    def __init__(
        self, model: CLIPTextModel, tokenizer: PreTrainedTokenizerBase, device: str = "cpu"
    ) -> None:
        self.model = model.requires_grad_(False).eval().to(device)
        self.tokenizer, self.device = tokenizer, device

    @property
    def width(self) -> int:
        """Numbers of a token's state."""
        return int(self.model.config.hidden_size)

    @property
    def length(self) -> int:
        """Tokens of every text, padding included."""
        return int(self.model.config.max_position_embeddings)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "B L D"]:
        """Return the states; a text of more tokens is cut."""
        ids = self.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        ).input_ids
        return self.model(ids.to(self.device)).last_hidden_state

    def num_cut(self, texts: Sequence[str]) -> int:
        """Return how many different ones of these texts lose their end."""
        rows = self.tokenizer(list(dict.fromkeys(texts)), truncation=False)["input_ids"]
        return sum(len(row) > self.length for row in rows)


def load_clip_text(folder: Path, wanted: str, instead: str, device: str = "cpu") -> ReportReader:
    """Read a text encoder; its tokenizer lies in the same folder, or beside it as `tokenizer/`.

    Args:
        folder: Holds config.json and safetensors.
        wanted: The configuration value that named it, for the error.
        instead: What to set it to, likewise.
        device: Where the model runs.

    Raises InputError if there is no such encoder with its tokenizer.
    """
    try:
        with without_progress_bars():
            tokenizer = _tokenizer(folder)
            model = CLIPTextModel.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, dtype=torch.float32
            )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{wanted}: no CLIP text encoder with tokenizer can be read there ({reason}); "
            f"see `namd weights`, or set {instead}"
        ) from error
    return ReportReader(model, tokenizer, device)


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    if (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    own = (folder / "vocab.json").is_file()
    place = folder if own else folder.parent / "tokenizer"
    return CLIPTokenizer.from_pretrained(place, local_files_only=True)
