"""SD1.5: the report reaches the U-Net through a frozen CLIP; SD1.5's folder becomes 8 channels."""

import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from namd.config.errors import InputError
from namd.diffusion.conditioning import condition_on_latents
from namd.diffusion.schedule import noise_schedule
from namd.diffusion.settings import NoiseScheduleSettings
from namd.methods.declared import DeclaredSettings
from namd.methods.namd.settings import NAMDConfig
from namd.methods.registry import METHODS
from namd.methods.sd15 import text
from namd.methods.sd15.settings import (
    EmbeddedTextSettings,
    SD15Config,
    SD15Settings,
    TextSettings,
)
from namd.methods.sd15.training import ReportContext
from namd.methods.shared.denoising import BatchSource, DenoisingObjective
from namd.methods.shared.latents import PairedLatents
from namd.models.clip_text import ReportReader
from namd.models.initialisation import initialised_from
from namd.models.settings import UNetArchitecture
from namd.models.unet import NullContext, build_unet
from namd.pipeline.run_configuration import resolve
from namd.train.world import LocalWorld
from tests.methods import made
from tests.paper_folders import put_clip

REPORTS = [
    f"a {age} years old male. A soft tissue nodule, {age} mm in size." for age in range(40, 72)
]
SMALL = EmbeddedTextSettings(
    hidden_size=16, num_layers=1, num_heads=2, intermediate_size=16, length=20
)
UNET = UNetArchitecture(
    block_out_channels=(16, 16), norm_num_groups=4, num_attention_heads=2, layers_per_block=1
)


@pytest.fixture(scope="module")
def reader() -> ReportReader:
    tokenizer = text.build_tokenizer(SMALL)
    with initialised_from("test", 0):
        return ReportReader(text.build_embedded(SMALL, tokenizer), tokenizer)


def unet(width: int) -> UNet2DConditionModel:
    with initialised_from("test", 1):
        network = build_unet(UNET, 4, 4, width, 4)
    condition_on_latents(network, 4)
    return network


def test_states_are_of_whole_texts_and_do_not_depend_on_the_batch(reader):
    states = reader(REPORTS)
    assert states.shape == (32, 20, 16)
    torch.testing.assert_close(reader(REPORTS[3:4]), states[3:4])
    assert len({tuple(row.flatten().tolist()) for row in states}) == len(REPORTS)
    assert reader.num_cut(REPORTS) == 0
    assert reader.num_cut([*REPORTS, " ".join(REPORTS[:4])]) == 1
    assert not any(parameter.requires_grad for parameter in reader.model.parameters())


def test_a_dropped_report_is_the_empty_prompt(reader):
    record = ReportContext(reader, NullContext(16, reader([""])))
    record.reports = REPORTS
    states = record(np.array([4, 9]), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(states[0], reader(REPORTS[4:5])[0])
    torch.testing.assert_close(states[1], reader([""])[0])
    assert not [name for name, p in record.named_parameters() if p.requires_grad]


@pytest.fixture(scope="module")
def learned(reader) -> SimpleNamespace:
    """Trained on 32 pairs whose change is the age that the report tells, and nothing else."""
    rng = np.random.default_rng(0)
    before = torch.from_numpy(rng.standard_normal((1, 32, 4, 4, 4), dtype=np.float32))
    change = torch.linspace(-1.5, 1.5, 32)[None, :, None, None, None]
    small = torch.full_like(before, -12.0)
    latents = PairedLatents(
        {
            "baseline_mean": before,
            "baseline_logvar": small,
            "followup_mean": 0.5 * before + change,
            "followup_logvar": small,
        },
        np.array(REPORTS),
    )
    known = dict(zip(REPORTS, reader(REPORTS), strict=True))
    record = ReportContext(
        lambda texts: torch.stack([known[found] for found in texts]), NullContext(16, reader([""]))
    )
    record.reports = list(REPORTS)
    schedule = noise_schedule(NoiseScheduleSettings(prediction_type="v_prediction"))
    objective = DenoisingObjective(unet(16), record, schedule)
    source = BatchSource("test", 0, latents, schedule, LocalWorld(), paired=True, batch_size=32)
    held = source.validation()
    first = error(objective, held)
    optimiser = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=6e-3)
    for step in range(60):
        optimiser.zero_grad()
        objective(source.at(step)).loss.backward()
        optimiser.step()
    return SimpleNamespace(objective=objective, held=held, first=first, record=record)


