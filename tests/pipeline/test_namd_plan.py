"""What a change of NAMD's configuration retrains."""

import pytest

from namd.config.errors import InputError
from namd.config.fingerprint import canonical_json
from namd.pipeline.graph import make_plan
from namd.pipeline.run_configuration import resolve

DRAWN = {"draws-test", "scores-test", "copies-test"}
DENOISED = {"finetune", *DRAWN}
FROM_LATENTS = {"latents", "probe", "pretrain", *DENOISED}
FROM_VAE = {"vae", "reconstruction-test", *FROM_LATENTS}


def keys(*overrides):
    configuration = resolve("tiny", None, overrides)
    plan = make_plan(
        configuration.stages(), configuration.config, cohort_digest=lambda cohort: "cohort"
    )
    return {node.label: node.key for node in plan.nodes}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("vae.alignment.sigma_f=2.5", FROM_VAE),
        ("vae.alignment.weight=0", FROM_VAE),
        ("finetune.soft_prompt.num_sets=4", DENOISED),
        ("finetune.report.include=[]", DENOISED),
        ("pretrain.num_steps=0", {"pretrain", *DENOISED}),
        ("train_seed=99", FROM_VAE),
        ("draw_seed=99", DRAWN),
        ("draws.ddim.num_inference_steps=3", DRAWN),
        ("evaluate.num_bootstrap=99", set()),
        ("evaluate.interval=0.9", set()),
        ("vae.architecture.posterior_logvar_init=-6", FROM_VAE),
        ("latents.scaling=per_channel", FROM_LATENTS),
        ("latents.fold=2", FROM_LATENTS),
        ("pretrain.min_snr_gamma=5", {"pretrain", *DENOISED}),
        ("noise_schedule.log_snr_shift=1", {"pretrain", *DENOISED}),
        ("finetune.timesteps.kind=log_normal", DENOISED),
        ("finetune.min_snr_gamma=5", DENOISED),
        ("finetune.target=residual", DENOISED),
        ("draws.guidance_interval=[0.3,3]", DRAWN),
    ],
)
def test_a_change_retrains_its_stage_and_what_follows(override, expected):
    before, after = keys(), keys(override)
    found = {name.partition("[")[0] for name in before if before[name] != after[name]}
    assert found == expected


ADDED = {
    "posterior_logvar_init": "vae.architecture.posterior_logvar_init=-6",
    "latents": "latents.scaling=per_channel",
    "min_snr_gamma": "finetune.min_snr_gamma=5",
    "timesteps": "finetune.timesteps.kind=log_normal",
    "log_snr_shift": "noise_schedule.log_snr_shift=1",
    "target": "finetune.target=residual",
    "guidance_interval": "draws.guidance_interval=[0.3,3]",
}


@pytest.mark.parametrize(("name", "override"), ADDED.items())
def test_values_that_earlier_versions_lacked_are_in_no_identity_until_they_change(name, override):
    def named(*overrides):
        configuration = resolve("tiny", None, overrides)
        plan = make_plan(
            configuration.stages(), configuration.config, cohort_digest=lambda cohort: "cohort"
        )
        return any(f'"{name}":' in canonical_json(node.identity["slice"]) for node in plan.nodes)

    assert not named()
    assert named(override)


def test_more_draws_leave_every_earlier_key_alone():
    few, many = keys("evaluate.num_draws=5"), keys("evaluate.num_draws=20")
    assert few.items() <= many.items()
    assert len([name for name in many if name.startswith("draws-test") and name not in few]) == 15


def test_precision_is_resolved_and_part_of_every_trained_key():
    assert keys("precision=auto") == keys("precision=fp32")
    bf16 = keys("precision=bf16")
    assert all(bf16[name] != key for name, key in keys().items() if name in ("vae", "finetune"))


@pytest.fixture
def without_weights(tmp_path, monkeypatch):
    """A machine that has none of the weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NAMD_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_paper_is_planned_without_its_weights_and_run_is_refused(without_weights):
    paper = resolve("paper")

    def plan(provisional):
        return make_plan(
            paper.stages(),
            paper.config,
            cohort_digest=lambda cohort: "cohort",
            provisional=provisional,
        )

    found = plan(True)
    names = {status.name for status in found.missing}
    assert names == {"lpips-vgg", "sd15-vae", "sd15-unet", "medgemma"}
    assert {"vae", "pretrain", "finetune", "draws-test[19]"} <= {n.label for n in found.nodes}
    with pytest.raises(InputError) as refused:
        plan(False)
    message = str(refused.value)
    for part in ("weights/stable-diffusion-v1-5", "hf download", "null", "MedGemma"):
        assert part in message
    assert "\n" not in message
    assert keys() == keys()  # preset tiny needs none of them


def test_where_trunks_lie_moves_no_key_of_a_run_that_reads_none(without_weights):
    plain = keys("perceptual.source=embedded", "evaluate.lpips=off", "evaluate.fid=off")
    named = keys(
        "perceptual.source=embedded",
        "evaluate.lpips=off",
        "evaluate.fid=off",
        "trunks.lpips_vgg=/elsewhere",
    )
    assert plain == named
    with pytest.raises(InputError, match=r"trunks\.lpips_vgg: /elsewhere"):
        keys("perceptual.source=lpips", "trunks.lpips_vgg=/elsewhere")
