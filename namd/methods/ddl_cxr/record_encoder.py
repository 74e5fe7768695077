"""The record as 13 feature tokens and a CLS token through one transformer layer."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from namd.data.schema import CODES, EHR_FEATURES
from namd.methods.ddl_cxr.settings import RecordEncoderSettings

NUMBERS = ("SCT_LONG_DIA", "SCT_PERP_DIA", "age")
WEIGHTS_FILE, STATISTICS_FILE = "record_encoder.safetensors", "record_encoder.json"


@dataclass(frozen=True)
class RecordBatch:
    """Records as rows of a table of embeddings.

    Attributes:
        rows: For each feature the row of its code, or of `missing`.
        values: Standardised where the feature is a number that is there; else 0.
    """

    rows: Int[Tensor, "B F"]
    values: Float[Tensor, "B F"]

    def at(self, index: np.ndarray) -> "RecordBatch":
        """Return the records of these numbers."""
        chosen = torch.from_numpy(index)
        return RecordBatch(self.rows[chosen], self.values[chosen])

    def to(self, device: str) -> "RecordBatch":
        """Return them on a device."""
        return RecordBatch(self.rows.to(device), self.values.to(device))


@dataclass(frozen=True)
class RecordStatistics:
    """Mean and deviation of each number over the train split; missing values are skipped."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def fit(cls, table: pd.DataFrame) -> "RecordStatistics":
        """Measure them; a number that nobody has, or all have alike, is left as it is."""
        numbers = [_column(table, name) for name in NUMBERS]
        known = [column[np.isfinite(column)] for column in numbers]
        mean = tuple(float(column.mean()) if len(column) else 0.0 for column in known)
        spread = [float(column.std()) if len(column) else 0.0 for column in known]
        return cls(mean, tuple(value if value > 0 else 1.0 for value in spread))

    def batch(self, table: pd.DataFrame) -> RecordBatch:
        """Return every record of a table. A code that is not known counts as missing."""
        rows = np.zeros((len(table), len(EHR_FEATURES)), np.int64)
        values = np.zeros((len(table), len(EHR_FEATURES)), np.float32)
        first = 0
        for place, name in enumerate(EHR_FEATURES):
            column = _column(table, name)
            if name in NUMBERS:
                number = NUMBERS.index(name)
                known = np.isfinite(column)
                scaled = (column - self.mean[number]) / self.deviation[number]
                values[:, place] = np.where(known, scaled, 0.0)
                rows[:, place] = first + known
                first += 2
                continue
            rows[:, place] = first
            for offset, code in enumerate(sorted(CODES[name]), start=1):
                rows[column == code, place] = first + offset
            first += 1 + len(CODES[name])
        return RecordBatch(torch.from_numpy(rows), torch.from_numpy(values))


def num_rows() -> int:
    """Return the rows of the table of embeddings: a row for each code, and one for `missing`."""
    categories = [len(CODES[name]) for name in EHR_FEATURES if name not in NUMBERS]
    return 2 * len(NUMBERS) + sum(1 + count for count in categories)


def _column(table: pd.DataFrame, name: str) -> np.ndarray:
    return table[name].to_numpy(dtype=np.float64, na_value=np.nan)


class RecordEncoder(nn.Module):
    """(e_cls, e_1, ..., e_13) = Layer(CLS, x_1, ..., x_13) with x_f = E[code_f] + value_f s_f.

    One transformer layer as in the publication: sinusoidal positions, attention, batch norm,
    GELU, batch norm. How a static record becomes tokens is ours: the publication reads a series.
    """

    positions: Tensor

    def __init__(self, settings: RecordEncoderSettings) -> None:
        super().__init__()
        width, features = settings.width, len(EHR_FEATURES)
        self.codes = nn.Embedding(num_rows(), width)
        self.slopes = nn.Parameter(torch.randn(features, width) * width**-0.5)
        self.cls = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.register_buffer("positions", sinusoids(features + 1, width), persistent=False)
        self.attention = nn.MultiheadAttention(
            width, settings.num_heads, dropout=settings.dropout, batch_first=True
        )
        self.feedforward = nn.Sequential(
            nn.Linear(width, settings.feedforward),
            nn.GELU(),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.feedforward, width),
        )
        self.norms = nn.ModuleList([nn.BatchNorm1d(width), nn.BatchNorm1d(width)])
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, records: RecordBatch) -> Float[Tensor, "B T D"]:
        """Return the encoded sequence, CLS first."""
        tokens = self.codes(records.rows) + records.values[..., None] * self.slopes
        cls = self.cls.expand(len(tokens), -1, -1)
        x = self.dropout(torch.cat([cls, tokens], 1) + self.positions)
        attended = self.attention(x, x, x, need_weights=False)[0]
        x = self._normed(0, x + self.dropout(attended))
        return self._normed(1, x + self.dropout(self.feedforward(x)))

    def _normed(self, number: int, tokens: Tensor) -> Tensor:
        return self.norms[number](tokens.transpose(1, 2)).transpose(1, 2)


def sinusoids(length: int, width: int) -> Float[Tensor, "T D"]:
    """Return sin and cos of position / 10000^(2i / D) (Vaswani et al. 2017, Section 3.5)."""
    place = torch.arange(length)[:, None].float()
    angles = place / 10000 ** (torch.arange(0, width, 2).float() / width)
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)


def save_encoder(encoder: RecordEncoder, statistics: RecordStatistics, folder: Path) -> None:
    """Write weights and statistics."""
    state = {name: value.cpu().contiguous() for name, value in encoder.state_dict().items()}
    save_file(state, folder / WEIGHTS_FILE)
    content = {"mean": statistics.mean, "deviation": statistics.deviation}
    (folder / STATISTICS_FILE).write_text(json.dumps(content, sort_keys=True))


def load_encoder(
    folder: Path, settings: RecordEncoderSettings
) -> tuple[RecordEncoder, RecordStatistics]:
    """Undo `save_encoder`; the encoder is frozen and in eval mode."""
    encoder = RecordEncoder(settings)
    encoder.load_state_dict(load_file(folder / WEIGHTS_FILE))
    found = json.loads((folder / STATISTICS_FILE).read_text())
    statistics = RecordStatistics(tuple(found["mean"]), tuple(found["deviation"]))
    return encoder.requires_grad_(False).eval(), statistics
