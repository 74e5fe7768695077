"""External weights are found in the real folder formats, and refused where unsafe or broken."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    CLIPTextConfig,
    CLIPTextModel,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    PreTrainedTokenizerFast,
)

from namd.config.errors import InputError
from namd.config.parsing import to_mapping
from namd.methods.namd.method import METHOD
from namd.models import weights
from namd.models.settings import UNetArchitecture, VAEArchitecture
from namd.models.unet import build_unet
from namd.models.vae import build_vae, load_diffusers
from namd.models.weights import describe, examine, locate, require, status_of
from namd.models.weights_settings import WEIGHTS, ExternalWeight
from namd.pipeline.run_configuration import resolve

GEMMA = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}


def tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)


def tiny_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=4,
        cross_attention_dim=8,
    )


def tiny_clip() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=16,
        )
    )


def tiny_gemma() -> Gemma3ForCausalLM:
    return Gemma3ForCausalLM(Gemma3TextConfig(**GEMMA))


def tiny_medgemma() -> Gemma3ForConditionalGeneration:
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = Gemma3Config(
        text_config=GEMMA, vision_config=vision, mm_tokens_per_image=4, image_token_index=31
    )
    return Gemma3ForConditionalGeneration(config)


def save_tokenizer(folder: Path) -> None:
    words = Tokenizer(WordLevel({"[UNK]": 0, "nodule": 1}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(folder)


@pytest.fixture
def bare(tmp_path, monkeypatch) -> Path:
    """A machine without any weights, but with the named root for local folders."""
    (tmp_path / "start").mkdir()
    monkeypatch.chdir(tmp_path / "start")
    monkeypatch.setenv("NAMD_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def vae_folder(tmp_path) -> Path:
    tiny_vae().save_pretrained(tmp_path / "sd" / "vae")
    return tmp_path / "sd"


def put_in_cache(hub: Path, weight: ExternalWeight, model: torch.nn.Module) -> Path:
    """Lay a model out as the Hugging Face cache does."""
    repository = hub / f"models--{weight.repository.replace('/', '--')}"
    folder = repository / "snapshots" / "0a1b" / weight.subfolder
    model.save_pretrained(folder)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0a1b")
    return folder


@pytest.mark.parametrize(
    ("name", "part", "build", "model_class"),
    [
        ("sd15-vae", "vae", tiny_vae, AutoencoderKL),
        ("sd15-unet", "unet", tiny_unet, UNet2DConditionModel),
    ],
)
def test_diffusers_folder_is_found_and_loads_the_saved_tensors(
    bare, name, part, build, model_class
):
    saved = build()
    pipeline = bare / "my sd15"
    saved.save_pretrained(pipeline / part)

    found = locate(name, str(pipeline))

    assert found == pipeline / part
    loaded = load_diffusers(model_class, pipeline, part)
    for key, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_a_folder_that_is_the_model_itself_is_found_too(bare, vae_folder):
    assert locate("sd15-vae", str(vae_folder / "vae")) == vae_folder / "vae"


@pytest.mark.parametrize("build", [tiny_gemma, tiny_medgemma], ids=["text only", "with images"])
def test_gemma_folder_is_found_and_gives_the_same_logits(bare, build):
    saved = build().eval()
    folder = bare / "weights" / "medgemma-1.5-4b-it"
    saved.save_pretrained(folder)
    save_tokenizer(folder)

    assert locate("medgemma") == folder
    loaded = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    tokens = torch.tensor([[2, 5, 7, 1]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, saved(tokens).logits)


def test_gemma_without_its_tokenizer_is_refused(bare):
    folder = bare / "weights" / "medgemma-1.5-4b-it"
    tiny_gemma().save_pretrained(folder)
    assert locate("medgemma") is None
    assert "tokenizer" in status_of("medgemma").problem
    save_tokenizer(folder)
    assert locate("medgemma") == folder


def test_clip_is_found_beside_its_tokenizer(bare):
    pipeline = bare / "weights" / "stable-diffusion-v1-5"
    tiny_clip().save_pretrained(pipeline / "text_encoder")
    assert locate("clip-text") is None
    (pipeline / "tokenizer").mkdir()
    (pipeline / "tokenizer" / "vocab.json").write_text("{}")
    assert locate("clip-text") == pipeline / "text_encoder"


def test_the_hugging_face_cache_is_searched(bare):
    assert locate("sd15-unet") is None
    folder = put_in_cache(bare / "hub", WEIGHTS["sd15-unet"], tiny_unet())
    assert locate("sd15-unet") == folder
    assert locate("sd15-unet", WEIGHTS["sd15-unet"].repository) == folder
    assert locate("sd15-unet", "somebody/else") is None


@pytest.mark.parametrize("as_hub_name", [True, False], ids=["hub name", "folder"])
def test_vae_and_unet_are_built_from_a_hub_name_as_from_a_folder(bare, as_hub_name):
    vae, unet = tiny_vae(), tiny_unet()
    name = WEIGHTS["sd15-vae"].repository if as_hub_name else str(bare / "sd")
    if as_hub_name:
        put_in_cache(bare / "hub", WEIGHTS["sd15-vae"], vae)
        unet.save_pretrained(locate("sd15-vae", name).parent / "unet")
    else:
        vae.save_pretrained(bare / "sd" / "vae")
        unet.save_pretrained(bare / "sd" / "unet")
    built = build_vae(VAEArchitecture(weights=name, dropout=0.0))
    for key, value in vae.state_dict().items():
        assert torch.equal(built.autoencoder.state_dict()[key], value), key
    network = build_unet(UNetArchitecture(weights=name), 4, 4, 8, 8)
    assert torch.equal(network.conv_in.weight, unet.conv_in.weight)
    with pytest.raises(InputError, match="somebody/else"):
        build_vae(VAEArchitecture(weights="somebody/else"))


def test_a_revision_of_a_hub_name_is_its_own(bare):
    put_in_cache(bare / "hub", WEIGHTS["sd15-vae"], tiny_vae())
    repository = WEIGHTS["sd15-vae"].repository
    assert locate("sd15-vae", repository, "0a1b") is not None
    assert locate("sd15-vae", repository, "ffff") is None


def test_a_language_model_of_another_kind_is_taken_where_it_is_named(bare):
    folder = bare / "other"
    tiny_gemma().save_pretrained(folder)
    save_tokenizer(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    assert locate("medgemma", str(folder)) == folder
    assert locate("sd15-vae", str(folder)) is None


def test_sharded_weights_need_every_shard(bare):
    folder = bare / "weights" / "medgemma-1.5-4b-it"
    tiny_gemma().save_pretrained(folder, max_shard_size="4KB")
    save_tokenizer(folder)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert locate("medgemma") == folder
    shards[-1].unlink()
    assert status_of("medgemma").problem.endswith(f"no {shards[-1].name}")


def test_pickled_weights_are_refused_and_the_same_weights_as_safetensors_are_not(bare, vae_folder):
    assert locate("sd15-vae", str(vae_folder)) is not None
    (vae_folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(tiny_vae().state_dict(), vae_folder / "vae" / "diffusion_pytorch_model.bin")

    with pytest.raises(InputError, match=r"pickled weights \(diffusion_pytorch_model.bin\)"):
        require("sd15-vae", str(vae_folder))
    with pytest.raises(InputError, match="pickle"):
        load_diffusers(AutoencoderKL, vae_folder, "vae")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda data: data[: len(data) // 2], "cut short"),
        (lambda _: b"version https git-lfs\noid sha256:00\nsize 12\n", "Git LFS pointer"),
        (lambda _: b"", "no safetensors file"),
    ],
)
def test_broken_safetensors_are_refused(bare, vae_folder, spoil, problem):
    path = vae_folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    assert problem in examine(vae_folder / "vae", WEIGHTS["sd15-vae"])


def test_another_model_in_the_folder_is_refused(bare, vae_folder):
    problem = examine(vae_folder / "vae", WEIGHTS["sd15-unet"])
    assert problem == "config.json describes AutoencoderKL, not UNet2DConditionModel"
    assert examine(vae_folder / "vae", WEIGHTS["sd15-vae"]) == ""


def test_a_named_folder_that_fails_is_not_silently_replaced_by_another(bare):
    tiny_vae().save_pretrained(bare / "weights" / "stable-diffusion-v1-5" / "vae")
    assert locate("sd15-vae") is not None
    assert locate("sd15-vae", "weights/stable-diffusion-v1-5") is not None
    assert locate("sd15-vae", str(bare / "typo")) is None
    assert locate("sd15-vae", "weights/stable-diffusion-v1.5") is None


def whole(preset: str, *overrides: str) -> dict[str, object]:
    return to_mapping(resolve(preset, None, overrides).config)


def read_by_stages(preset: str) -> set[str]:
    """Return the paths of weights that some stage of a preset reads once all of them are wanted."""
    switches = ["perceptual.source=lpips", "evaluate.lpips=alex", "evaluate.fid=inception"]
    stages = resolve(preset, overrides=switches).stages()
    return {path for stage in stages for path in stage.weights}


@pytest.mark.parametrize("preset", METHOD.presets)
def test_a_preset_lists_only_weights_that_a_stage_of_it_reads(preset):
    listed = describe(whole(preset))
    assert listed
    paths = {WEIGHTS[status.name].config_path for status in listed}
    assert paths <= read_by_stages(preset)
    every = {status.name for status in describe()}
    unread = {"flux", "sd15-clip"} | (set() if preset == "paper-authors-code" else {"clip-text"})
    assert unread <= every - {status.name for status in listed}


OF_OTHERS = {
    "paper": {"clip-text", "sd15-clip", "flux"},
    "paper-authors-code": {"sd15-clip", "flux"},
}
"""What these presets of NAMD do not read: another preset or another method does."""


def test_presets_name_the_folder_that_the_fetch_command_fills(bare):
    for preset in ("paper", "paper-authors-code"):
        config = METHOD.preset(preset)
        for weight in WEIGHTS.values():
            if weight.name in OF_OTHERS.get(preset, ()):
                assert weights.configured_value(config, weight) is None
            elif weight.config_path and weight.folder:
                assert weights.configured_value(config, weight) == weight.preset_folder
    tiny_unet().save_pretrained(bare / "start" / "weights" / "stable-diffusion-v1-5" / "unet")
    assert locate("sd15-unet", "weights/stable-diffusion-v1-5") == Path(
        "weights/stable-diffusion-v1-5/unet"
    )


def test_missing_weights_say_where_they_were_sought_and_what_to_do(bare):
    with pytest.raises(InputError) as caught:
        require("medgemma")
    message = str(caught.value)
    for part in (
        "MedGemma",
        "NAMD_WEIGHTS",
        "google/medgemma-1.5-4b-it",
        "hf download",
        "embedded",
    ):
        assert part in message
    assert "\n" not in message


def test_unknown_name_is_refused():
    with pytest.raises(InputError, match="'sd16' are unknown; known: sd15-vae"):
        locate("sd16")


def test_checkpoint_is_judged_by_the_digest_in_its_name(bare, monkeypatch):
    content = b"weights"
    name = f"vgg16-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setitem(WEIGHTS, "lpips-vgg", _named(WEIGHTS["lpips-vgg"], name))
    path = bare / "torch" / "hub" / "checkpoints" / name
    assert not weights.has_lpips_vgg()
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert weights.has_lpips_vgg()
    path.write_bytes(content + b"!")
    assert not weights.has_lpips_vgg()
    assert "broken download" in status_of("lpips-vgg").problem


def _named(weight: ExternalWeight, filename: str) -> ExternalWeight:
    return ExternalWeight(**(vars(weight) | {"filename": filename}))


@pytest.mark.parametrize("variable", ["TORCH_HOME", "XDG_CACHE_HOME", None])
def test_checkpoints_are_sought_where_torch_hub_keeps_them(monkeypatch, tmp_path, variable):
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path))
    assert weights.hub_checkpoints() == Path(torch.hub.get_dir()) / "checkpoints"


def test_checkpoint_names_are_those_of_the_libraries():
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
    from torchvision.models import AlexNet_Weights, VGG16_Weights

    def name(address: str) -> str:
        return address.rpartition("/")[2]

    assert WEIGHTS["lpips-vgg"].filename == name(VGG16_Weights.IMAGENET1K_V1.url)
    assert WEIGHTS["lpips-alex"].filename == name(AlexNet_Weights.IMAGENET1K_V1.url)
    assert WEIGHTS["inception"].filename == name(URL_INCEPTION_V3)


def test_a_preset_lists_what_it_wants(bare):
    paper = {status.name for status in describe(whole("paper"))}
    small = {status.name for status in describe(whole("small"))}
    assert paper == set(WEIGHTS) - {"clip-text", "sd15-clip", "flux"}
    authors = {status.name for status in describe(whole("paper-authors-code"))}
    assert authors == set(WEIGHTS) - {"sd15-clip", "flux"}
    assert small == {"lpips-vgg", "lpips-alex", "inception"}
    place = f"vae.architecture.weights={bare}"
    configured = whole("small", place, "vae.architecture.pixel_unshuffle=1")
    assert "sd15-vae" in {status.name for status in describe(configured)}


def test_a_configured_language_model_is_wanted_and_the_embedded_one_needs_no_weights(bare):
    def wants(source: str) -> bool:
        listed = describe(whole("small", f"language.source={source}"))
        return "medgemma" in {status.name for status in listed}

    assert wants("google/medgemma-1.5-4b-it")
    assert not wants("embedded")


def test_every_weight_names_licence_command_and_fallback(bare):
    for status in describe():
        assert not status.found
        assert status.licence
        assert status.fetch
        assert status.fallback
        assert status.fallback in status.announcement
        assert json.loads(json.dumps(status.to_mapping()))["name"] == status.name


def test_command_prints_one_json_object_without_importing_torch(bare):
    program = (
        "import sys; from namd.cli.main import main; main(['weights', '--json']);"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout.splitlines()[-1])["weights"]
    assert [entry["name"] for entry in listed] == list(WEIGHTS)
