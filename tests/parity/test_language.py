"""Soft prompts of length 0 equal transformers' own hidden states, for every folder format."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import (
    AutoModel,
    AutoTokenizer,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    SiglipVisionConfig,
)

from namd.config.errors import InputError
from namd.models.embedded_language import train_tokenizer
from namd.models.initialisation import initialised_from
from namd.models.language import build_context, context_width, load_context, load_language_model
from namd.models.language_settings import LanguageSettings, LoRASettings, SoftPromptSettings
from namd.models.soft_prompt import SoftPromptContext

REPORTS = ["A nodule 9 mm in size is present.", "A part solid nodule is present in the lingula."]
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}


def gemma(size):
    return Gemma3ForCausalLM(Gemma3TextConfig(vocab_size=size, **TEXT))


def llama(size):
    return LlamaForCausalLM(LlamaConfig(vocab_size=size, **TEXT))


def medgemma(size):
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    text = Gemma3TextConfig(vocab_size=size, **TEXT)
    return Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    )


@pytest.fixture(params=[gemma, llama, medgemma], ids=lambda made: made.__name__)
def folder(request, tmp_path):
    tokenizer = train_tokenizer(REPORTS * 3, 600)
    with initialised_from("test-language", 1):
        model = request.param(len(tokenizer))
    model.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    return tmp_path / "lm"


def build(folder, m=2, n=0, seed=0):
    settings = LanguageSettings(source=str(folder))
    return build_context(settings, SoftPromptSettings(m, n), LoRASettings(), "eos", None, seed)


def plain_state(folder, report):
    """The state at EOS by transformers alone, one report at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    ids = [tokenizer.bos_token_id, *tokenizer(report)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        output = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    return output.hidden_states[-1][0, -1]


def test_no_prompts_equal_the_plain_model(folder):
    states = build(folder)(REPORTS)
    for report, state in zip(REPORTS, states, strict=True):
        for one in state:
            torch.testing.assert_close(one, plain_state(folder, report), atol=1e-5, rtol=1e-5)


def test_twin_with_prompts_the_state_differs(folder):
    with torch.no_grad():
        state = build(folder, 1, 4)(REPORTS)[0, 0]
    assert (state - plain_state(folder, REPORTS[0])).abs().max() > 0.05


def test_words_as_prompts_equal_the_same_words_as_ids(folder):
    """Prompts enter as embeddings of the module, which Gemma scales; scaled again they differ."""
    made = build(folder, 1, 3)
    model, tokens = made.model, made.tokens
    words = torch.tensor([[300, 301, 302]])
    ids = torch.tensor([tokens.start + words[0].tolist() + tokens.of(REPORTS[:1])[0]])
    with torch.no_grad():
        expected = model(input_ids=ids).last_hidden_state[0, -1]
        made.prompts.copy_(model.get_input_embeddings()(words))
        torch.testing.assert_close(made(REPORTS[:1])[0, 0], expected, atol=1e-5, rtol=1e-5)
        made.prompts.mul_(32**0.5)
        assert (made(REPORTS[:1])[0, 0] - expected).abs().max() > 0.05


def test_width_is_known_without_reading_the_weights(folder, monkeypatch):
    monkeypatch.setattr("namd.models.language.AutoModel", None)
    assert context_width(LanguageSettings(source=str(folder))) == 32
    with pytest.raises(InputError, match="absent"):
        context_width(LanguageSettings(source=str(folder / "absent")))


def test_bf16_holds_the_model_and_keeps_prompts_in_fp32(folder):
    settings = LanguageSettings(source=str(folder), dtype="bf16")
    made = build_context(settings, SoftPromptSettings(1, 2), LoRASettings(), "eos", None, 0)
    assert made.model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert made.prompts.dtype == torch.float32
    made(REPORTS).float().sum().backward()
    assert made.prompts.grad.abs().sum() > 0


@pytest.mark.parametrize("lora", [LoRASettings(), LoRASettings(rank=2)], ids=["prompts", "lora"])
def test_trained_part_round_trip(folder, tmp_path, lora):
    from safetensors.torch import save_file

    settings, prompts = LanguageSettings(source=str(folder)), SoftPromptSettings(2, 3)
    made = build_context(settings, prompts, lora, "eos", None, 7)
    with torch.no_grad():
        for value in made.adapter_state().values():
            value.add_(0.1)
    state = {name: value.contiguous() for name, value in made.adapter_state().items()}
    save_file(state, tmp_path / "adapter.safetensors")
    loaded = load_context(settings, prompts, lora, "eos", None, tmp_path / "adapter.safetensors")
    assert not any(p.requires_grad for p in loaded.parameters())
    assert torch.equal(loaded(REPORTS), made(REPORTS))
    other = LoRASettings(rank=3 if lora.rank else 0)
    path = tmp_path / "adapter.safetensors"
    with pytest.raises(InputError, match=r"adapter\.safetensors"):
        load_context(settings, SoftPromptSettings(2, 4), other, "eos", None, path)


def test_missing_model_names_path_command_and_fallback(tmp_path, folder):
    for source, command in (
        (str(tmp_path / "absent"), "hf download google/medgemma-1.5-4b-it"),
        ("some-owner/absent-model", "hf download some-owner/absent-model"),
    ):
        with pytest.raises(InputError) as refused:
            load_language_model(LanguageSettings(source=source))
        message = str(refused.value)
        assert source in message
        assert command in message
        assert "language.source to embedded" in message
        assert "\n" not in message
    assert load_language_model(LanguageSettings(source=str(folder))).tokenizer.eos_token_id == 1


def test_pickled_weights_are_refused(folder):
    from safetensors.torch import load_file

    (weights,) = folder.glob("*.safetensors")
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(InputError, match="safetensors"):
        load_language_model(LanguageSettings(source=str(folder)))


def test_code_beside_the_weights_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "foreign", "auto_map": {"AutoConfig": "foreign.Foreign"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "foreign.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(InputError):
        load_language_model(LanguageSettings(source=str(folder)))


def test_four_bits_need_bitsandbytes(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="bitsandbytes"):
        load_language_model(LanguageSettings(source=str(folder), quantisation="nf4"))


@pytest.mark.parametrize("kind", ["nf4", "nf4-double"])
def test_prompts_learn_through_four_bits(folder, kind):
    pytest.importorskip("bitsandbytes")
    settings = LanguageSettings(source=str(folder), quantisation=kind)
    exact, held = (
        load_language_model(s) for s in (replace(settings, quantisation="none"), settings)
    )
    states = [
        layer.weight.quant_state for layer in held.model.modules() if hasattr(layer, "quant_state")
    ]
    assert states
    assert {state.quant_type for state in states} == {"nf4"}
    assert {state.nested for state in states} == {kind == "nf4-double"}
    made = [
        SoftPromptContext(each.model, each.tokenizer, SoftPromptSettings(2, 3), seed=1)
        for each in (exact, held)
    ]
    full, four = (context(REPORTS) for context in made)
    # 4 bits are not exact, and not noise.
    assert 0 < (full - four).abs().mean() < 0.5 * full.std()
    four.square().sum().backward()
    assert made[1].prompts.grad.abs().sum(dim=(1, 2)).min() > 0


def test_context_takes_a_model_in_memory(folder):
    language = load_language_model(LanguageSettings(source=str(folder)))
    made = SoftPromptContext(language.model, language.tokenizer, SoftPromptSettings(2, 0))
    with torch.no_grad():
        assert torch.equal(made(REPORTS), build(folder)(REPORTS))
