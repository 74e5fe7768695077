"""Cohorts, autoencoders and contexts made by hand, so that what a stage body composes is a number.

Every crop is known by its mean: case n lies at -950 + 60 n HU, its follow-up 30 HU above.
"""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from namd.data import schema
from namd.data.cohort import Cohort
from namd.methods.base import StageContext
from namd.models.judge import Judge
from namd.models.soft_prompt import SoftPromptContext
from namd.models.unet import NullContext
from namd.models.vae import GreyAutoencoder, Posterior
from namd.pipeline.run_configuration import resolve
from namd.train.fit import Progress
from namd.train.world import LocalWorld
from tests.contexts import open_context

SIZE, STORED = 16, 24
SPLITS = {"train": range(8), "validation": range(8, 13), "test": range(13, 18)}
ALONE = (0, 8, 13)
"""Cases without a follow-up: the first of each split, so that whoever counts them in is one off."""
UNLABELLED = (3, 9)
FOLLOWED = {split: [n for n in cases if n not in ALONE] for split, cases in SPLITS.items()}
UPSTREAM = ("perceptual", "language", "vae", "latents", "pretrain", "finetune", "judge")
WIDTH = 3
DEVIATION = 0.05
FINETUNE = ("finetune.batch_size=6", "finetune.soft_prompt.num_sets=2")


def level_hu(case: float) -> float:
    return -950 + 60 * case


def unit(case: float) -> float:
    """The mean in [-1, 1] of a case's baseline, or of its follow-up at case + 0.5."""
    return (level_hu(case) + 1000) / 700 - 1


def which(images: np.ndarray | Tensor) -> list[float]:
    """Whose crops these are, by their means over all axes but the first: n, or n + 0.5."""
    values = images.detach() if isinstance(images, Tensor) else images
    means = np.asarray(values, np.float64).reshape(len(images), -1).mean(1)
    return (np.round(((means + 1) * 700 - 50) / 30) / 2).tolist()


