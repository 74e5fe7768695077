"""Training bodies with SGD, whose parameters one worker and a worker group must agree on.

AdamW divides each gradient by its own size: where a gradient is rounding noise, its step is noise
of full size, and no comparison to 1e-5 holds. The bodies themselves are the real ones.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from namd.config.seeding import generator
from namd.data.cohort import Cohort
from namd.losses.gather import gather_rows
from namd.methods.base import StageContext, Step
from namd.methods.namd import language
from namd.methods.shared import judge, vae
from namd.methods.shared.judge_settings import JudgeSettings
from namd.methods.shared.settings import (
    AlignmentSettings,
    FeatureSettings,
    ImageSettings,
    VAESettings,
    WeightedTerm,
)
from namd.models.initialisation import initialised_from
from namd.models.judge_settings import JudgeArchitecture
from namd.models.language_settings import EmbeddedLanguageSettings, LanguageSettings
from namd.models.perceptual import RotationEncoder, save_encoder
from namd.models.settings import PerceptualSettings, VAEArchitecture
from namd.train.loop import TrainState
from namd.train.stopping import request_stop, stop_requests
from tests.contexts import open_context

STEPS, BATCH, SIZE = 20, 8, 16
KILLED_AT, CHECKPOINT_EVERY = 13, 5
PARAMETERS = "parameters.safetensors"
WAITING_AS = "waiting-as-{}"
PATIENCE_S = 600.0
CHANNELS = (4, 8)


def sgd(parameters, settings):
    return torch.optim.SGD(parameters, lr=settings.learning_rate)


def detached(rows):
    return gather_rows(rows.detach()) if rows.is_floating_point() else gather_rows(rows)


def sgd_vae(context: StageContext) -> Iterator[Step]:
    yield from _with_sgd(vae, context)


def detached_vae(context: StageContext) -> Iterator[Step]:
    with patch.object(vae, "gather_rows", detached):
        yield from _with_sgd(vae, context)


def sgd_judge(context: StageContext) -> Iterator[Step]:
    yield from _with_sgd(judge, context)


def unsynced_judge(context: StageContext) -> Iterator[Step]:
    with patch("namd.train.loop.with_global_batch_norm", lambda module: module):
        yield from _with_sgd(judge, context)


def sgd_language(context: StageContext) -> Iterator[Step]:
    with (
        patch.object(language, "_probes", lambda *_: {}),
        patch.object(language, "TOKENIZER_REPORTS", 200),
    ):
        yield from _with_sgd(language, context)


def unweighed_language(context: StageContext) -> Iterator[Step]:
    with patch.object(language, "uneven_share", lambda *_: 1.0):
        yield from sgd_language(context)


def killed_vae(context: StageContext) -> Iterator[Step]:
    """The last rank dies once, in the forward pass of its 14th step."""

    def die(state: TrainState) -> None:
        marker = context.checkpoints / "killed"
        last = context.world.rank == context.world.size - 1
        if last and state.step == KILLED_AT and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    yield from _with_sgd(vae, context, die)


def interrupted_vae(context: StageContext) -> Iterator[Step]:
    """Once, rank 0 waits in the forward pass of its 14th step until somebody asks it to stop."""
    marker = context.checkpoints / "interrupted"

    def wait(state: TrainState) -> None:
        if context.world.leads and state.step == KILLED_AT and not marker.exists():
            marker.touch()
            with stop_requests() as stop_requested:
                _patiently(stop_requested)

    yield from _with_sgd(vae, context, wait)


def elastic_vae(context: StageContext) -> Iterator[Step]:
    """Wait in the 14th step for the worker group to change: once with two workers, once alone."""
    size = context.world.size
    marker = context.checkpoints / WAITING_AS.format(size)
    waits = not marker.exists()

    def wait(state: TrainState) -> None:
        if waits and state.step == KILLED_AT:
            marker.touch()
            _patiently(lambda: False)

    yield from _with_sgd(vae, context, wait)


def _patiently(over: Callable[[], bool]) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not over():
        if time.monotonic() > limit:
            raise RuntimeError(f"nothing happened for {PATIENCE_S:g} s")
        time.sleep(0.05)


def dying_vae(context: StageContext) -> Iterator[Step]:
    """The last rank dies in its first step, every time."""

    def die(state: TrainState) -> None:
        if context.world.rank == context.world.size - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    yield from _with_sgd(vae, context, die)


def diverging_vae(context: StageContext) -> Iterator[Step]:
    yield from _with_sgd(vae, context, _poison(context))


def diverging_language(context: StageContext) -> Iterator[Step]:
    """One rank's weights break; the other's loss stays finite in that step."""
    with patch.object(language, "TOKENIZER_REPORTS", 200):
        yield from _with_sgd(language, context, _poison(context))


def leaving_vae(context: StageContext) -> Iterator[Step]:
    """The last rank alone is asked to stop."""

    def ask(state: TrainState) -> None:
        if context.world.rank == context.world.size - 1 and state.step == KILLED_AT:
            request_stop()

    yield from _with_sgd(vae, context, ask)


def _poison(context: StageContext) -> Callable[[TrainState], None]:
    def poison(state: TrainState) -> None:
        if context.world.rank == context.world.size - 1 and state.step == KILLED_AT:
            state.put({name: value * float("nan") for name, value in state.trained().items()})

    return poison


def _with_sgd(
    stage: ModuleType,
    context: StageContext,
    before: Callable[[TrainState], None] = lambda _state: None,
) -> Iterator[Step]:
    """Run a body with SGD; `before` is called ahead of every forward pass in training."""
    states: list[TrainState] = []

    def state(*arguments) -> TrainState:
        made = TrainState(*arguments, make_optimizer=sgd)
        made.objective.register_forward_pre_hook(
            lambda module, _: before(made) if module.training else None
        )
        states.append(made)
        return made

    kept = {}
    with patch.object(stage, "TrainState", state):
        for step in stage.run(context):
            if step.index == step.total:
                kept = {name: value.contiguous() for name, value in states[0].kept().items()}
            yield step
    save_file(kept, context.out / PARAMETERS)


TRAINING = {
    "num_steps": STEPS,
    "batch_size": BATCH,
    "validate_every": STEPS // 2,
    "checkpoint_every": CHECKPOINT_EVERY,
    "keep": "last",
}


def settings() -> SimpleNamespace:
    """All that any of the bodies reads; no dropout anywhere."""
    term = WeightedTerm(1.0)
    return SimpleNamespace(
        train_seed=3,
        precision="fp32",
        image=ImageSettings(SIZE, "none"),
        features=FeatureSettings(),
        perceptual=PerceptualSettings("embedded", channels=CHANNELS),
        vae=VAESettings(
            **TRAINING,
            learning_rate=0.02,
            architecture=VAEArchitecture(
                pixel_unshuffle=2, block_out_channels=(8, 16), norm_num_groups=4, dropout=0.0
            ),
            reconstruction=term,
            kl=WeightedTerm(1e-3),
            perceptual=term,
            alignment=AlignmentSettings(1.0),
            prediction=term,
        ),
        judge=JudgeSettings(
            **TRAINING,
            learning_rate=0.02,
            architecture=JudgeArchitecture(SIZE, 8, (8, 8, 16), 1, 16, 1, 2, 16, dropout=0.0),
        ),
        language=LanguageSettings(
            embedded=EmbeddedLanguageSettings(
                hidden_size=16,
                num_layers=1,
                num_heads=2,
                intermediate_size=16,
                num_steps=STEPS,
                batch_size=BATCH,
                learning_rate=0.02,
                checkpoint_every=5,
            )
        ),
    )


def make_cohort(folder: Path, size: int = 24) -> Path:
    """Write a made-up cohort in which labels and attributes are missing here and there."""
    random = generator("worker group-cohort")
    count = 60
    label = (random.random(count) < 0.4).astype(float)
    split = np.where(np.arange(count) % 3 == 2, "validation", "train")
    first = random.uniform(4, 9, count)
    known = random.random(count) < 0.6
    known[:6] = True
    label[:6] = [0, 1, 0, 1, 0, 1]
    found = random.random(count) < 0.7
    table = pd.DataFrame(
        {
            "case_id": [f"c{i:03d}" for i in range(count)],
            "patient_id": [f"p{i:03d}" for i in range(count)],
            "lesion_id": [f"l{i:03d}" for i in range(count)],
            "source": "made-up",
            "split": split,
            "label": np.where(known, label, np.nan),
            "months": 12.0,
            "spacing_mm": 0.5,
            "SCT_PRE_ATT": np.where(found, random.integers(1, 4, count), np.nan),
            "SCT_EPI_LOC": random.integers(1, 7, count).astype(float),
            "SCT_MARGINS": random.integers(1, 4, count).astype(float),
            "SCT_LONG_DIA": first,
            "SCT_PERP_DIA": first * 0.8,
            "age": 60.0,
            **dict.fromkeys(("gender", "diagemph", "famfather", "fammother"), 1.0),
            **dict.fromkeys(("fambrother", "famsister", "famchild"), np.nan),
            "followup_SCT_LONG_DIA": first + label,
            "followup_SCT_PERP_DIA": first,
        }
    )
    distance = np.hypot(*(np.mgrid[:size, :size] - (size - 1) / 2)) * 0.5
    noise = random.normal(scale=30, size=(2, count, size, size))
    images = [
        (np.where(distance <= diameter[:, None, None] / 2, 0, -850) + noise[i]).astype(np.int16)
        for i, diameter in enumerate((first, first + 2 * label))
    ]
    Cohort(table, *images).write(folder)
    return folder


def make_perceptual(folder: Path) -> Path:
    """Write the artifact of a perceptual encoder."""
    folder.mkdir(parents=True, exist_ok=True)
    with initialised_from("worker group-perceptual", 0):
        save_encoder(RotationEncoder(CHANNELS), folder)
    return folder


def context_for(cohort: Path, perceptual: Path, out: Path, world) -> StageContext:
    """Return what a body needs outside any store."""
    payload = out / "payload"
    payload.mkdir(parents=True)
    return open_context(
        settings=settings(),
        values={},
        cohort_path=cohort,
        inputs={"perceptual": perceptual},
        outputs={None: payload},
        checkpoints=out / "checkpoints",
        world=world,
        warn=lambda _line: None,
    )


def trained(folder: Path) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers that a body left."""
    return load_file(folder / PARAMETERS)


def furthest(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of two sets of parameters."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[k].double() - theirs[k].double()).abs().max()) for k in ours)


BODIES: dict[str, Callable[[StageContext], Iterator[Step]]] = {
    body.__name__: body
    for body in (
        sgd_vae,
        detached_vae,
        sgd_judge,
        unsynced_judge,
        sgd_language,
        unweighed_language,
        diverging_language,
        leaving_vae,
    )
}
