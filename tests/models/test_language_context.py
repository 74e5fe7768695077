"""Laws of the context around a frozen language model, each with a twin that must fail."""

import pytest
import torch

from namd.config.seeding import generator
from namd.data.records import RandomRecords
from namd.models.embedded_language import build_embedded, train_tokenizer
from namd.models.initialisation import initialised_from
from namd.models.language_settings import (
    EmbeddedLanguageSettings,
    LoRASettings,
    SoftPromptSettings,
)
from namd.models.soft_prompt import ReportTokens, SoftPromptContext

SHAPE = EmbeddedLanguageSettings(hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64)
SHORT = "A nodule is present."
LONG = (
    "Lung cancer screening with low dose computed tomography performed for this 68 years old male "
    "with prior diagnosis of emphysema. A part solid nodule, with spiculated margin, 27 mm in size "
    "is present in the right lower lobe."
)


def random_reports(count, seed=0):
    rng, records = generator("test-reports", seed), RandomRecords()
    return [records.report(records.draw(rng), rng) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(random_reports(300), 600)


@pytest.fixture
def model(tokenizer):
    with initialised_from("test-language", 0):
        return build_embedded(SHAPE, tokenizer).model


def context(model, tokenizer, m=2, n=3, **options):
    return SoftPromptContext(model, tokenizer, SoftPromptSettings(m, n), **options)


@pytest.mark.parametrize(("m", "n", "sets"), [(2, 3, 2), (1, 3, 1), (0, 3, 1), (3, 0, 3)])
def test_shape_is_one_state_per_set(model, tokenizer, m, n, sets):
    states = context(model, tokenizer, m, n)([SHORT, LONG])
    assert states.shape == (2, sets, SHAPE.hidden_size)


def test_prompts_get_gradient_and_the_model_none(model, tokenizer):
    made = context(model, tokenizer)
    made.train()
    made([SHORT, LONG]).square().sum().backward()
    assert made.prompts.grad.abs().sum(dim=(1, 2)).min() > 0
    assert all(p.grad is None for p in model.parameters())
    assert list(made.adapter_state()) == ["prompts"]


def test_model_stays_in_eval_mode_while_the_rest_trains(model, tokenizer):
    made = context(model, tokenizer).train()
    assert made.training
    assert not any(part.training for part in made.model.modules())


def test_padding_changes_no_state(model, tokenizer):
    made = context(model, tokenizer)
    with torch.no_grad():
        alone, padded = made([SHORT]), made([SHORT, LONG])[:1]
    torch.testing.assert_close(alone, padded, atol=1e-5, rtol=1e-5)


def test_twin_reading_at_the_last_position_is_changed_by_padding(model, tokenizer):
    made = context(model, tokenizer)
    ids, lengths = made.tokens.padded(made.tokens.of([SHORT, LONG]))
    whole = torch.full_like(lengths, ids.shape[1])
    with torch.no_grad():
        alone, padded = (
            made([SHORT])[:, 0],
            made._read(ids, whole, made.prompts[:1].expand(2, -1, -1)),
        )
    assert (alone - padded[:1]).abs().max() > 0.1


def test_sets_in_one_batch_equal_sets_one_by_one_in_order(model, tokenizer):
    made = context(model, tokenizer, m=3)
    single = context(model, tokenizer, m=1)
    with torch.no_grad():
        together = made([SHORT, LONG])
        for number in range(3):
            single.prompts.copy_(made.prompts[number : number + 1])
            torch.testing.assert_close(
                single([SHORT, LONG])[:, 0], together[:, number], atol=1e-5, rtol=1e-5
            )
    assert (together[:, 0] - together[:, 1]).abs().max() > 0.1


def test_order_of_reports_is_kept(model, tokenizer):
    made = context(model, tokenizer)
    with torch.no_grad():
        torch.testing.assert_close(
            made([SHORT, LONG]), made([LONG, SHORT]).flip(0), atol=1e-5, rtol=1e-5
        )


def test_prompts_start_from_scaled_vocabulary_rows(model, tokenizer):
    made = context(model, tokenizer)
    rows = made.prompts.detach().flatten(0, 1)
    scaled = model.get_input_embeddings().weight.detach() * SHAPE.hidden_size**0.5

    def farthest(table):
        return (rows[:, None] - table[None]).norm(dim=-1).min(dim=1).values.max()

    assert farthest(scaled) < 1e-5
    assert farthest(scaled * SHAPE.hidden_size**0.5) > 1


def test_prompts_follow_their_seed(model, tokenizer):
    first, again, other = (context(model, tokenizer, seed=seed).prompts for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_last_text_reads_one_token_earlier(model, tokenizer):
    made = context(model, tokenizer, 1, 0, readout="last_text")
    ids = made.tokens.start + made.tokens.of([SHORT])[0]
    with torch.no_grad():
        states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        read = made([SHORT])[0, 0]
    torch.testing.assert_close(read, states[-2], atol=1e-5, rtol=1e-5)
    assert (read - states[-1]).abs().max() > 0.1


def test_lora_trains_adapters_only_and_starts_as_the_plain_model(model, tokenizer):
    with torch.no_grad():
        plain = context(model, tokenizer, 2, 0)([LONG])
    made = context(model, tokenizer, lora=LoRASettings(rank=2))
    with torch.no_grad():
        torch.testing.assert_close(made([LONG]), plain, atol=1e-5, rtol=1e-5)
    made([LONG]).square().sum().backward()
    trained = {name for name, p in made.named_parameters() if p.grad is not None}
    assert trained == set(made.adapter_state())
    assert all("lora_" in name for name in trained)
    assert made.prompts is None


def test_adapter_state_round_trip(model, tokenizer):
    first, second = context(model, tokenizer, seed=1), context(model, tokenizer, seed=2)
    second.load_adapter_state(first.adapter_state())
    with torch.no_grad():
        assert torch.equal(first([LONG]), second([LONG]))


def test_adapter_state_of_another_shape_is_refused(model, tokenizer):
    with pytest.raises(RuntimeError):
        context(model, tokenizer, 2, 3).load_adapter_state(
            context(model, tokenizer, 2, 4).adapter_state()
        )


def test_tokens_end_in_eos_and_pad_on_the_right(tokenizer):
    tokens = ReportTokens(tokenizer)
    rows = tokens.of([SHORT, LONG])
    ids, lengths = tokens.padded(rows)
    assert ids[0, lengths[0] - 1] == tokenizer.eos_token_id
    assert (ids[0, lengths[0] :] == tokenizer.pad_token_id).all()
    assert tokens.of([SHORT, LONG], remember=False) == rows


def test_tokenizer_without_eos_is_refused(tokenizer):
    eos, tokenizer.eos_token = tokenizer.eos_token, None
    try:
        with pytest.raises(ValueError, match="end-of-sequence"):
            ReportTokens(tokenizer)
    finally:
        tokenizer.eos_token = eos
    assert ReportTokens(tokenizer).end == tokenizer.eos_token_id