def crop(case: float) -> np.ndarray:
    """A level with a corner of its own, so that a turned crop differs and keeps its mean."""
    picture = np.full((STORED, STORED), level_hu(case))
    middle = slice((STORED - SIZE) // 2, (STORED + SIZE) // 2)
    inside = picture[middle, middle]
    inside[:4, :4] += 40
    inside[4:8, :4] -= 40
    return picture.round().astype(np.int16)


def cohort(**columns: Any) -> Cohort:
    """Eighteen cases of as many patients; `columns` replaces columns of the table."""
    count = max(SPLITS["test"]) + 1
    number = np.arange(count)
    split = {case: name for name, cases in SPLITS.items() for case in cases}
    table = pd.DataFrame({name: np.full(count, np.nan) for name in schema.COLUMN_TYPES})
    table = table.assign(
        **{name: [f"{name[0]}{n:02d}" for n in number] for name in schema.IDENTIFIERS},
        split=[split[n] for n in number],
        label=np.where(np.isin(number, UNLABELLED), np.nan, (number % 2).astype(float)),
        months=12.0,
        spacing_mm=0.5,
        SCT_PRE_ATT=1.0,
        SCT_EPI_LOC=1.0 + number % 6,
        SCT_MARGINS=1.0 + number % 3,
        SCT_LONG_DIA=5.0 + number,
        SCT_PERP_DIA=4.0 + number,
        followup_SCT_LONG_DIA=35.0 + number,
        followup_SCT_PERP_DIA=34.0 + number,
        age=40.0 + number,
        gender=1.0 + number % 2,
        diagemph=0.0,
    )
    has = ~np.isin(number, ALONE)
    followup = np.stack([crop(n + 0.5) for n in number])
    followup[~has] = 0
    table = table.assign(**columns)
    return Cohort(table, np.stack([crop(n) for n in number]), followup, has)


def context(
    folder: Path,
    *overrides: str,
    inputs: Mapping[str, Path] | None = None,
    outputs: Mapping[int | None, Path] | None = None,
    values: Mapping[str, str] | None = None,
    world: LocalWorld | None = None,
    made: Cohort | None = None,
) -> StageContext:
    """A stage's context over `cohort()`, with the whole configuration of preset tiny."""
    size = (f"image.size={SIZE}", f"judge.architecture.image_size={SIZE}")
    if not (folder / "cohort").exists():
        (made or cohort()).write(folder / "cohort")
    for name in ("out", "checkpoints"):
        (folder / name).mkdir(exist_ok=True)
    return open_context(
        settings=resolve("tiny", None, [*size, "perceptual.source=embedded", *overrides]).config,
        values=values or {},
        cohort_path=folder / "cohort",
        inputs=dict.fromkeys(UPSTREAM, folder) | dict(inputs or {}),
        outputs=outputs or {None: folder / "out"},
        checkpoints=folder / "checkpoints",
        world=world or LocalWorld(),
        warn=lambda _line: None,
    )


class NotingUNet(UNet2DConditionModel):
    """Predicts nothing; notes whose baseline and which states it was given."""

    config = SimpleNamespace(in_channels=4, encoder_hid_dim=None, cross_attention_dim=WIDTH)

    def __init__(self):
        nn.Module.__init__(self)
        self.gain = nn.Parameter(torch.ones(1))
        self.seen = []

    def forward(self, sample, timestep, encoder_hidden_states, return_dict=True):
        self.seen.append((sample.detach(), encoder_hidden_states.detach()))
        predicted = self.gain * sample[:, :4]
        return SimpleNamespace(sample=predicted) if return_dict else (predicted,)


class AgeReader(SoftPromptContext):
    """A language model that reads the age alone, in both of its sets."""

    width = WIDTH

    def __init__(self):
        nn.Module.__init__(self)

    def forward(self, reports):
        ages = [float(text.partition(" years old")[0].split()[-1]) for text in reports]
        return torch.tensor(ages)[:, None, None].expand(-1, 2, WIDTH)

    def adapter_state(self):
        return {"prompts": torch.zeros(1)}


def null_context(value):
    null = NullContext(WIDTH)
    nn.init.constant_(null.token, value)
    return null


class FoldingVAE(GreyAutoencoder):
    """A lossless autoencoder: 2 x 2 pixels become 4 channels. The deviation is `deviation`."""

    latent_channels, downsampling = 4, 2

    def __init__(self, deviation: float = DEVIATION) -> None:
        nn.Module.__init__(self)
        self.deviation = deviation
        self.gain = nn.Parameter(torch.ones(1))
        self.seen: list[Tensor] = []

    def encode(self, images: Tensor) -> Posterior:
        self.seen.append(images.detach().clone())
        mean = self.gain * nn.functional.pixel_unshuffle(images, 2)
        return Posterior(mean, torch.full_like(mean, 2 * float(np.log(self.deviation))))

    def decode(self, latents: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(latents / self.gain, 2)


class BrightnessJudge(Judge):
    """A judge whose logit is the mean of the image."""

    def __init__(self, architecture: object = None) -> None:
        nn.Module.__init__(self)
        self.gain = nn.Parameter(torch.ones(1))
        self.seen: list[Tensor] = []

    def features(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        return self.gain * images.mean((2, 3))

    def logit(self, features: Tensor) -> Tensor:
        return features[:, 0]


def probability(case: float) -> float:
    """What `BrightnessJudge` gives a case's crop."""
    return float(1 / (1 + np.exp(-unit(case))))


def noted_fit(monkeypatch: Any, module: Any) -> dict[str, Any]:
    """Replace a body's training by two steps that note what it was given."""
    noted: dict[str, Any] = {}

    def fit(state: Any, batches: Any, validate: Any, folder: Path) -> Any:
        noted.update(state=state, batches=batches, validate=validate)
        first = batches(0)
        state.objective(first)
        yield Progress(1, 2, {})
        noted["metrics"] = validate() if validate else {}
        noted["between"] = noted.get("mark", lambda: None)()
        state.objective(batches(1))
        yield Progress(2, 2, {})

    monkeypatch.setattr(module, "fit", fit)
    return noted
