"""What no stage could honour is refused when a configuration is parsed, not hours later."""

from dataclasses import replace

import pytest

from namd.cli.main import main
from namd.config.errors import ConfigError
from namd.data.settings import CohortDemands
from namd.diffusion.ddim import inference_timesteps
from namd.diffusion.settings import NoiseScheduleSettings
from namd.methods.registry import METHODS
from namd.pipeline.run_configuration import resolve
from tests.data.conftest import make_cohort

LEADING = "noise_schedule.timestep_spacing=leading"
REFUSED = [
    (["vae.betas=[1.5,0.9]"], "vae: betas lie in [0, 1), not [1.5, 0.9]", ["vae.betas=[0,0.9]"]),
    (["finetune.betas=[0.9,1]"], "finetune: betas lie", ["finetune.betas=[0.9,0.99]"]),
    (["vae.weight_decay=-1"], "vae: weight_decay is 0 or more, not -1", ["vae.weight_decay=0"]),
    (["pretrain.warmup_steps=-5"], "pretrain: warmup_steps is", ["pretrain.warmup_steps=0"]),
    (["judge.rise_tolerance=-1"], "judge: rise_tolerance is 0", ["judge.rise_tolerance=0"]),
    (["vae.min_learning_rate=-1"], "vae: min_learning_rate is", ["vae.min_learning_rate=0"]),
    (["vae.start_learning_rate=-1"], "vae: start_learning_rate", ["vae.start_learning_rate=0"]),
    (["pretrain.num_steps=-1"], "pretrain: num_steps is 0 or more", ["pretrain.num_steps=0"]),
    (["finetune.num_epochs=-1"], "finetune: num_epochs is 0 or", ["finetune.num_epochs=0"]),
    (["perceptual.learning_rate=0"], "perceptual: learning_rate", ["perceptual.learning_rate=1"]),
    (["perceptual.channels=[0]"], "perceptual: channels are 1", ["perceptual.channels=[1]"]),
    (
        ["vae.architecture.latent_channels=0"],
        "vae.architecture: latent_channels is 1 or more, not 0",
        ["vae.architecture.latent_channels=1"],
    ),
    (
        ["vae.architecture.layers_per_block=0"],
        "vae.architecture: layers_per_block is 1 or more, not 0",
        ["vae.architecture.layers_per_block=2"],
    ),
    (["unet.layers_per_block=0"], "unet: layers_per_block is 1", ["unet.layers_per_block=1"]),
    (["judge.architecture.width=0"], "judge.architecture: width", ["judge.architecture.width=8"]),
    (
        ["vae.batch_size=2"],
        "vae: batch_size is 3 or more where alignment.weight is above 0, not 2",
        ["vae.batch_size=2", "vae.alignment.weight=0"],
    ),
    (
        ["image.size=64"],
        "judge.architecture.image_size 32 must equal image.size 64",
        ["image.size=64", "judge.architecture.image_size=64"],
    ),
    (
        ["evaluate.judge_seeds=[0]"],
        "evaluate.judge_seeds [0] holds judge.seed 0",
        ["evaluate.judge_seeds=[1]"],
    ),
    (
        ["evaluate.judge_seeds=[1, 1]"],
        "evaluate: judge_seeds are different numbers",
        ["evaluate.judge_seeds=[1, 2]"],
    ),
    (
        ["draws.ddim.skipped_steps=2"],
        "draws.ddim: skipped_steps is 0 or more and below num_inference_steps 2, not 2",
        ["draws.ddim.skipped_steps=1"],
    ),
    (
        ["draws.ddim.num_inference_steps=1001"],
        "draws.ddim.num_inference_steps 1001 is more than the 1000 steps that noise_schedule",
        ["draws.ddim.num_inference_steps=1000"],
    ),
    (["latents.fold=3"], "latents.fold 3 does not divide the 8", ["latents.fold=4"]),
    (["latents.fold=0"], "latents: fold is 1 or more, not 0", ["latents.fold=1"]),
    (
        ["draws.guidance_interval=[3,0.3]"],
        "draws: guidance_interval: 0 <= low < high, not [3.0, 0.3]",
        ["draws.guidance_interval=[0.3,3]"],
    ),
    (
        ["finetune.target=residual", "finetune.baseline_latent=sample"],
        "finetune: target residual is added to the baseline's posterior mean",
        ["finetune.baseline_latent=mean"],
    ),
    (
        ["finetune.min_snr_gamma=0"],
        "finetune: min_snr_gamma is above 0 or null, not 0",
        ["finetune.min_snr_gamma=null"],
    ),
    (
        ["pretrain.timesteps.log_sigma_std=0"],
        "pretrain.timesteps: log_sigma_std is above 0, not 0",
        ["pretrain.timesteps.log_sigma_std=1"],
    ),
    (
        ["noise_schedule.log_snr_shift=11"],
        "noise_schedule: log_snr_shift lies in [-10, 10], not 11",
        ["noise_schedule.log_snr_shift=10"],
    ),
    (
        ["vae.architecture.posterior_logvar_init=21"],
        "vae.architecture: posterior_logvar_init lies in [-30.0, 20.0], not 21",
        ["vae.architecture.posterior_logvar_init=20"],
    ),
    (
        [LEADING, "draws.ddim.num_inference_steps=1000"],
        "draws.ddim.num_inference_steps 1000 is more than the 999",
        [LEADING, "draws.ddim.num_inference_steps=999"],
    ),
]


