"""The embedded language model: a small Gemma 3, its tokenizer, and what it is trained to do.

Training data and files are not its business. The model reads a report up to EOS; behind EOS it
must write the same report, and there it sees EOS and what it has written, never the report. So
EOS alone carries the record, which is what the readout of soft_prompt takes.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from namd.models.language_settings import EmbeddedLanguageSettings

PAD, EOS, BOS = "<pad>", "<eos>", "<bos>"
"""In Gemma's order: ids 0, 1, 2."""

LARGEST_NUMBER = 120
"""Whole numbers up to here are one token each: years and millimetres."""

CLAUSE_STARTS = " (?=with |and |in the |is |mm |years |male|female|patient)"


def train_tokenizer(reports: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on reports; any text can be spelled, a clause is about one token.

    Numbers, punctuation and clauses are never joined, so a clause has the same tokens wherever
    it stands, and a whole number is one token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=False),
            pre_tokenizers.Split(Regex("[.,]"), "isolated"),
            pre_tokenizers.Split(Regex(CLAUSE_STARTS), "merged_with_next"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[PAD, EOS, BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    numbers = [str(number) for number in range(LARGEST_NUMBER + 1)] * 3
    tokenizer.train_from_iterator([*numbers, *reports], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, bos_token=BOS
    )


def number_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, int]:
    """Return the whole numbers that are one token, ascending, each with its token id.

    Sorted because a tokenizer lists its vocabulary in another order each time, and sums over it
    would differ in their last bit.
    """
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    found = {int(word): token for word, token in vocabulary if re.fullmatch(r"[0-9]+", word)}
    return dict(sorted(found.items()))


def build_embedded(
    settings: EmbeddedLanguageSettings, tokenizer: PreTrainedTokenizerBase
) -> Gemma3ForCausalLM:
    """Build the small Gemma 3 with random weights; embeddings and output are tied.

    Whole numbers start from embeddings that vary smoothly with the number: near numbers are
    near, which a table of unrelated rows would have to learn from counts.
    """
    head_dim = settings.hidden_size // settings.num_heads
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        num_key_value_heads=1,
        head_dim=head_dim,
        query_pre_attn_scalar=head_dim,
        max_position_embeddings=2048,
        layer_types=["full_attention"] * settings.num_layers,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        initializer_range=settings.hidden_size**-0.5,
    )
    model = Gemma3ForCausalLM(config)
    tokens = number_tokens(tokenizer)
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        rows = smooth_rows(torch.tensor(list(tokens)), settings.hidden_size)
        table[torch.tensor(list(tokens.values()))] = rows * table.std()
    return model


def smooth_rows(numbers: Int[Tensor, " N"], width: int) -> Float[Tensor, "N width"]:
    """Return rows of unit variance in which near numbers are near: sines of periods 8 to 512."""
    half = width // 2
    periods = torch.logspace(3, 9, half, base=2.0)
    angles = 2 * torch.pi * numbers[:, None].float() / periods
    rows = torch.cat([angles.sin(), angles.cos(), torch.zeros(len(numbers), width - 2 * half)], 1)
    return rows * 2**0.5


@dataclass(frozen=True)
class Rewriting:
    """A batch for the model to rewrite: BOS, prefix, report, EOS, report, EOS, padding.

    Attributes:
        ids: Token ids.
        scale: Factor on each embedding: random in the prefix, 1 elsewhere.
        writes: Positions whose next token is to be predicted: the first EOS and the copy.
        blocks: 0 where BOS, prefix and report stand, 1 from the first EOS on, 2: padding.
    """

    ids: Int[Tensor, "B L"]
    scale: Float[Tensor, "B L"]
    writes: Bool[Tensor, "B L"]
    blocks: Int[Tensor, "B L"]

    @property
    def targets(self) -> Int[Tensor, " W"]:
        """The tokens to be written, in row order."""
        return torch.roll(self.ids, -1, dims=1)[self.writes]

    def to(self, device: str) -> "Rewriting":
        """Return the batch on a device."""
        return Rewriting(*(getattr(self, f.name).to(device) for f in fields(self)))


def rewriting(
    reports: list[list[int]],
    prefixes: list[list[int]],
    scales: list[list[float]],
    tokenizer: PreTrainedTokenizerBase,
) -> Rewriting:
    """Lay out reports (token ids that end in EOS) behind prefixes (token ids, scaled)."""
    shapes = [(len(prefix), len(report)) for prefix, report in zip(prefixes, reports, strict=True)]
    length = max(1 + n + 2 * k for n, k in shapes)
    ids = torch.full((len(shapes), length), tokenizer.pad_token_id)
    scale = torch.ones(ids.shape)
    writes, blocks = torch.zeros(ids.shape, dtype=torch.bool), torch.full_like(ids, 2)
    for i, (n, k) in enumerate(shapes):
        row = [tokenizer.bos_token_id, *prefixes[i], *reports[i], *reports[i]]
        ids[i, : len(row)] = torch.tensor(row)
        scale[i, 1 : 1 + n] = torch.tensor(scales[i])
        writes[i, n + k : n + 2 * k] = True
        blocks[i, : n + k] = 0
        blocks[i, n + k : len(row)] = 1
    return Rewriting(ids, scale, writes, blocks)


def bottleneck_mask(blocks: Int[Tensor, "B L"]) -> Bool[Tensor, "B 1 L L"]:
    """Return who may look where: never ahead, and from behind EOS never before EOS.

    EOS itself looks at all before it. Padding looks at everything before it, unread.
    """
    length = blocks.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=blocks.device).tril()
    copies = (blocks == 1) & torch.roll(blocks == 1, 1, dims=1)
    copies[:, 0] = False
    hidden = copies[:, :, None] & (blocks == 0)[:, None, :]
    return (causal & ~hidden)[:, None]


def rewriting_logits(model: Gemma3ForCausalLM, batch: Rewriting) -> Float[Tensor, "W V"]:
    """Return logits of the tokens to be written, in row order."""
    embedded = model.get_input_embeddings()(batch.ids) * batch.scale[..., None]
    lowest = torch.finfo(embedded.dtype).min
    bias = torch.zeros((), device=embedded.device).where(bottleneck_mask(batch.blocks), lowest)
    states = model.model(
        inputs_embeds=embedded, attention_mask={"full_attention": bias}, use_cache=False
    ).last_hidden_state
    return model.lm_head(states[batch.writes])


def number_smoothing(tokenizer: PreTrainedTokenizerBase, width: float) -> Float[Tensor, "V V"]:
    """Return the target distribution of each token: itself, or for a number its neighbours too.

    A Gaussian of that width, in units, over whole numbers: being one year off is a smaller error
    than forty, so the state must hold the number and not only its name. Width 0: the identity.
    """
    targets = torch.eye(len(tokenizer))
    if not width:
        return targets
    tokens = number_tokens(tokenizer)
    numbers = torch.tensor(list(tokens), dtype=torch.float32)
    ids = torch.tensor(list(tokens.values()))
    near = torch.exp(-((numbers[:, None] - numbers) ** 2) / (2 * width**2))
    targets[ids[:, None], ids] = near / near.sum(dim=1, keepdim=True)
    return targets