@torch.no_grad()
def error(objective, batches) -> float:
    objective.eval()
    found = float(np.mean([float(objective(batch).loss) for batch in batches]))
    objective.train()
    return found


def test_it_overfits_32_pairs_and_needs_baseline_and_report(learned):
    last = error(learned.objective, learned.held)
    assert last < 0.5 * learned.first
    moved = [dataclasses.replace(b, condition=b.condition.roll(1, 0)) for b in learned.held]
    assert error(learned.objective, moved) > 1.2 * last
    learned.record.reports = REPORTS[16:] + REPORTS[:16]
    try:
        assert error(learned.objective, learned.held) > 1.2 * last
    finally:
        learned.record.reports = list(REPORTS)


def test_a_text_model_that_reads_nothing_would_be_seen(learned, reader):
    """The law above can fail: with one state for all reports permuting them changes nothing."""
    deaf = copy.copy(learned.objective)
    deaf._modules = dict(deaf._modules)
    deaf.context = ReportContext(lambda texts: reader([""] * len(texts)), learned.record.null)
    deaf.context.reports = list(REPORTS)
    one = error(deaf, learned.held)
    deaf.context.reports = REPORTS[16:] + REPORTS[:16]
    assert error(deaf, learned.held) == one


def sd_folder(place):
    torch.manual_seed(0)
    put_clip(place, 24)
    network = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(16, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=4,
        cross_attention_dim=24,
    )
    network.save_pretrained(place / "unet")
    return network


def test_sd15_s_folder_is_read_whole_and_widened_to_8_channels(tmp_path):
    published = sd_folder(tmp_path / "sd").state_dict()
    own = build_unet(dataclasses.replace(UNET, weights=str(tmp_path / "sd")), 4, 4, 24, 4)
    condition_on_latents(own, 4)
    found = own.state_dict()
    assert found["conv_in.weight"].shape == (16, 8, 3, 3)
    assert torch.equal(found["conv_in.weight"][:, :4], published["conv_in.weight"])
    assert not found["conv_in.weight"][:, 4:].any()
    for name in published.keys() - {"conv_in.weight"}:
        assert torch.equal(found[name], published[name]), name


def test_clip_is_read_from_sd15_s_folder_or_refused_with_the_way_out(tmp_path):
    sd_folder(tmp_path / "sd")
    context = made.context(tmp_path)
    settings = SimpleNamespace(text=TextSettings(source=str(tmp_path / "sd")))
    context.settings = DeclaredSettings("test", settings)
    reader = text.load_reader(context)
    assert (reader.length, reader.width) == (77, 24)
    assert reader(["a", ""]).shape == (2, 77, 24)
    assert not torch.equal(reader(["a"]), reader([""]))
    (tmp_path / "sd" / "tokenizer" / "vocab.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer|text\.source to embedded"):
        text.load_reader(context)


def test_its_autoencoder_is_that_of_namd_without_alignment_and_prediction():
    def vae(method, *arm):
        stages = resolve("small", None, [f"method={method}", *arm]).stages()
        return next(stage for stage in stages if stage.family == "vae")

    arm = ("vae.alignment.weight=0", "vae.prediction.weight=0")
    assert vae("sd15") == vae("namd", *arm)
    ours = METHODS["sd15"].preset("base")["vae"]
    assert resolve("base", None, ["method=sd15"]).config.vae == (
        resolve("base", None, ["method=namd", *arm]).config.vae
    )
    assert ours["alignment"]["weight"] == ours["prediction"]["weight"] == 0
    assert NAMDConfig().vae.alignment.weight > 0 == SD15Config().vae.alignment.weight


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("draws.guidance_scale=2", "needs sd15.condition_dropout"),
        ("sd15.condition_dropout=1", "condition_dropout lies in"),
        ("text.embedded.length=2", "length is 8 or more"),
        ("text.embedded.num_heads=5", "not a multiple of num_heads 5"),
        ("draws.ddim.num_inference_steps=2000", "more than the 1000 steps"),
    ],
)
def test_what_cannot_be_is_refused(override, word):
    with pytest.raises(Exception, match=word):
        resolve("tiny", None, ["method=sd15", override])


def test_a_residual_needs_the_baseline_s_mean():
    with pytest.raises(ValueError, match="baseline_latent mean"):
        SD15Settings(target="residual", baseline_latent="sample")
