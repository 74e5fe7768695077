"""The frozen CLIP text model that reads reports, and stage `clip_text`, which builds the small one.

Stable Diffusion pads every prompt to CLIP's whole length and masks nothing; so does this.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from namd.config.errors import InputError
from namd.config.seeding import generator
from namd.data.records import RandomRecords
from namd.methods.base import StageContext, Step
from namd.methods.sd15.settings import EmbeddedTextSettings
from namd.models.embedded_language import BOS, EOS, number_tokens, smooth_rows, train_tokenizer
from namd.models.initialisation import initialised_from
from namd.models.language import MODEL_FOLDER, without_progress_bars
from namd.models.weights import require

NAME = "clip_text"
WEIGHT = "sd15-clip"
TOKENIZER_REPORTS = 2000


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
        """Return how many of these texts lose their end."""
        rows = self.tokenizer(list(dict.fromkeys(texts)), truncation=False)["input_ids"]
        return sum(len(row) > self.length for row in rows)


def build_embedded(
    settings: EmbeddedTextSettings, tokenizer: PreTrainedTokenizerBase
) -> CLIPTextModel:
    """Return a small CLIP text model with random weights; near numbers have near embeddings."""
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            intermediate_size=settings.intermediate_size,
            num_hidden_layers=settings.num_layers,
            num_attention_heads=settings.num_heads,
            max_position_embeddings=settings.length,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    tokens = number_tokens(tokenizer)
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        rows = smooth_rows(torch.tensor(list(tokens)), settings.hidden_size)
        table[torch.tensor(list(tokens.values()))] = rows * table.std()
    return model


def build_tokenizer(settings: EmbeddedTextSettings) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE of reports that puts BOS before and EOS behind a text, as CLIP's."""
    rng, records = generator("clip-tokenizer", settings.seed), RandomRecords()
    reports = [records.report(records.draw(rng), rng) for _ in range(TOKENIZER_REPORTS)]
    tokenizer = train_tokenizer(reports, settings.vocabulary_size)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A {EOS}",
        special_tokens=[(BOS, tokenizer.bos_token_id), (EOS, tokenizer.eos_token_id)],
    )
    return tokenizer


def run(context: StageContext) -> Iterator[Step]:
    """Write the small model and its tokenizer in transformers' format; nothing is trained."""
    settings = context.settings.text.embedded
    tokenizer = build_tokenizer(settings)
    with initialised_from(NAME, settings.seed):
        model = build_embedded(settings, tokenizer)
    with without_progress_bars():
        model.save_pretrained(context.out / MODEL_FOLDER)
        tokenizer.save_pretrained(context.out / MODEL_FOLDER)
    yield Step(1, 1, {})


def load_reader(context: StageContext) -> ReportReader:
    """Return the text model of a stage that declares `text` and, if embedded, reads `clip_text`.

    Raises InputError if the configured folder holds no CLIP text encoder with its tokenizer.
    """
    settings = context.settings.text
    if settings.is_embedded:
        folder = context.inputs[NAME] / MODEL_FOLDER
    else:
        folder = require(WEIGHT, settings.source)
    try:
        with without_progress_bars():
            tokenizer = _tokenizer(folder)
            model = CLIPTextModel.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, dtype=torch.float32
            )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"text.source={settings.source}: no CLIP text encoder with tokenizer can be read "
            f"there ({reason}); see `namd weights`, or set text.source to embedded"
        ) from error
    return ReportReader(model, tokenizer, context.world.device)


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    if (folder / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    own = (folder / "vocab.json").is_file()
    place = folder if own else folder.parent / "tokenizer"
    return CLIPTokenizer.from_pretrained(place, local_files_only=True)
