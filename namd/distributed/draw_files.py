"""The files of one draw index, filled block by block: what the stage bodies write at once.

Nothing here knows where the blocks come from, and torch is imported at the end only. The files
are those of the bodies `draws` and `scores`, byte for byte where the numbers are the same.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from namd.config.threads import fixed_threads

if TYPE_CHECKING:
    from namd.evaluate.scores import ImageFeatures

HALF = np.dtype("<f2")
Block = Mapping[str, npt.NDArray[Any]]
"""Columns of a block of pairs, by name, as the workers return them."""


@runtime_checkable
class IndexFiles(Protocol):
    """The files of one artifact of a family, being filled."""

    def put(self, places: npt.NDArray[np.intp], block: Block) -> None:
        """Take a block's rows; `places` are their cases' numbers."""

    def finish(self) -> dict[str, float]:
        """Complete the files once every case is there; return the index's metrics."""


class DrawnFiles:
    """`images.safetensors` (float16, (N, H, W) in [-1, 1]) and `cases.parquet` of one draw.

    Rows are written to their place as they come, so that memory holds one block. safetensors
    itself writes whole tensors only; its format is a header and the tensors' bytes.

    Args:
        folder: Receives the files.
        case_ids: The cases in their order.
    """

    def __init__(self, folder: Path, case_ids: Sequence[str]) -> None:
        self.folder = folder
        self.case_ids = list(case_ids)
        self._start = 0

    @property
    def path(self) -> Path:
        """The file of the images."""
        return self.folder / "images.safetensors"

    def put(self, places: npt.NDArray[np.intp], block: Block) -> None:
        """Write each image where its case's number says."""
        images = np.ascontiguousarray(block["image"], HALF)
        if not self._start:
            header = _header((len(self.case_ids), *images.shape[1:]))
            self._start = len(header)
            self.path.write_bytes(header)
        with self.path.open("r+b") as stream:
            for place, image in zip(places, images, strict=True):
                stream.seek(self._start + int(place) * image.nbytes)
                stream.write(image.data)

    def finish(self) -> dict[str, float]:
        """Write down the cases."""
        cases = np.asarray(self.case_ids, object)
        pd.DataFrame({"case_id": cases}).to_parquet(self.folder / "cases.parquet")
        return {}


class ScoreFiles:
    """`scores.parquet` and `sets.json` of one draw.

    Holds a few numbers and the features of every case, and no image.

    Args:
        folder: Receives the files.
        case_ids: The cases in their order.
        k: The draw index.
        num_threads: That the metrics of the whole set are computed with.
    """

    def __init__(self, folder: Path, case_ids: Sequence[str], k: int, num_threads: int = 1) -> None:
        self.folder, self.case_ids, self.k = folder, list(case_ids), k
        self.num_threads = num_threads
        self._columns: dict[str, npt.NDArray[Any]] = {}

    def put(self, places: npt.NDArray[np.intp], block: Block) -> None:
        """Keep what was measured of each image."""
        for name, values in block.items():
            if name in ("case_id", "k", "image") or name.endswith("_seconds"):
                continue
            if name not in self._columns:
                shape = (len(self.case_ids), *values.shape[1:])
                self._columns[name] = np.zeros(shape, values.dtype)
            self._columns[name][places] = values

    def finish(self) -> dict[str, float]:
        """Compare the set of images with the real ones and write both files."""
        from namd.evaluate.scores import COLUMNS, save_scores, set_metrics

        columns = {name: self._columns[name] for name in COLUMNS[2:]}
        cases = np.asarray(self.case_ids, object)
        frame = pd.DataFrame({"case_id": cases, "k": self.k, **columns})
        followed = self._columns["has_followup"]
        with fixed_threads(self.num_threads):  # torch is imported by now
            ours, real = self._features("", followed), self._features("real_", followed)
            sets = set_metrics(self.k, ours, real)
        save_scores(self.folder, frame, [sets])
        return {"mean_probability": float(frame["probability"].mean())}

    def _features(self, prefix: str, followed: npt.NDArray[np.bool_]) -> "ImageFeatures":
        import torch

        from namd.evaluate.scores import ImageFeatures

        inception = self._columns.get(f"{prefix}inception_features")
        return ImageFeatures(
            torch.from_numpy(self._columns[f"{prefix}judge_features"][followed]),
            None if inception is None else torch.from_numpy(inception[followed]),
        )


def _header(shape: Sequence[int]) -> bytes:
    """Return what precedes the bytes of one float16 tensor `images` in a safetensors file."""
    size = int(np.prod(shape)) * HALF.itemsize
    entry = {"dtype": "F16", "shape": list(shape), "data_offsets": [0, size]}
    text = json.dumps({"images": entry}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
