"""Scores: what is measured of each image of a row, and the files that hold it.

A score frame has one line per (case_id, k). What follows from several of them is `table`'s.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Num
from torch import Tensor

from namd.evaluate.diameter import longest_diameter
from namd.evaluate.metrics import (
    frechet_distance,
    inception_features,
    kernel_distance,
    lpips_alex,
    ssim_and_psnr,
)
from namd.models.judge import Judge

COLUMNS = ("case_id", "k", "score", "probability", "ssim", "psnr", "lpips", "diameter_mm")
DRAWN = "drawn"
"""The method's own row in a score frame that does not know which method it is."""
SCORES_FILE = "scores.parquet"
SETS_FILE = "sets.json"
BATCH = 256


@dataclass(frozen=True)
class SetMetrics:
    """Distances between a row's images of one draw and the real follow-ups, as sets.

    Attributes:
        k: Draw index.
        fid_judge: Frechet distance of the judge's features; never to be called FID.
        kid_judge: Kernel distance of the judge's features.
        fid: On Inception's 2,048 features; None without its weights.
        kid: Likewise.
    """

    k: int
    fid_judge: float | None = None
    kid_judge: float | None = None
    fid: float | None = None
    kid: float | None = None


@dataclass(frozen=True)
class ImageFeatures:
    """What set metrics compare, per image.

    Attributes:
        judge: The judge's features, float32.
        inception: Inception's; None without its weights.
    """

    judge: Float[Tensor, "N D"]
    inception: Float[Tensor, "N 2048"] | None = None

    def select(self, places: Num[np.ndarray, " N"] | np.ndarray) -> "ImageFeatures":
        """Return those of some images."""
        chosen = torch.from_numpy(np.asarray(places))
        inception = None if self.inception is None else self.inception[chosen]
        return ImageFeatures(self.judge[chosen], inception)


class Scorer:
    """Scores images of the evaluated cases; what the real follow-ups give is computed once.

    Attributes:
        judge: Frozen, on `device`.
        case_ids: Of the evaluated cases, in their order.
        followup: Real follow-ups in [-1, 1], (N, 1, H, W); what it holds where there is none
            is not read.
        has_followup: Which of them exist, (N,).
        spacing_mm: Pixel size per case.

    Raises InputError if LPIPS or FID is asked for and its trunk is not on disk.
    """

    def __init__(
        self,
        judge: Judge,
        case_ids: Sequence[str] | np.ndarray,
        followup: Float[np.ndarray, "N H W"],
        has_followup: Num[np.ndarray, " N"] | np.ndarray,
        spacing_mm: Num[np.ndarray, " N"],
        *,
        lpips: str = "off",
        fid: str = "off",
        lpips_trunk: str | None = None,
        inception_trunk: str | None = None,
        device: str = "cpu",
    ) -> None:
        self.judge, self.device = judge, device
        self.case_ids = np.asarray(case_ids)
        self.spacing_mm = np.asarray(spacing_mm, float)
        self.has_followup = np.asarray(has_followup, bool)
        self.followup = _tensor(followup)
        self.lpips = lpips_alex(device, lpips_trunk) if lpips == "alex" else None
        self.inception = None
        if fid == "inception":
            self.inception = inception_features(device, inception_trunk)

    @cached_property
    def real_features(self) -> ImageFeatures:
        """Features of the real follow-ups, without the cases that have none."""
        return self.features(self.followup[self.has_followup])

    def features(self, images: Float[Tensor, "N 1 H W"]) -> ImageFeatures:
        """Return the features of images in [-1, 1], on the CPU."""
        judge = judged(self.judge, images, self.device)[1]
        return ImageFeatures(judge, self.inception(images) if self.inception else None)

    def score(
        self, images: Num[np.ndarray, "N H W"], k: int = 0, *, is_followup: bool = False
    ) -> tuple[pd.DataFrame, SetMetrics]:
        """Return the score frame and the set metrics of one draw.

        Args:
            images: In [-1, 1], in the order of the cases.
            k: Draw index.
            is_followup: The images are the real follow-ups: comparing them with themselves says
                nothing, so only the judge's probability and the diameter are given.
        """
        cases = np.arange(len(self.case_ids))
        frame, features = self.measure(images, cases, k, is_followup=is_followup)
        if is_followup:
            return frame, SetMetrics(k)
        return frame, set_metrics(k, features.select(self.has_followup), self.real_features)

    def measure(
        self,
        images: Num[np.ndarray, "B H W"],
        cases: Num[np.ndarray, " B"],
        k: int = 0,
        *,
        is_followup: bool = False,
    ) -> tuple[pd.DataFrame, ImageFeatures]:
        """Return what is measured image by image, and the features that set metrics need.

        Args:
            images: In [-1, 1].
            cases: Places of their cases among all; any of them, in any order.
            k: Draw index.
            is_followup: As in `score`; there are no features then.
        """
        ours = _tensor(images)
        logits, features = judged(self.judge, ours, self.device)
        probability = torch.sigmoid(logits).numpy()
        frame = pd.DataFrame(
            {
                "case_id": self.case_ids[cases],
                "k": k,
                "score": probability,
                "probability": probability,
                "ssim": np.nan,
                "psnr": np.nan,
                "lpips": np.nan,
                "diameter_mm": longest_diameter(ours[:, 0].numpy(), self.spacing_mm[cases]),
            }
        )
        places = self.has_followup[cases]
        if is_followup:
            frame.loc[~places, ["score", "probability", "diameter_mm"]] = np.nan
            return frame, ImageFeatures(features[:0])
        if places.any():
            self._compare(frame, places, ours[places], self.followup[cases[places]])
        return frame, ImageFeatures(features, self.inception(ours) if self.inception else None)

    def _compare(self, frame: pd.DataFrame, places: np.ndarray, ours: Tensor, real: Tensor) -> None:
        ssim, psnr = ssim_and_psnr(ours, real)
        frame.loc[places, "ssim"], frame.loc[places, "psnr"] = ssim, psnr
        if self.lpips is not None:
            frame.loc[places, "lpips"] = self.lpips(ours.to(self.device), real.to(self.device))


