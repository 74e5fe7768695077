"""Which language model reads the report, and what is trained around it. Torch-free."""

from dataclasses import dataclass, field
from typing import Literal

EMBEDDED = "embedded"
"""The word for the small language model that the project trains itself."""

Readout = Literal["eos", "last_text"]
"""Token whose state is read: the end of sequence, or the last token of the text."""


@dataclass(frozen=True)
class EmbeddedLanguageSettings:
    """The small Gemma 3 of the project's own, and its training on random reports.

    Attributes:
        hidden_size: Width D of the states.
        num_layers: Decoder layers.
        num_heads: Query heads; one key-value head serves them all.
        intermediate_size: Width of the gated MLP.
        vocabulary_size: Upper limit of the byte-level BPE's vocabulary.
        num_steps: Optimiser steps.
        batch_size: Reports per step.
        learning_rate: Peak of AdamW's rate; cosine to a tenth.
        warmup_steps: Linear warm-up; at most a tenth of the steps is used.
        max_prefix: Up to this many random vectors stand between BOS and a training report, so
            that the model reads behind soft prompts as well as without.
        number_smoothing: Width, in years or mm, of the targets where a number is written.
        words_weight: Weight of naming the report's words from EOS, beside rewriting it.
        probe_records: Records that the linear probes are fitted on; as many are held out.
        checkpoint_every: Steps between checkpoints.
    """

    hidden_size: int = 96
    num_layers: int = 3
    num_heads: int = 4
    intermediate_size: int = 192
    vocabulary_size: int = 1024
    num_steps: int = 600
    batch_size: int = 64
    learning_rate: float = 3e-3
    warmup_steps: int = 60
    max_prefix: int = 16
    number_smoothing: float = 0.7
    words_weight: float = 1.0
    probe_records: int = 1000
    checkpoint_every: int = 250

    def __post_init__(self) -> None:
        """Reject shapes and lengths that cannot be built or trained."""
        if min(self.hidden_size, self.num_layers, self.num_heads, self.intermediate_size) < 1:
            raise ValueError("hidden_size, num_layers, num_heads, intermediate_size are 1 or more")
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of twice num_heads "
                f"{self.num_heads}: rotary positions turn pairs"
            )
        if self.vocabulary_size < 512:
            raise ValueError(
                f"vocabulary_size is 512 or more (256 bytes and the report's words), "
                f"not {self.vocabulary_size}"
            )
        if min(self.num_steps, self.warmup_steps, self.max_prefix) < 0:
            raise ValueError("num_steps, warmup_steps, max_prefix are 0 or more")
        if min(self.batch_size, self.checkpoint_every) < 1:
            raise ValueError("batch_size and checkpoint_every are 1 or more")
        if self.probe_records < 100:
            raise ValueError(f"probe_records is 100 or more, not {self.probe_records}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is above 0, not {self.learning_rate}")
        if min(self.number_smoothing, self.words_weight) < 0:
            raise ValueError(
                f"number_smoothing and words_weight are 0 or more, not {self.number_smoothing}, "
                f"{self.words_weight}"
            )


@dataclass(frozen=True)
class LanguageSettings:
    """The frozen language model.

    Attributes:
        source: `embedded`, a folder in transformers' format, or a hub name
            (`google/medgemma-1.5-4b-it`). Weights are read as safetensors only, and no code
            that comes with them is run.
        revision: Commit of a hub name; None: the default branch.
        dtype: Of the frozen weights and their states inside the model.
        quantisation: `nf4` holds the weights in 4 bits through bitsandbytes, `nf4-double` their
            block constants in 8 bits as well (NAMD's released code).
        seed: Of the embedded model's training; one for all training seeds.
        embedded: Shape and training of the embedded model.
    """

    source: str = EMBEDDED
    revision: str | None = None
    dtype: Literal["fp32", "bf16"] = "fp32"
    quantisation: Literal["none", "nf4", "nf4-double"] = "none"
    seed: int = 0
    embedded: EmbeddedLanguageSettings = field(default_factory=EmbeddedLanguageSettings)

    def __post_init__(self) -> None:
        """Reject an empty source and 4 bits for a model that has no use for them."""
        if not self.source:
            raise ValueError("source is `embedded`, a folder or a hub name, not empty")
        if self.is_embedded and self.quantisation != "none":
            raise ValueError(f"quantisation {self.quantisation} is for large models, not embedded")

    @property
    def packages(self) -> dict[str, str]:
        """Python packages beside those of the lock that reading the model needs.

        Each with the line for a machine that lacks it.
        """
        if self.quantisation == "none":
            return {}
        return {
            "bitsandbytes": (
                f"language.quantisation={self.quantisation} needs the package bitsandbytes: "
                "`pip install bitsandbytes` (4 bits work on CPUs too), or set "
                "language.quantisation=none, which holds the weights in language.dtype"
            )
        }

    @property
    def is_embedded(self) -> bool:
        """Whether stage `language` trains the model."""
        return self.source == EMBEDDED


@dataclass(frozen=True)
class SoftPromptSettings:
    """m sets of n prompt vectors (Eq 7). m = 0: one plain readout; n = 0: m plain readouts."""

    num_sets: int = 2
    num_vectors: int = 8

    def __post_init__(self) -> None:
        """Reject negative counts."""
        if min(self.num_sets, self.num_vectors) < 0:
            raise ValueError(
                f"counts are 0 or more, not {self.num_sets} sets of {self.num_vectors}"
            )


@dataclass(frozen=True)
class LoRASettings:
    """Low-rank adapters on the language model, instead of soft prompts. rank 0: off.

    The m readouts are then plain and equal: the shape of C stays, the prompts go.
    """

    rank: int = 0
    alpha: float = 16.0
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")

    def __post_init__(self) -> None:
        """Reject a negative rank and adapters without a place."""
        if self.rank < 0:
            raise ValueError(f"rank is 0 or more, not {self.rank}")
        if self.alpha <= 0:
            raise ValueError(f"alpha is above 0, not {self.alpha}")
        if self.rank and not self.target_modules:
            raise ValueError("target_modules names at least one module where rank is above 0")
