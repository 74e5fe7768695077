"""The files of one draw index, filled block by block; the stage bodies write them at once.

Independent of the source of the blocks; torch is imported only at the end. The files equal
those of the bodies `draws` and `scores`, byte for byte if the numbers are equal.
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
        """Add a block's rows; `places` are the indices of their cases."""

    def finish(self) -> dict[str, float]:
        """Complete the files once every case was added; return the index's metrics."""


class DrawnFiles:
    """`images.safetensors` (float16, (N, H, W) in [-1, 1]) and `cases.parquet` of one draw.

    Rows are written to their offset as they arrive, so that memory holds one block. safetensors
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
        """Write each image at the offset of its case."""
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
        """Write the cases."""
        cases = np.asarray(self.case_ids, object)
        pd.DataFrame({"case_id": cases}).to_parquet(self.folder / "cases.parquet")
        return {}


class ScoreFiles:
    """`scores.parquet` and `sets.json` of one draw.

    Holds a few numbers and the features of every case, but no image.

    Args:
        folder: Receives the files.
        case_ids: The cases in their order.
        k: The draw index.
        num_threads: Threads for the metrics of the whole set.
    """

    def __init__(self, folder: Path, case_ids: Sequence[str], k: int, num_threads: int = 1) -> None:
        self.folder, self.case_ids, self.k = folder, list(case_ids), k
        self.num_threads = num_threads
        self._columns: dict[str, npt.NDArray[Any]] = {}

    def put(self, places: npt.NDArray[np.intp], block: Block) -> None:
        """Keep the metrics of each image."""
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
    """Return a safetensors file's header for one float16 tensor `images`."""
    size = int(np.prod(shape)) * HALF.itemsize
    entry = {"dtype": "F16", "shape": list(shape), "data_offsets": [0, size]}
    text = json.dumps({"images": entry}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
