"""What a change of NAMD's configuration retrains."""

import pytest

from namd.pipeline.graph import make_plan
from namd.pipeline.run_configuration import resolve

DRAWN = {"draws-test", "scores-test"}
DENOISED = {"finetune", *DRAWN}
FROM_VAE = {"vae", "latents", "probe", "pretrain", "reconstruction-test", *DENOISED}


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
    ],
)
def test_a_change_retrains_its_stage_and_what_follows(override, expected):
    before, after = keys(), keys(override)
    found = {name.partition("[")[0] for name in before if before[name] != after[name]}
    assert found == expected


def test_more_draws_leave_every_earlier_key_alone():
    few, many = keys("evaluate.num_draws=5"), keys("evaluate.num_draws=20")
    assert few.items() <= many.items()
    assert len([name for name in many if name.startswith("draws-test") and name not in few]) == 15


def test_precision_is_resolved_and_part_of_every_trained_key():
    assert keys("precision=auto") == keys("precision=fp32")
    bf16 = keys("precision=bf16")
    assert all(bf16[name] != key for name, key in keys().items() if name in ("vae", "finetune"))
