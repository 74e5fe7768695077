"""Finding and loading the frozen language model, and building the context around it.

Any decoder-only model in transformers' folder format is read by the same code, the embedded one
included. How it is prompted is soft_prompt's business.
"""

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from namd.config.errors import InputError
from namd.models.language_settings import (
    EMBEDDED,
    LanguageSettings,
    LoRASettings,
    Readout,
    SoftPromptSettings,
)
from namd.models.soft_prompt import SoftPromptContext
from namd.models.weights import require

MODEL_FOLDER = "model"
"""Where stage `language` leaves the embedded model, inside its artifact."""

_OPTIONS: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class LanguageModel:
    """A text model without head, and its tokenizer."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase


def load_language_model(settings: LanguageSettings, folder: Path | None = None) -> LanguageModel:
    """Return the text model and tokenizer that the settings name.

    Args:
        settings: Where the model is and how it is held.
        folder: Artifact of stage `language`; read where the source is `embedded`.

    Raises InputError if there is no readable model, or 4 bits are asked for without
    bitsandbytes.
    """
    source = _location(settings, folder)
    options = dict(_OPTIONS)
    try:
        with without_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model = AutoModel.from_pretrained(
                source,
                use_safetensors=True,
                dtype=DTYPES[settings.dtype],
                **_quantised(settings),
                **options,
            )
    except (OSError, ValueError) as error:
        raise _unreadable(source, error) from error
    return LanguageModel(text_model(model), tokenizer)


@contextlib.contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keep transformers' progress bars out of the block; the pipeline shows its own."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def text_model(model: nn.Module) -> nn.Module:
    """Return the decoder of a model that also sees (MedGemma is Gemma3ForConditionalGeneration)."""
    return getattr(model, "language_model", model)


def context_width(settings: LanguageSettings, folder: Path | None = None) -> int:
    """Return the width D of the states, from the model's configuration alone."""
    source = _location(settings, folder)
    try:
        config = AutoConfig.from_pretrained(source, **_OPTIONS)
    except (OSError, ValueError) as error:
        raise _unreadable(source, error) from error
    return int(config.get_text_config().hidden_size)


def build_context(
    settings: LanguageSettings,
    soft_prompt: SoftPromptSettings,
    lora: LoRASettings,
    readout: Readout,
    folder: Path | None,
    seed: int,
) -> SoftPromptContext:
    """Return a context with fresh prompts (or adapters) of this seed around the language model.

    `folder` is the artifact of stage `language`, None for an external model.
    """
    language = load_language_model(settings, folder)
    return SoftPromptContext(language.model, language.tokenizer, soft_prompt, lora, readout, seed)


def load_context(
    settings: LanguageSettings,
    soft_prompt: SoftPromptSettings,
    lora: LoRASettings,
    readout: Readout,
    folder: Path | None,
    adapter: Path,
) -> SoftPromptContext:
    """Return the context with the trained prompts (or adapters) of a safetensors file, frozen.

    Raises InputError if the file is not of this context.
    """
    context = build_context(settings, soft_prompt, lora, readout, folder, seed=0)
    try:
        context.load_adapter_state(load_file(adapter))
    except (KeyError, RuntimeError) as error:
        raise InputError(
            f"{adapter}: not the prompts of {soft_prompt}, {lora} ({error}); "
            "use the settings that it was trained with"
        ) from error
    return context.requires_grad_(False).eval()


def _location(settings: LanguageSettings, folder: Path | None) -> str:
    if not settings.is_embedded:
        return str(require("medgemma", settings.source, settings.revision))
    if folder is None:
        raise ValueError("the embedded language model is read from the artifact of its stage")
    if not (folder / MODEL_FOLDER / "config.json").is_file():
        raise InputError(
            f"{folder / MODEL_FOLDER}: no language model here; run stage `language` again"
        )
    return str(folder / MODEL_FOLDER)


def _quantised(settings: LanguageSettings) -> dict[str, Any]:
    if settings.quantisation == "none":
        return {}
    for package, line in settings.packages.items():
        if importlib.util.find_spec(package) is None:
            raise InputError(line)
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=settings.quantisation == "nf4-double",
        bnb_4bit_compute_dtype=DTYPES[settings.dtype],
    )
    return {"quantization_config": config}


def _unreadable(source: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:160]
    return InputError(
        f"language.source={source}: no language model with tokenizer and safetensors can be read "
        f"there ({reason}); see `namd weights`, or set language.source={EMBEDDED}"
    )
