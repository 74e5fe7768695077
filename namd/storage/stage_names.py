"""What a stage is, as records and events say it; the one place where a label is taken apart."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

_SPLITS = ("train", "validation", "test")
_OLD_ROLES = {
    "draws": "draw",
    "scores": "score",
    "reference": "reference",
    "ideal": "reference",
    "reconstruction": "reference",
}
"""Roles by family in records that were written before records had roles; all else is unknown."""


@dataclass(frozen=True)
class StageName:
    """A stage, or one member of a family, as readers without its method know it.

    Attributes:
        name: The name of its folder in the store: `draws-test`.
        index: Draw index of a member of a family; None: there is only one artifact.
        family: The name without the split: `draws`.
        role: What the stage is for (see namd.methods.base.StageRole); empty: not recorded.
        split: The one split whose cases it is about; None: no single one.
    """

    name: str
    index: int | None = None
    family: str = ""
    role: str = ""
    split: str | None = None

    @property
    def label(self) -> str:
        """The name shown to people: `draws-test[7]`."""
        return label_of(self.name, self.index)

    def to_mapping(self) -> dict[str, Any]:
        """Return the fields that a record has of it, the label left out."""
        return asdict(self)

    @classmethod
    def read(cls, record: Mapping[str, Any], label: str) -> "StageName":
        """Return the stage that a record is about, from its fields.

        Records of earlier versions have the label alone, which says the rest.
        """
        if not record.get("family"):
            return cls._of_label(label)
        told: dict[str, Any] = {each.name: record.get(each.name) for each in fields(cls)}
        return cls(**told)

    @classmethod
    def _of_label(cls, label: str) -> "StageName":
        name, _, rest = label.partition("[")
        index = rest.removesuffix("]")
        family, _, split = name.rpartition("-")
        if not family or split not in _SPLITS:
            family, split = name, ""
        return cls(
            name,
            int(index) if index.isdecimal() else None,
            family,
            _OLD_ROLES.get(family, ""),
            split or None,
        )


def label_of(name: str, index: int | None) -> str:
    """Return the name under which a stage, or one member of a family, is read and shown."""
    return name if index is None else f"{name}[{index}]"
