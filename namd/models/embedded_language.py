"""The embedded language model: a small Gemma 3, its tokenizer, and what it is trained to do.

Training data and files are not its business. The model reads a report up to EOS; behind EOS it
must write the same report, and there it sees EOS and what it has written, never the report. So
EOS alone carries the record, which is what the readout of soft_prompt takes.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
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
    """Return the whole numbers that are one token, each with its token id."""
    vocabulary = tokenizer.get_vocab()
    return {int(word): token for word, token in vocabulary.items() if re.fullmatch(r"\d+", word)}


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
        ids: Token ids; in place of the prefix stands padding.
        prefix: Positions that hold the random vectors.
        writes: Positions whose next token is to be predicted: the first EOS and the copy.
        blocks: 0 where BOS, prefix and report stand, 1 from the first EOS on; keys of block 0
            are hidden from queries behind EOS. 2: padding.
    """

    ids: Int[Tensor, "B L"]
    prefix: Bool[Tensor, "B L"]
    writes: Bool[Tensor, "B L"]
    blocks: Int[Tensor, "B L"]


def rewriting(
    rows: list[list[int]], prefixes: list[int], tokenizer: PreTrainedTokenizerBase
) -> Rewriting:
    """Lay out reports (token ids that end in EOS) behind prefixes of these lengths."""
    length = max(1 + n + 2 * len(row) for row, n in zip(rows, prefixes, strict=True))
    ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    prefix = torch.zeros(ids.shape, dtype=torch.bool)
    writes, blocks = prefix.clone(), torch.full_like(ids, 2)
    for i, (row, n) in enumerate(zip(rows, prefixes, strict=True)):
        eos = n + len(row)
        ids[i, 0] = tokenizer.bos_token_id
        prefix[i, 1 : 1 + n] = True
        ids[i, 1 + n : eos + 1] = torch.tensor(row)
        ids[i, eos + 1 : eos + 1 + len(row)] = torch.tensor(row)
        writes[i, eos : eos + len(row)] = True
        blocks[i, :eos] = 0
        blocks[i, eos : eos + 1 + len(row)] = 1
    return Rewriting(ids, prefix, writes, blocks)


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


def rewriting_logits(
    model: nn.Module, batch: Rewriting, vectors: Float[Tensor, "P D"]
) -> Float[Tensor, "W V"]:
    """Return logits at the positions that write, in row order.

    Args:
        model: The embedded model with its head.
        batch: Layout.
        vectors: What stands at the prefix positions, in row order.
    """
    embedded = model.get_input_embeddings()(batch.ids)
    embedded = embedded.masked_scatter(batch.prefix[..., None], vectors.to(embedded.dtype))
    bias = torch.zeros(1, dtype=embedded.dtype, device=embedded.device)
    mask = bottleneck_mask(batch.blocks)
    bias = torch.where(mask, bias, torch.finfo(embedded.dtype).min)
    states = model.model(
        inputs_embeds=embedded, attention_mask={"full_attention": bias}, use_cache=False
    ).last_hidden_state
    return model.lm_head(states[batch.writes])
