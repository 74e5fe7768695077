"""Preset tiny with every way of presenting latents changed at once, from a cohort to draws."""

import json

import pytest

from namd.cli.main import main
from namd.methods.shared.latent_space import FILE as SPACE
from namd.methods.shared.target import FILE as TARGET
from namd.pipeline.run import run
from namd.pipeline.run_configuration import resolve
from namd.pipeline.store import open_store

CHANGED = (
    "evaluate.split=validation",
    "evaluate.minimum_malignant=1",
    "vae.architecture.posterior_logvar_init=-6",
    "vae.architecture.block_out_channels=[16]",
    "latents.scaling=per_channel",
    "latents.fold=2",
    "finetune.target=residual",
    "finetune.condition_dropout=0.5",
    "finetune.min_snr_gamma=5",
    "finetune.timesteps.kind=log_normal",
    "draws.guidance_scale=1.3",
    "draws.guidance_interval=[0.3,3]",
    "noise_schedule.log_snr_shift=1",
)


@pytest.mark.slow
def test_a_run_carries_the_numbers_that_its_drawer_needs(tmp_path):
    cohort = tmp_path / "cohort"
    build = ["cohort", "build", "phantom", "--cases", "200", "--seed", "23"]
    assert main([*build, "--out", str(cohort)]) == 0
    configuration = resolve("tiny", None, CHANGED)
    result = run(configuration, cohort, open_store(str(tmp_path / "store")))
    finetuned = result.artifacts["finetune"].payload
    deviation = json.loads((finetuned / TARGET).read_text())["deviation"]
    space = json.loads((finetuned / SPACE).read_text())
    assert space["fold"] == 2
    assert len(space["scale"]) == len(space["shift"]) == 4
    assert 0 < deviation < 2
    assert (finetuned / SPACE).read_bytes() == (
        result.artifacts["latents"].payload / SPACE
    ).read_bytes()
    rows = {row["row"]: row for row in result.rows}
    assert rows["namd"]["num_draws"] == 2
    assert 0 < rows["namd"]["mean_probability"] < 1