def set_metrics(k: int, ours: ImageFeatures, real: ImageFeatures) -> SetMetrics:
    """Return the distances of one draw's images from the real follow-ups of the same cases."""
    if len(ours.judge) < 2:
        return SetMetrics(k)
    sets = SetMetrics(
        k,
        fid_judge=frechet_distance(ours.judge, real.judge),
        kid_judge=kernel_distance(ours.judge, real.judge),
    )
    if ours.inception is None or real.inception is None:
        return sets
    return replace(
        sets,
        fid=frechet_distance(ours.inception, real.inception),
        kid=kernel_distance(ours.inception, real.inception),
    )


def plain_scores(
    case_ids: Sequence[str] | np.ndarray, values: Num[np.ndarray, " N"]
) -> pd.DataFrame:
    """Return the score frame of a row that has no images: a predictor's own values."""
    empty = dict.fromkeys(COLUMNS[3:], np.nan)
    scores = np.asarray(values, float)
    return pd.DataFrame({"case_id": np.asarray(case_ids), "k": 0, "score": scores, **empty})


@torch.no_grad()
def judged(
    judge: Judge, images: Float[Tensor, "N 1 H W"], device: str
) -> tuple[Float[Tensor, " N"], Float[Tensor, "N D"]]:
    """Return the judge's logits and features of a set of images, on the CPU in float32."""
    features = [judge.features(batch.to(device)).float() for batch in images.split(BATCH)]
    if not features:
        return torch.zeros(0), torch.zeros(0, judge.architecture.width)
    together = torch.cat(features)
    return judge.logit(together).cpu(), together.cpu()


def save_scores(
    folder: Path, frame: pd.DataFrame, sets: Sequence[SetMetrics] | Mapping[str, list[SetMetrics]]
) -> None:
    """Write a score frame (with a column `row` where it holds several) and its set metrics."""
    frame.to_parquet(folder / SCORES_FILE, index=False)
    (folder / SETS_FILE).write_text(json.dumps(_plain(sets), indent=1) + "\n")


def load_scores(folder: Path) -> tuple[pd.DataFrame, list[SetMetrics]]:
    """Return one draw's score frame and set metrics."""
    sets = json.loads((folder / SETS_FILE).read_text())
    return pd.read_parquet(folder / SCORES_FILE), [SetMetrics(**entry) for entry in sets]


def load_rows(folder: Path) -> dict[str, tuple[pd.DataFrame, list[SetMetrics]]]:
    """Return the rows of a folder whose score frame holds several, in their order."""
    frame = pd.read_parquet(folder / SCORES_FILE)
    sets = json.loads((folder / SETS_FILE).read_text())
    return {
        str(name): (part.drop(columns="row"), [SetMetrics(**entry) for entry in sets[str(name)]])
        for name, part in frame.groupby("row", sort=False)
    }


def save_rows(folder: Path, rows: Mapping[str, tuple[pd.DataFrame, list[SetMetrics]]]) -> None:
    """Write several rows into one folder."""
    frames = [frame.assign(row=name) for name, (frame, _) in rows.items()]
    together = pd.concat(frames, ignore_index=True)
    save_scores(folder, together, {name: sets for name, (_, sets) in rows.items()})


def _plain(sets: Sequence[SetMetrics] | Mapping[str, list[SetMetrics]]) -> object:
    if isinstance(sets, Mapping):
        return {name: _plain(entries) for name, entries in sets.items()}
    return [asdict(entry) for entry in sets]


def _tensor(images: np.ndarray) -> Float[Tensor, "N 1 H W"]:
    return torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None]
