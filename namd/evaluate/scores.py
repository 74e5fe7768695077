"""Scores: what is measured of each image of a row, and the files that hold it.

A score frame has one line per (case_id, k). What follows from several of them is `table`'s.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Num
from torch import Tensor

from namd.evaluate.diameter import longest_diameter
from namd.evaluate.metrics import (
    frechet_distance,
    inception_distances,
    kernel_distance,
    lpips_alex,
    ssim_and_psnr,
)
from namd.models.judge import Judge

COLUMNS = ("case_id", "k", "score", "probability", "ssim", "psnr", "lpips", "diameter_mm")
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


class Scorer:
    """Scores images of the evaluated cases; what the real follow-ups give is computed once.

    Attributes:
        judge: Frozen, on `device`.
        case_ids: Of the evaluated cases, in their order.
        followup: Real follow-ups in [-1, 1], (N, H, W).
        has_followup: Which of them exist, (N,).
        spacing_mm: Pixel size per case.
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
        device: str = "cpu",
    ) -> None:
        self.judge, self.device = judge, device
        self.case_ids = np.asarray(case_ids)
        self.spacing_mm = np.asarray(spacing_mm, float)
        self.has_followup = np.asarray(has_followup, bool)
        self.real = _tensor(followup)[self.has_followup]
        self.lpips = lpips_alex(device) if lpips == "alex" else None
        self.with_inception = fid == "inception"
        self.real_features = judged(judge, self.real, device)[1]

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
        ours = _tensor(images)
        logits, features = judged(self.judge, ours, self.device)
        probability = torch.sigmoid(logits).numpy()
        frame = pd.DataFrame(
            {
                "case_id": self.case_ids,
                "k": k,
                "score": probability,
                "probability": probability,
                "ssim": np.nan,
                "psnr": np.nan,
                "lpips": np.nan,
                "diameter_mm": longest_diameter(ours[:, 0].numpy(), self.spacing_mm),
            }
        )
        if is_followup:
            absent = ~self.has_followup
            frame.loc[absent, ["score", "probability", "diameter_mm"]] = np.nan
            return frame, SetMetrics(k)
        return self._compare(frame, ours[self.has_followup], features[self.has_followup], k)

    def _compare(
        self, frame: pd.DataFrame, ours: Tensor, features: Tensor, k: int
    ) -> tuple[pd.DataFrame, SetMetrics]:
        if not len(ours):
            return frame, SetMetrics(k)
        places = self.has_followup
        ssim, psnr = ssim_and_psnr(ours, self.real)
        frame.loc[places, "ssim"], frame.loc[places, "psnr"] = ssim, psnr
        if self.lpips is not None:
            frame.loc[places, "lpips"] = self.lpips(ours.to(self.device), self.real.to(self.device))
        sets = SetMetrics(k)
        if len(ours) > 1:
            sets = replace(
                sets,
                fid_judge=frechet_distance(features, self.real_features),
                kid_judge=kernel_distance(features, self.real_features),
            )
            if self.with_inception:
                fid, kid = inception_distances(ours, self.real, self.device)
                sets = replace(sets, fid=fid, kid=kid)
        return frame, sets


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
