"""Some columns of a cohort, for a reader who may see no others: they are refused by name.

Images are those of the cohort itself or of Arrow's buffers, never copies, and columns that may not
be seen are not read from disk.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from namd.config.refusal import RefusingMapping
from namd.data import schema
from namd.data.cohort import (
    CARD_PREFIX,
    Cohort,
    damage_named,
    image_stack,
    normalised,
    positions,
    read_card,
    read_cases,
    read_schema,
    require_columns,
)

ALWAYS = ("case_id", "split")
"""Columns that enter every fingerprint and may always be read."""

_COLUMN_OF = {name: name for name in schema.TENSORS} | {"has_followup": "followup"}
"""Column behind each image attribute of a cohort."""

Refuse = Callable[[str], Exception]
"""From the name of a column that may not be read to the error."""


class Readable(frozenset[str]):
    """Names of columns; `*` among them stands for all but the parts of the card."""

    def __contains__(self, name: object) -> bool:
        """Say whether a column may be read."""
        everything = super().__contains__(schema.EVERYTHING)
        return super().__contains__(name) or (
            everything and isinstance(name, str) and not name.startswith(CARD_PREFIX)
        )


class ViewedTable(pd.DataFrame):
    """A table whose reader may not read some columns.

    A column that is absent because it may not be read is refused by name in `table[name]`,
    `table[[...]]`, `name in table`, `table.get(name)` and `table.name`; every other absent column
    is what it is in any DataFrame.
    """

    _metadata = ("_refusal",)
    _refusal: Callable[[str], Exception | None] | None = None

    @property
    def _constructor(self) -> type["ViewedTable"]:
        return ViewedTable

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - whatever pandas takes and returns
        """Return what a DataFrame does."""
        for name in (key,) if isinstance(key, str) else key if isinstance(key, list) else ():
            self._require(name)
        return super().__getitem__(key)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Return what a DataFrame does."""
        if not name.startswith("_"):
            self._require(name)
        return super().__getattr__(name)

    def __contains__(self, key: Any) -> bool:  # noqa: ANN401
        """Say whether there is such a column."""
        self._require(key)
        return super().__contains__(key)

    def _require(self, name: object) -> None:
        if self._refusal is None or not isinstance(name, str) or name in self.columns:
            return
        if (error := self._refusal(name)) is not None:
            raise error


class CohortView(Cohort):
    """A cohort of which some columns may be read.

    Args:
        table: Scalar columns, as a Cohort holds them; those that may not be read are left out.
        images: (N, S, S) by name; likewise.
        has_followup: Which cases have one, (N,).
        card: The data card; of it the parts that are named `card.<part>` may be read.
        columns: Names of what may be read; `*` for every column of the table and every image.
        refuse: Makes the error for any other column.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        images: Mapping[str, npt.NDArray[Any]],
        has_followup: npt.NDArray[np.bool_] | None,
        card: dict[str, Any],
        columns: Collection[str],
        refuse: Refuse,
    ) -> None:
        self._columns, self._refuse = Readable((*ALWAYS, *columns)), refuse
        shown = [name for name in table.columns if name in self._columns]
        self.table = ViewedTable(pd.DataFrame(table)[shown])
        self.table._refusal = partial(_refused, self._columns, refuse)
        self._images = {name: stack for name, stack in images.items() if name in self._columns}
        self.__dict__.update(self._images, has_followup=has_followup)
        # Read as a mapping everywhere; only a Cohort of its own is ever given another card.
        self.card = cast("dict[str, Any]", _parts(card, self._columns, refuse))
        self._require_stacks()

    @classmethod
    def of(cls, cohort: Cohort, columns: Collection[str], refuse: Refuse) -> "CohortView":
        """Return a view of a cohort in memory; its images are shared."""
        return cls(cohort.table, cohort.stacks, cohort.has_followup, cohort.card, columns, refuse)

    @classmethod
    def read_columns(
        cls,
        folder: Path,
        splits: Sequence[str],
        columns: Collection[str],
        refuse: Refuse,
    ) -> "CohortView":
        """Read some columns of some splits, as `Cohort.read` would.

        Raises InputError if the folder is no cohort, or its file is damaged.
        """
        require_columns(folder)
        readable = Readable((*ALWAYS, *columns))
        stored = [name for name in read_schema(folder).names if name in readable]
        images = [name for name in schema.TENSORS if name in readable]
        if not set(images) <= set(stored):
            stored.append("baseline")  # an absent image is as large as this one
        table = read_cases(folder, list(dict.fromkeys(stored)), splits)
        stacks = {name: image_stack(table, name) for name in images}
        scalars = table.select([name for name in stored if name not in schema.TENSORS])
        card = read_card(folder)
        with damage_named(folder):
            return cls(
                normalised(scalars.to_pandas()),
                {name: stack for name, (stack, _) in stacks.items()},
                stacks["followup"][1] if "followup" in stacks else None,
                card,
                columns,
                refuse,
            )

    def __getattribute__(self, name: str) -> Any:  # noqa: ANN401
        """Refuse images that may not be read."""
        column = _COLUMN_OF.get(name)
        if column is not None and column not in self._columns:
            raise self._refuse(column)
        return super().__getattribute__(name)

    def __repr__(self) -> str:
        return f"CohortView({len(self)} cases, {', '.join(sorted(self._columns))})"

    @property
    def stacks(self) -> Mapping[str, npt.NDArray[Any]]:
        """The image columns that may be read, by name."""
        return RefusingMapping(self._images, self._columns, self._refuse)

    def select(self, index: npt.ArrayLike) -> "CohortView":
        """Return the cases at integer positions (or where a boolean array is true), in order."""
        rows = positions(index)
        has_followup = self.__dict__["has_followup"]
        return CohortView(
            self.table.iloc[rows].reset_index(drop=True),
            {name: stack[rows] for name, stack in self._images.items()},
            None if has_followup is None else has_followup[rows],
            dict(self.card),
            self._columns,
            self._refuse,
        )

    def _require_stacks(self) -> None:
        """Raise ValueError unless images and table belong together."""
        sizes = {stack.shape[1:] for stack in self._images.values()}
        for name, stack in self._images.items():
            if stack.dtype != schema.TENSOR_TYPES[name]:
                raise ValueError(f"{name} is {stack.dtype}, not {schema.TENSOR_TYPES[name]}")
            if len(stack) != len(self.table) or stack.shape[1] != stack.shape[2] or len(sizes) > 1:
                raise ValueError(f"{name} has shape {stack.shape}, the table {len(self)} rows")


def _refused(columns: Collection[str], refuse: Refuse, name: str) -> Exception | None:
    """Return why a column of the schema may not be read; None for any other name."""
    known = name in schema.TENSORS or schema.scalar_type(name) is not None
    return refuse(name) if known and name not in columns else None


def _parts(card: dict[str, Any], columns: Collection[str], refuse: Refuse) -> RefusingMapping[Any]:
    parts = {c.removeprefix(CARD_PREFIX) for c in columns if c.startswith(CARD_PREFIX)}
    return RefusingMapping(card, parts, lambda part: refuse(f"{CARD_PREFIX}{part}"))
