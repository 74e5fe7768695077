"""Which CLIP text model reads the reports, and stage `clip_text`, which builds the small one."""

from collections.abc import Iterator

import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from namd.config.seeding import generator
from namd.data.records import RandomRecords
from namd.methods.base import StageContext, Step
from namd.methods.sd15.settings import EMBEDDED, EmbeddedTextSettings
from namd.models.clip_text import ReportReader, load_clip_text
from namd.models.embedded_language import BOS, EOS, number_tokens, smooth_rows, train_tokenizer
from namd.models.initialisation import initialised_from
from namd.models.language import MODEL_FOLDER, without_progress_bars
from namd.models.weights import require

NAME = "clip_text"
WEIGHT = "sd15-clip"
TOKENIZER_REPORTS = 2000


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
    """Return the text model of a stage that declares `text` and, if embedded, reads `clip_text`."""
    source = context.settings.text.source
    embedded = source == EMBEDDED
    folder = context.inputs[NAME] / MODEL_FOLDER if embedded else require(WEIGHT, source)
    return load_clip_text(
        folder, f"text.source={source}", "text.source to embedded", context.world.device
    )
