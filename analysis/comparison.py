"""A comparison of methods in the form of the paper's Table 1, and its order beside the paper's.

Values, intervals, differences and Holm's p are those of `study_table`; nothing is measured here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student

from analysis.arm_sizes import ArmSize, arm_sizes
from analysis.published import (
    CONFOUNDED,
    INTERPRETED,
    PUBLISHED,
    PublishedRow,
    published_row,
)
from analysis.study_table import StudyTable
from namd.ledger.view import StudyView
from namd.statistics.correlation import spearman
from namd.statistics.metrics import lower_is_better
from namd.storage.base import Storage

STARTS = ("method", "preset")
"""Overrides that say what an arm starts from; all others are settings of its own."""

FEWEST_ROWS = 3
"""Of two rows the order is right or wrong by a coin."""

MEASURED_AGAINST = (
    ("lpips", "lpips"),
    ("fid", "fid"),
    ("kid_judge", "fid"),
    ("auroc_per_draw", "auroc"),
    ("auroc", "auroc"),
    ("auprc_per_draw", "auprc"),
    ("auprc", "auprc"),
)
"""Our metric and the paper's column that its order is held against."""


@dataclass(frozen=True)
class ComparedArm:
    """One row of the table.

    Attributes:
        arm: Name of the arm.
        title: What people read.
        method: Its method.
        settings: What it sets beyond its method's preset, by dotted path.
        row: The arm's row in the study's table.
        size: Parameters and training seconds; None if no trial is completed.
        published: The paper's row that it stands for, if there is one.
    """

    arm: str
    title: str
    method: str
    settings: Mapping[str, Any]
    row: Mapping[str, Any]
    size: ArmSize | None = None
    published: PublishedRow | None = None

    def mean(self, metric: str) -> float | None:
        """Return the mean of a metric over training seeds; None if it was not measured."""
        found = self.row.get(metric)
        return None if not found else found["mean"]

    @property
    def draws_once(self) -> bool:
        """Whether it has a single draw although others have several."""
        return self.row.get("num_draws") == 1


@dataclass(frozen=True)
class OrderAgreement:
    """The order of the rows under one metric beside the paper's.

    Attributes:
        metric: Ours.
        against: The paper's column.
        titles: The rows that both have, in the paper's order.
        ours: Their places here, 1 the best; ties share their mean.
        theirs: Their places in the paper.
        rho: Spearman's correlation; None if one side ranks all rows alike.
        chance: What |rho| stays below in 95% of random orders (Student's t, an approximation).
    """

    metric: str
    against: str
    titles: tuple[str, ...]
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    rho: float | None
    chance: float


@dataclass(frozen=True)
class Comparison:
    """A study of several methods.

    Attributes:
        arms: In the paper's order, then those that the paper lacks.
        orders: Per metric that enough rows have.
        interpreted: Method to what of its row is our interpretation; those in the table alone.
        confounded: Arm to what else it changes; those in the table alone.
    """

    arms: tuple[ComparedArm, ...]
    orders: tuple[OrderAgreement, ...]
    interpreted: Mapping[str, str] = field(default_factory=dict)
    confounded: Mapping[str, str] = field(default_factory=dict)


def comparison_of(
    storage: Storage,
    view: StudyView,
    table: StudyTable,
    titles: Mapping[str, str] | None = None,
) -> Comparison | None:
    """Return the comparison that a study is; None if all its arms are of one method.

    Args:
        storage: The store.
        view: The study's ledger.
        table: Its table.
        titles: Title per method; a method without one keeps its name.
    """
    base = view.specification.get("base") or {}
    first = str(base.get("method") or "")
    methods = {row["arm"]: str(row["overrides"].get("method", first)) for row in table.rows}
    if table.kind != "ablation" or len(set(methods.values())) < 2:
        return None
    sizes = arm_sizes(storage, view, methods)
    arms = [
        _arm(row, methods[row["arm"]], sizes.get(row["arm"]), titles or {}) for row in table.rows
    ]
    places = [_place(arm) for arm in arms]
    ordered = tuple(arms[i] for i in np.argsort(places, kind="stable"))
    return Comparison(
        ordered,
        tuple(
            found for ours, theirs in MEASURED_AGAINST if (found := order_of(ordered, ours, theirs))
        ),
        {m: why for m, why in INTERPRETED.items() if m in methods.values()},
        {arm: why for arm, why in CONFOUNDED.items() if arm in methods},
    )


def order_of(arms: Sequence[ComparedArm], metric: str, against: str) -> OrderAgreement | None:
    """Return how one metric orders the rows that the paper has too; None if they are too few."""
    pairs = [
        (arm.published, value)
        for arm in arms
        if arm.published is not None and (value := arm.mean(metric)) is not None
    ]
    if len(pairs) < FEWEST_ROWS:
        return None
    sign = 1.0 if lower_is_better(metric) else -1.0
    ours = rankdata([sign * value for _, value in pairs])
    theirs = rankdata([sign * row.values[against] for row, _ in pairs])
    rho = spearman(ours, theirs)
    freedom = len(pairs) - 2
    t = float(student.ppf(0.975, freedom))
    return OrderAgreement(
        metric,
        against,
        tuple(row.title for row, _ in pairs),
        tuple(map(float, ours)),
        tuple(map(float, theirs)),
        float(rho) if np.isfinite(rho) else None,
        t / float(np.sqrt(freedom + t * t)),
    )


def _arm(
    row: Mapping[str, Any], method: str, size: ArmSize | None, titles: Mapping[str, str]
) -> ComparedArm:
    settings = {path: v for path, v in row["overrides"].items() if path not in STARTS}
    published = published_row(method, settings)
    title = titles.get(method, method)
    if published is not None:
        title = published.title
    elif settings:
        title = f"{title}, {row['arm'].replace('_', ' ')}"
    return ComparedArm(row["arm"], title, method, settings, row, size, published)


def _place(arm: ComparedArm) -> int:
    """Return an arm's place: the paper's, or behind the rows of its own method."""
    if arm.published is not None:
        return PUBLISHED.index(arm.published)
    own = [i for i, row in enumerate(PUBLISHED) if row.method == arm.method]
    return max(own, default=len(PUBLISHED))
