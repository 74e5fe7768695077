"""A cohort in memory and on disk: one table, its image stacks and its data card.

Whether the cases make sense is `namd.data.checks`' to say, not this module's.
"""

import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from namd.config.document import read_json_mapping
from namd.config.errors import InputError
from namd.config.fingerprint import canonical_json
from namd.data import schema
from namd.data.card_schema import require_card

CASES_FILE = "cases.parquet"
CARD_FILE = "card.json"
CARD_PREFIX = "card."
ROWS_PER_GROUP = 1024


@dataclass
class Cohort:
    """Cases of one kind: a row per case, in the order of `case_id` once read from disk.

    In the table every numeric column is float64 with NaN for a missing value (so label, codes
    and flags too), rounded to the precision it is stored in; ids are plain strings. Columns
    named `source_*` live only in memory.

    Attributes:
        table: Every scalar column, index 0..N-1.
        baseline: int16 (N, S, S), HU.
        followup: int16 (N, S, S), HU; zeros where there is none.
        has_followup: bool (N,).
        mask: uint8 (N, S, S), 1 inside the nodule at baseline; all zeros where unknown.
        card: The data card.
    """

    table: pd.DataFrame
    baseline: npt.NDArray[np.int16]
    followup: npt.NDArray[np.int16] | None = None
    has_followup: npt.NDArray[np.bool_] | None = None
    mask: npt.NDArray[np.uint8] | None = None
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Bring the table to its dtypes and fill in what was left out.

        Raises:
            ValueError: stacks and table do not belong together.
        """
        self.table = normalised(self.table)
        if self.followup is None:
            self.followup = np.zeros_like(self.baseline)
            self.has_followup = np.zeros(len(self.table), dtype=bool)
        if self.has_followup is None:
            self.has_followup = np.ones(len(self.table), dtype=bool)
        if self.mask is None:
            self.mask = np.zeros(self.baseline.shape, dtype=np.uint8)
        self._require_stack("baseline", self.baseline, np.int16)
        self._require_stack("followup", self.followup, np.int16)
        self._require_stack("mask", self.mask, np.uint8)
        if self.has_followup.shape != (len(self.table),):
            raise ValueError(
                f"has_followup is {self.has_followup.shape}, the table has {len(self.table)} rows"
            )

    def __len__(self) -> int:
        return len(self.table)

    @property
    def size(self) -> int:
        """Height and width of the stored crops, in pixels."""
        return int(self.baseline.shape[-1])

    @property
    def spacing_mm(self) -> float:
        """In-plane spacing of the stored crops; NaN for an empty cohort."""
        return float(self.table["spacing_mm"].iloc[0]) if len(self) else float("nan")

    @property
    def simulated_columns(self) -> tuple[str, ...]:
        """The columns that hold a draw of the simulation."""
        return tuple(c for c in self.table.columns if c.startswith(schema.SIMULATED_PREFIX))

    @property
    def stacks(self) -> Mapping[str, npt.NDArray[Any]]:
        """The image columns by name."""
        return {"baseline": self.baseline, "followup": self._followup, "mask": self._mask}

    def select(self, index: npt.ArrayLike) -> "Cohort":
        """Return the cases at integer positions (or where a boolean array is true), in order."""
        rows = positions(index)
        return Cohort(
            table=self.table.iloc[rows],
            baseline=self.baseline[rows],
            followup=self._followup[rows],
            has_followup=self._has_followup[rows],
            mask=self._mask[rows],
            card=self.card,
        )

    @classmethod
    def read(cls, folder: str | Path, splits: Sequence[str] | None = None) -> "Cohort":
        """Read a cohort, or some of its splits.

        The stacks are views of Arrow's buffers (and so read-only) wherever the file is in
        order and complete, which is how `write` leaves it.

        Raises:
            InputError: the folder is no cohort, or a split has another name than the three.
        """
        folder = Path(folder)
        require_columns(folder)
        table = read_cases(folder, None, splits)
        stacks = {name: image_stack(table, name) for name in schema.TENSORS}
        scalars = table.select([c for c in table.column_names if c not in schema.TENSORS])
        card = read_card(folder)
        with damage_named(folder):
            return cls(
                table=scalars.to_pandas(),
                baseline=stacks["baseline"][0],
                followup=stacks["followup"][0],
                has_followup=stacks["followup"][1],
                mask=stacks["mask"][0],
                card=card,
            )

    def write(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write the cohort so that the folder appears whole or not at all.

        Rows are put in the order of `case_id`; `source_*` columns are left out; the content's
        fingerprint enters the card as `fingerprint`.

        Raises:
            InputError: the folder exists and holds something, and `overwrite` is false; or it
                cannot be written, and then nothing is left of it.
            ValueError: the table holds a column that the schema does not know.
        """
        folder = Path(folder)
        refuse_occupied(folder, overwrite)
        table = self.to_arrow()
        card = {**self.card, "fingerprint": digest_table(table, self.card, _all_columns(table))}
        text = json.dumps(card, indent=2, sort_keys=True, allow_nan=False)
        absent = [place for place in (folder.parent, *folder.parent.parents) if not place.exists()]
        draft = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
        try:
            draft.mkdir(parents=True)
            pq.write_table(
                table, draft / CASES_FILE, compression="zstd", row_group_size=ROWS_PER_GROUP
            )
            (draft / CARD_FILE).write_text(text + "\n", encoding="utf-8")
            _sync(draft / CASES_FILE, draft / CARD_FILE)
            _publish(draft, folder)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            _remove_empty(absent)
            raise InputError(
                f"{folder}: the cohort cannot be written ({_reason(error)}); nothing of it was "
                "left; free space or name another folder"
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self.card = card

    def to_arrow(self) -> pa.Table:
        """Return the cohort as the Arrow table that is written, in the order of `case_id`.

        Raises:
            ValueError: a column is missing or unknown to the schema.
        """
        written = [c for c in self.table.columns if not c.startswith(schema.SOURCE_PREFIX)]
        unknown = [c for c in written if schema.scalar_type(c) is None]
        if unknown:
            raise ValueError(f"the schema knows no column {', '.join(unknown)}")
        missing = [c for c in schema.COLUMN_TYPES if c not in self.table.columns]
        if missing:
            raise ValueError(f"the table has no column {', '.join(missing)}")
        arrow_schema = schema.arrow_schema(self.size, self.simulated_columns)
        order = np.argsort(self.table["case_id"].to_numpy(dtype=str), kind="stable")
        valid: dict[str, npt.NDArray[np.bool_]] = {
            "baseline": np.ones(len(self), dtype=bool),
            "followup": self._has_followup,
            "mask": np.asarray(self._mask.any(axis=(1, 2)), dtype=bool),
        }
        columns = []
        for arrow_field in arrow_schema:
            name = arrow_field.name
            if name in valid:
                stack = self.stacks[name]
                columns.append(_tensor_array(stack[order], valid[name][order], arrow_field.type))
            else:
                values = self.table[name].to_numpy()[order]
                columns.append(_scalar_array(values, arrow_field.type))
        return pa.Table.from_arrays(columns, schema=arrow_schema)

    def fingerprint(self, columns: Iterable[str], splits: Sequence[str] | None = None) -> str:
        """Return the digest of what these columns hold in these splits.

        It depends on the cases, not on the file: neither row order nor row groups,
        compression or other columns enter. `case_id` and `split` always do. A column named
        `card.<key>` stands for that part of the data card.

        Raises:
            ValueError: a name is no column of the schema.
        """
        table = self.to_arrow()
        if splits is not None:
            table = table.filter(pc.field("split").isin(list(splits)))
        return digest_table(table, self.card, columns)

    @property
    def _followup(self) -> npt.NDArray[np.int16]:
        assert self.followup is not None, "filled in by __post_init__"
        return self.followup

    @property
    def _has_followup(self) -> npt.NDArray[np.bool_]:
        assert self.has_followup is not None, "filled in by __post_init__"
        return self.has_followup

    @property
    def _mask(self) -> npt.NDArray[np.uint8]:
        assert self.mask is not None, "filled in by __post_init__"
        return self.mask

    def _require_stack(self, name: str, stack: npt.NDArray[Any], dtype: type[np.generic]) -> None:
        if stack.dtype != dtype:
            raise ValueError(f"{name} is {stack.dtype}, it must be {np.dtype(dtype)}")
        expected = (len(self.table), self.size, self.size)
        if stack.shape != expected:
            raise ValueError(f"{name} has shape {stack.shape}, the table asks for {expected}")


def positions(index: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Return integer positions; of a boolean array those at which it is true."""
    chosen = np.asarray(index)
    return np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.intp)


def require_columns(folder: Path) -> None:
    """Raise InputError if a cohort's file lacks a column without which nothing is read."""
    present = read_schema(folder).names
    for name in ("case_id", "baseline"):
        if name not in present:
            raise InputError(f"{folder / CASES_FILE}: no column {name}; rebuild the cohort")


@contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """Raise InputError naming the file if what was read of it does not fit together."""
    try:
        yield
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise InputError(
            f"{folder / CASES_FILE}: damaged ({_first_line(error)}); rebuild the cohort"
        ) from error


def cohort_fingerprint(
    folder: str | Path, columns: Iterable[str], splits: Sequence[str] | None = None
) -> str:
    """`Cohort.fingerprint` from disk, reading only the columns that enter it.

    Raises:
        InputError: the folder is no cohort.
        ValueError: a name is no column of the schema.
    """
    folder = Path(folder)
    columns = tuple(columns)
    card = read_card(folder)
    present = set(read_schema(folder).names)
    wanted = {"case_id", "split", *(c for c in columns if c in present)}
    return digest_table(read_cases(folder, sorted(wanted), splits), card, columns)


def read_schema(folder: str | Path) -> pa.Schema:
    """Return the Arrow schema of a cohort's file. Raises InputError if there is none."""
    path = Path(folder) / CASES_FILE
    try:
        return pq.read_schema(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder}: no cohort there ({CASES_FILE} is missing); build one with "
            "`namd cohort build`"
        ) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({_first_line(error)})") from error


def read_card(folder: str | Path) -> dict[str, Any]:
    """Return a cohort's data card. Raises InputError if it is missing or no data card."""
    path = Path(folder) / CARD_FILE
    if not Path(folder).is_dir():
        what = "is a file" if Path(folder).exists() else "no such folder"
        raise InputError(
            f"{folder}: {what}; name a cohort's folder, which holds {CASES_FILE} and {CARD_FILE}, "
            "or build one with `namd cohort build`"
        )
    if not path.exists():
        raise InputError(f"{path}: missing; a cohort is a folder with {CASES_FILE} and {CARD_FILE}")
    card = read_json_mapping(path)
    require_card(path, card)
    return card


def refuse_occupied(folder: Path, overwrite: bool = False) -> None:
    """Raise InputError if a cohort cannot be written because something is there."""
    if folder.is_dir() and (overwrite or not any(folder.iterdir())):
        return
    if folder.exists():
        raise InputError(f"{folder}: exists already; choose another folder or remove it")


def digest_table(table: pa.Table, card: Mapping[str, Any], columns: Iterable[str]) -> str:
    """Return the SHA-256 (hex) of some columns of cases, whatever their order.

    Raises:
        InputError: a column holds NaN or an infinite number.
        ValueError: a name is no column of the schema.
    """
    table = _in_order(table)
    digest = hashlib.sha256()
    for name in sorted({"case_id", "split", *columns}):
        digest.update(f"\n{name}:".encode())
        if name.startswith(CARD_PREFIX):
            digest.update(canonical_json(card.get(name.removeprefix(CARD_PREFIX))).encode())
        elif name in schema.TENSORS:
            stack, valid = image_stack(table, name)
            digest.update(str((stack.dtype, stack.shape)).encode())
            digest.update(np.packbits(valid).tobytes())
            digest.update(np.ascontiguousarray(stack).data)
        elif schema.scalar_type(name) is None:
            raise ValueError(f"the schema knows no column {name}")
        elif name in table.column_names:
            digest.update(_values_json(table, name).encode())
    return digest.hexdigest()


def _values_json(table: pa.Table, name: str) -> str:
    values = table[name].to_pylist()
    try:
        return canonical_json(values)
    except ValueError as error:
        wrong = [
            str(case)
            for case, value in zip(table["case_id"].to_pylist(), values, strict=True)
            if isinstance(value, float) and not math.isfinite(value)
        ]
        raise InputError(
            f"column {name}: NaN or infinite in {', '.join(wrong[:10])}; a value that is not known "
            "is null; rebuild the cohort"
        ) from error


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first, as far as nothing lies in them."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _all_columns(table: pa.Table) -> tuple[str, ...]:
    return tuple(table.column_names)


def read_cases(
    folder: Path, columns: list[str] | None, splits: Sequence[str] | None = None
) -> pa.Table:
    """Return stored cases as they are written, in order. Raises InputError if they are damaged."""
    read_schema(folder)
    filters = None
    if splits is not None:
        unknown = sorted(set(splits) - set(schema.SPLITS))
        if unknown:
            raise InputError(
                f"split {', '.join(unknown)}: unknown; there are {', '.join(schema.SPLITS)}"
            )
        filters = pc.field("split").isin(list(splits))
    try:
        table = pq.read_table(folder / CASES_FILE, columns=columns, filters=filters)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{folder / CASES_FILE}: unreadable ({_first_line(error)})") from error
    return _in_order(table)


def _in_order(table: pa.Table) -> pa.Table:
    """Return the rows by `case_id`; the table itself where they are so already."""
    if "case_id" not in table.column_names:
        return table
    ids = np.asarray(table["case_id"].to_pylist(), dtype=str)
    if len(ids) < 2 or (ids[:-1] <= ids[1:]).all():
        return table
    return table.take(pa.array(np.argsort(ids, kind="stable")))


def image_stack(table: pa.Table, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return an image column as (N, S, S) and which of its rows hold an image."""
    if name not in table.column_names:
        shape = image_stack(table, "baseline")[0].shape
        empty = np.zeros(shape, dtype=schema.TENSOR_TYPES[name])
        return empty, np.zeros(shape[0], dtype=bool)
    kind = table.schema.field(name).type
    if not isinstance(kind, pa.FixedShapeTensorType):
        raise InputError(f"column {name} is {kind}, it must be a fixed-shape tensor")
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], kind)
    storage = column.storage
    valid = storage.is_valid().to_numpy(zero_copy_only=False)
    length = int(np.prod(kind.shape))
    values = storage.values.slice(storage.offset * length, len(storage) * length)
    if values.null_count:
        values = _without_nulls(values, int((~valid).sum()) * length, name)
    stack = values.to_numpy().reshape(-1, *kind.shape)
    if not valid.all() and stack[~valid].any():
        stack = stack.copy()
        stack[~valid] = 0
    return stack, valid


def _without_nulls(values: pa.Array, absent: int, name: str) -> pa.Array:
    """Fill the pixels of absent images with zeros.

    Parquet gives an absent image back as absent pixels; a missing pixel of a present image is
    a broken file.
    """
    if values.null_count > absent:
        raise InputError(f"column {name}: {values.null_count - absent} pixels are missing")
    return values.fill_null(0)


def _tensor_array(
    stack: npt.NDArray[Any], valid: npt.NDArray[np.bool_], kind: pa.FixedShapeTensorType
) -> pa.Array:
    values = pa.array(np.ascontiguousarray(stack).reshape(-1))
    length = int(np.prod(kind.shape))
    absent = None if valid.all() else pa.array(~valid)
    storage = pa.FixedSizeListArray.from_arrays(values, length, mask=absent)
    return pa.ExtensionArray.from_storage(kind, storage)


def _scalar_array(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        return pa.array([None if pd.isna(v) else str(v) for v in values], type=kind)
    return pa.array(values, from_pandas=True).cast(kind)


def normalised(table: pd.DataFrame) -> pd.DataFrame:
    """Bring every scalar column to float64 rounded to its stored precision, or to strings."""
    columns = {}
    for name, values in table.reset_index(drop=True).items():
        kind = schema.scalar_type(str(name))
        if kind is None:
            columns[name] = values
        elif kind == "string":
            columns[name] = values.astype(object).where(values.notna(), None)
        else:
            numbers = pd.to_numeric(values, errors="raise").astype("float64")
            columns[name] = (
                numbers.astype("float32").astype("float64") if kind == "float32" else numbers
            )
    return pd.DataFrame(columns, index=pd.RangeIndex(len(table)))


def _sync(*paths: Path) -> None:
    for path in paths:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def _publish(draft: Path, folder: Path) -> None:
    """Rename a finished draft to its place; what was there goes only once the new is named."""
    if not folder.exists() or not any(folder.iterdir()):
        draft.rename(folder)
        return
    retired = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.old"
    folder.rename(retired)
    try:
        draft.rename(folder)
    except OSError:
        retired.rename(folder)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else _first_line(error)
