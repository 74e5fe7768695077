"""Presets `paper` and `paper-authors-code` carried through every stage, on random weights.

Small networks stand in the folders of SD1.5 and MedGemma for the fast run, networks of the full
width for the slow one. What is learned means nothing: that every stage runs on what the one before
it wrote, and which numbers reach it, is the test.
"""

import json
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from namd.data.cohort import Cohort
from namd.pipeline.run import RunResult, run
from namd.pipeline.run_configuration import RunConfiguration, resolve
from namd.pipeline.store import open_store
from tests.paper_folders import FULL, NARROW, Width, put_weights

pytestmark = pytest.mark.serial

CASES = 8
EACH = {"train": (4, 2), "validation": (2, 1), "test": (2, 1)}
"""Cases, and malignant ones of them, of each split: the fewest that a judge can be trained on."""


def put_cohort(folder: Path) -> None:
    """Write eight cases of the phantom, of as many patients, both classes in every split."""
    from namd.data.building import build_phantom, finish, simulation_settings

    law = simulation_settings(rendered=True, replicates=1)
    whole = build_phantom(23, law, 160)
    table = whole.table.drop_duplicates("patient_id")
    chosen: list[int] = []
    for split, (count, malignant) in EACH.items():
        places = [table.index[table["label"] == label].tolist() for label in (1, 0)]
        free = [[place for place in each if place not in chosen] for each in places]
        own = [*free[0][:malignant], *free[1][: count - malignant]]
        whole.table.loc[own, "split"] = split
        chosen += own
    cohort: Cohort = whole.select(np.array(sorted(chosen)))
    assert len(cohort) == CASES
    finish(cohort, 23)
    cohort.write(folder)


SHORT = (
    "perceptual.source=embedded",
    "perceptual.num_steps=2",
    "vae.num_steps=2",
    "vae.validate_every=2",
    "vae.batch_size=4",
    "pretrain.num_steps=2",
    "pretrain.validate_every=2",
    "pretrain.batch_size=4",
    "finetune.num_epochs=1",
    "finetune.validate_every=100",
    "finetune.batch_size=4",
    "judge.num_steps=2",
    "judge.validate_every=2",
    "judge.batch_size=4",
    "evaluate.num_draws=2",
    "evaluate.num_bootstrap=20",
    "draws.ddim.num_inference_steps=3",
    "num_threads=2",
)
"""What stays the paper's: networks, losses, schedules, precision, rotations, contexts, sampler."""


SMALL_JUDGE = (
    "judge.architecture.width=32",
    "judge.architecture.depth=1",
    "judge.architecture.num_heads=4",
    "judge.architecture.mlp_width=32",
)


@dataclass(frozen=True)
class Finished:
    configuration: RunConfiguration
    result: RunResult

    def payload(self, stage: str) -> Path:
        return self.result.artifacts[stage].payload


def carried(folder: Path, preset: str, width: Width, *overrides: str) -> Finished:
    """Run a preset on what `folder` holds, with weights in `folder/weights`."""
    weights, cohort = folder / "weights", folder / "cohort"
    if not weights.exists():
        put_weights(weights, width)
        put_cohort(cohort)
    places = [
        f"vae.architecture.weights={weights / 'stable-diffusion-v1-5'}",
        f"unet.weights={weights / 'stable-diffusion-v1-5'}",
        f"language.source={weights / 'medgemma-1.5-4b-it'}",
    ]
    if preset == "paper-authors-code":
        places.append(f"pretrain.clip_weights={weights / 'stable-diffusion-v1-5'}")
    configuration = resolve(preset, None, [*SHORT, *places, *overrides])
    store = open_store(str(folder / "store"))
    return Finished(configuration, run(configuration, cohort, store))


def measured(finished: Finished, stage: str) -> list[dict[str, Any]]:
    """What a stage logged, step by step."""
    log = finished.payload(stage).parent / "metrics.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("paper")


@pytest.fixture(scope="module")
def paper(folder: Path) -> Finished:
    return carried(folder, "paper", NARROW, "evaluate.judge_seeds=[1]", *SMALL_JUDGE)


@pytest.fixture(scope="module")
def authors(folder: Path) -> Finished:
    return carried(folder, "paper-authors-code", NARROW, "language.quantisation=none", *SMALL_JUDGE)


def test_every_row_of_the_paper_preset_is_there(paper: Finished):
    rows = {row["row"]: row for row in paper.result.rows}
    assert {"real_followup", "reconstruction", "ideal_sampler", "namd"} <= set(rows)
    assert rows["namd"]["num_draws"] == 2
    assert paper.result.table.about["interval"] == "patients x judges"


def test_an_epoch_walks_the_paper_s_five_angles(paper: Finished, authors: Finished):
    for finished, angles in ((paper, 5), (authors, 4)):
        latents = load_file(finished.payload("latents") / "train.safetensors")
        assert latents["baseline_mean"].shape[:2] == (angles, EACH["train"][0])
        steps = [line["index"] for line in measured(finished, "finetune")]
        assert max(steps) == angles * EACH["train"][0] // 4


def test_gradients_are_clipped_in_all_three_trainings(paper: Finished):
    for stage in ("vae", "pretrain", "finetune"):
        assert any("gradient_norm" in line for line in measured(paper, stage)), stage


def unet_of(finished: Finished, stage: str) -> dict[str, torch.Tensor]:
    return load_file(finished.payload(stage) / "unet" / "diffusion_pytorch_model.safetensors")


def test_the_released_code_pretrains_under_clip_and_finetunes_under_the_language_model(
    paper: Finished, authors: Finished
):
    keys = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    widths = [
        unet_of(finished, stage)[keys].shape[1]
        for finished in (paper, authors)
        for stage in ("pretrain", "finetune")
    ]
    assert widths == [32, 32, 24, 32]
    null = load_file(authors.payload("pretrain") / "null_token.safetensors")["token"]
    assert null.shape == (1, 77, 24)
    assert load_file(authors.payload("finetune") / "null_token.safetensors")["token"].shape[2] == 32
    # Nothing but what reads the records is new: one step moves a weight by its rate at most.
    before, after = unet_of(authors, "pretrain"), unet_of(authors, "finetune")
    moved = {n for n in before if before[n].shape == after[n].shape}
    assert {n for n in before if n not in moved} == {
        n for n in before if "attn2.to_k" in n or "attn2.to_v" in n or n == "conv_in.weight"
    }
    assert max(float((before[n] - after[n]).abs().max()) for n in moved) < 1e-3


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("preset", ["paper"])
def test_the_paper_preset_at_full_width(preset: str, tmp_path: Path, record_property):
    meminfo = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) for line in meminfo if line.startswith("MemAvail"))
    if available < 18 * 2**20:
        pytest.skip(f"needs 18 GiB of free memory, has {available / 2**20:.1f}")
    began = time.monotonic()
    finished = carried(tmp_path, preset, FULL)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    record_property("seconds", round(time.monotonic() - began))
    record_property("peak_gib", round(peak, 1))
    assert {row["row"] for row in finished.result.rows} >= {"real_followup", "namd"}
    parameters = sum(tensor.numel() for tensor in unet_of(finished, "finetune").values())
    assert parameters == 904_260_804
    assert peak < 22
