"""Behind EOS the embedded model sees EOS and its own words, never the report."""

import dataclasses

import pytest
import torch

from namd.models.embedded_language import (
    bottleneck_mask,
    build_embedded,
    number_smoothing,
    number_tokens,
    rewriting,
    rewriting_logits,
    train_tokenizer,
)
from namd.models.initialisation import initialised_from
from namd.models.language_settings import EmbeddedLanguageSettings

SHAPE = EmbeddedLanguageSettings(hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64)
REPORTS = [
    "A part solid nodule 27 mm in size is present in the right lower lobe.",
    "A nodule 9 mm in size is present.",
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(REPORTS * 5, 600)


@pytest.fixture(scope="module")
def model(tokenizer):
    with initialised_from("test-language", 0):
        return build_embedded(SHAPE, tokenizer).eval()


@pytest.fixture
def batch(tokenizer):
    rows = [[*row, tokenizer.eos_token_id] for row in tokenizer(REPORTS)["input_ids"]]
    return rewriting(rows, [[], [300, 301]], [[], [0.5, 1.5]], tokenizer)


def test_layout_writes_the_report_again(batch, tokenizer):
    written = tokenizer.decode(batch.targets)
    assert written == "".join(f"{report}<eos>" for report in REPORTS)
    assert batch.scale[1, 1:3].tolist() == [0.5, 1.5]
    assert batch.scale.sum() == batch.scale.numel()


def test_mask_hides_the_report_from_behind_eos_but_not_from_eos(batch):
    mask = bottleneck_mask(batch.blocks)[0, 0]
    eos = int(batch.writes[0].nonzero()[0])
    assert mask[eos, : eos + 1].all()
    assert not mask[eos, eos + 1 :].any()
    assert not mask[eos + 1 :, :eos][batch.blocks[0, eos + 1 :] == 1].any()
    assert mask[eos + 1, eos]
    assert mask.any(dim=1).all()


def gradient_at(model, batch, position, *, of_eos):
    """Return how the logits behind EOS depend on the embedding at a position of report 0.

    With `of_eos` False EOS's keys and values are cut from the graph in every layer.
    """
    seen = {}

    def embed(module, args, output):
        seen["embedded"] = output.detach().requires_grad_()
        return seen["embedded"]

    eos = int(batch.writes[0].nonzero()[0])

    def cut(module, args, output):
        if of_eos:
            return output
        return torch.cat(
            [output[:, :eos], output[:, eos : eos + 1].detach(), output[:, eos + 1 :]], 1
        )

    hooks = [model.get_input_embeddings().register_forward_hook(embed)]
    for layer in model.model.layers:
        hooks += [
            part.register_forward_hook(cut)
            for part in (layer.self_attn.k_proj, layer.self_attn.v_proj)
        ]
    first = dataclasses.replace(
        batch, **{f.name: getattr(batch, f.name)[:1] for f in dataclasses.fields(batch)}
    )
    logits = rewriting_logits(model, first)
    logits[1:].square().sum().backward()
    for hook in hooks:
        hook.remove()
    return float(seen["embedded"].grad[0, position].abs().sum())


def test_report_reaches_what_is_written_through_eos_alone(model, batch):
    assert gradient_at(model, batch, 2, of_eos=True) > 1e-4
    assert gradient_at(model, batch, 2, of_eos=False) == 0


def test_twin_a_causal_mask_lets_the_report_through(model, batch, monkeypatch):
    monkeypatch.setattr(
        "namd.models.embedded_language.bottleneck_mask",
        lambda blocks: torch.ones(blocks.shape[1], blocks.shape[1], dtype=torch.bool).tril()[
            None, None
        ],
    )
    assert gradient_at(model, batch, 2, of_eos=False) > 1e-4


def test_padding_of_the_batch_changes_no_logit(model, tokenizer):
    rows = [[*row, tokenizer.eos_token_id] for row in tokenizer(REPORTS)["input_ids"]]
    both = rewriting(rows, [[300] * 9, []], [[1.0] * 9, []], tokenizer)
    alone = rewriting(rows[1:], [[]], [[]], tokenizer)
    assert (both.blocks[1, alone.blocks.shape[1] :] == 2).any()
    with torch.no_grad():
        together, one = rewriting_logits(model, both), rewriting_logits(model, alone)
    torch.testing.assert_close(together[-len(one) :], one, atol=1e-4, rtol=1e-4)


def test_a_number_is_one_token_and_a_clause_has_the_same_tokens_anywhere(tokenizer):
    assert set(range(121)) <= set(number_tokens(tokenizer))
    words = tokenizer.tokenize(REPORTS[0])
    assert "27" in words
    clause = tokenizer.tokenize(" is present in the right lower lobe")
    assert " ".join(clause) in " ".join(words)


def test_any_text_can_be_spelled(tokenizer):
    text = "Größe 3,5 cm; unknown words"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_tokenizer_is_the_same_every_time(tokenizer):
    assert train_tokenizer(REPORTS * 5, 600).get_vocab() == tokenizer.get_vocab()


def test_smoothing_is_the_same_bit_for_bit_every_time(tokenizer):
    """A tokenizer's own order of words changes from call to call; sums over it must not."""
    made = [number_smoothing(tokenizer, 0.7) for _ in range(5)]
    assert all(torch.equal(one, made[0]) for one in made)
    numbers = list(number_tokens(tokenizer))
    assert numbers == sorted(numbers)


def test_smoothing_spreads_numbers_over_their_neighbours_only(tokenizer):
    smoothed, tokens = number_smoothing(tokenizer, 0.7), number_tokens(tokenizer)
    torch.testing.assert_close(smoothed.sum(dim=1), torch.ones(len(tokenizer)))
    assert smoothed[tokens[27]].argmax() == tokens[27]
    assert smoothed[tokens[27], tokens[28]] > smoothed[tokens[27], tokens[29]] > 0
    assert smoothed[tokenizer.eos_token_id, tokenizer.eos_token_id] == 1
    assert torch.equal(number_smoothing(tokenizer, 0), torch.eye(len(tokenizer)))