@pytest.mark.parametrize(("wrong", "message", "right"), REFUSED)
def test_it_is_refused_with_path_and_value_and_its_neighbour_is_taken(wrong, message, right):
    with pytest.raises(ConfigError) as refused:
        resolve("tiny", None, wrong)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)
    resolve("tiny", None, right)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("total", [7, 10])
def test_the_most_steps_are_those_that_the_sampler_takes(spacing, total):
    settings = NoiseScheduleSettings(total, timestep_spacing=spacing)
    most = settings.max_inference_steps
    for steps in range(1, most + 1):
        assert len(inference_timesteps(settings, steps)) == steps
    with pytest.raises(ValueError, match=f"{most + 1} steps"):
        inference_timesteps(settings, most + 1)


@pytest.mark.parametrize("preset", METHODS["namd"].presets)
def test_every_shipped_preset_is_possible(preset):
    assert resolve(preset).preset == preset


def test_what_a_run_asks_of_its_cohort_follows_from_its_configuration():
    demands = resolve("tiny").demands()
    assert demands == CohortDemands(image_size=32, diameters=True)
    assert resolve("tiny", None, ["features.normalisation=raw"]).demands() == replace(
        demands, diameters=False
    )
    for rotations, turned in (("to_180", True), ("to_135", True), ("all", False)):
        asked = resolve("tiny", None, [f"image.rotations={rotations}"]).demands()
        assert asked == replace(demands, turned=turned)
    assert asked.stored_size == 32
    assert replace(asked, turned=True).stored_size == 46


@pytest.mark.parametrize("plan", [["--plan"], []])
def test_a_cohort_that_does_not_meet_a_configuration_is_refused_by_run(plan, tmp_path, capsys):
    folder = tmp_path / "C"
    make_cohort(size=16).write(folder)
    words = ["run", "--preset", "tiny", "--cohort", str(folder), "--store", str(tmp_path / "S")]
    assert main(words + plan) == 2
    *notes, printed = capsys.readouterr().err.splitlines()
    assert printed.startswith(
        f"error: {folder}: stored crops of 16 pixels are smaller than image.siz"
    )
    assert len(notes) == len(plan)  # of a store that is not there yet
    small = ["--set", "image.size=16", "--set", "judge.architecture.image_size=16"]
    assert main([*words, "--plan", *small]) == 0
