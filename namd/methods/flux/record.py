"""The record as tokens [ours]: FLUX.1 reads text through CLIP and T5, which no run here has.

Each of the thirteen features is one token of the sequence that FLUX calls encoder_hidden_states;
all of them together, through one linear layer, are its pooled_projections.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from namd.data.schema import CODES, EHR_FEATURES

FILE, WEIGHTS_FILE = "record.json", "record.safetensors"
WIDTHS = tuple(len(CODES[name]) if name in CODES else 2 for name in EHR_FEATURES)
"""Numbers of each feature: one for each code; of a measured one its value, and 1 if it is known."""


@dataclass(frozen=True)
class RecordScale:
    """How measured features become numbers.

    Attributes:
        mean: Of each measured feature over the train pairs, in its own unit.
        std: Likewise (ddof 0); 1 if it does not vary.
        include: Features that are read; the others count as missing.
    """

    mean: dict[str, float]
    std: dict[str, float]
    include: tuple[str, ...]

    @classmethod
    def fit(cls, table: pd.DataFrame, include: tuple[str, ...]) -> "RecordScale":
        """Measure means and deviations; missing values are skipped."""
        mean, std = {}, {}
        for name in EHR_FEATURES:
            if name in CODES:
                continue
            known = table[name].to_numpy(np.float64, na_value=np.nan)
            known = known[np.isfinite(known)]
            mean[name] = float(known.mean()) if len(known) else 0.0
            std[name] = (float(known.std()) if len(known) else 0.0) or 1.0
        return cls(mean, std, include)

    def numbers(self, table: pd.DataFrame) -> Float[Tensor, "N F"]:
        """Return the features of each record side by side; all zeros where one is missing."""
        blocks = [self._block(table[name], name) for name in EHR_FEATURES]
        return torch.from_numpy(np.concatenate(blocks, 1).astype(np.float32))

    def _block(self, column: pd.Series, name: str) -> np.ndarray:
        values = column.to_numpy(np.float64, na_value=np.nan)
        if name not in self.include:
            values = np.full_like(values, np.nan)
        if name in CODES:
            return values[:, None] == np.array(sorted(CODES[name]), np.float64)
        known = np.isfinite(values)
        scaled = np.where(known, (values - self.mean[name]) / self.std[name], 0.0)
        return np.stack([scaled, known], 1)


class RecordTokens(nn.Module):
    """From a record's numbers to the two texts that the transformer reads."""

    def __init__(self, token_width: int, pooled_width: int) -> None:
        super().__init__()
        self.tokens = nn.ModuleList([nn.Linear(width, token_width) for width in WIDTHS])
        self.pooled = nn.Linear(sum(WIDTHS), pooled_width)

    def forward(
        self, numbers: Float[Tensor, "B F"]
    ) -> tuple[Float[Tensor, "B L J"], Float[Tensor, "B P"]]:
        """Return encoder_hidden_states, a token a feature, and pooled_projections."""
        blocks = numbers.split(WIDTHS, 1)
        states = [token(block) for token, block in zip(self.tokens, blocks, strict=True)]
        return torch.stack(states, 1), self.pooled(numbers)


def save_record(reader: RecordTokens, scale: RecordScale, folder: Path) -> None:
    """Write weights, scale and widths."""
    weights = {name: value.cpu().contiguous() for name, value in reader.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    widths = [reader.tokens[0].out_features, reader.pooled.out_features]
    (folder / FILE).write_text(json.dumps(asdict(scale) | {"widths": widths}, sort_keys=True))


def load_record(folder: Path) -> tuple[RecordTokens, RecordScale]:
    """Undo `save_record`."""
    found = json.loads((folder / FILE).read_text())
    reader = RecordTokens(*found["widths"])
    reader.load_state_dict(load_file(folder / WEIGHTS_FILE))
    return reader, RecordScale(found["mean"], found["std"], tuple(found["include"]))
