"""The figures that the paper prints in its Table 1, and which arm of a study stands for which row.

Source: Song et al. 2026, arXiv 2603.15932, Table 1 (NLST test split, 450 pairs, 53 malignant; AUROC
and AUPRC are means over 20 single draws). Other cohorts are not expected to reach these numbers;
only the order of the rows is compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SOURCE = "Song et al. 2026, arXiv 2603.15932, Table 1"


@dataclass(frozen=True)
class PublishedRow:
    """One row of the paper's table.

    Attributes:
        title: The row's name there.
        method: The method of this library that the row is about.
        values: LPIPS, FID, AUROC and AUPRC as printed, by our names of these columns.
        settings: Values, by dotted path, that an arm of this method sets beyond its preset.
        by_default: Whether an arm that sets nothing stands for this row too.
    """

    title: str
    method: str
    values: Mapping[str, float]
    settings: Mapping[str, Any] = field(default_factory=dict)
    by_default: bool = True

    def stands_for(self, method: str, settings: Mapping[str, Any]) -> bool:
        """Return whether an arm is this row: its method, and nothing set that the row lacks."""
        if method != self.method:
            return False
        return dict(settings) == dict(self.settings) or (self.by_default and not settings)


def _row(
    title: str,
    method: str,
    figures: tuple[float, float, float, float],
    settings: Mapping[str, Any] | None = None,
    *,
    by_default: bool = True,
) -> PublishedRow:
    values = dict(zip(("lpips", "fid", "auroc", "auprc"), figures, strict=True))
    return PublishedRow(title, method, values, settings or {}, by_default)


PUBLISHED = (
    _row("McWGAN", "mcwgan", (0.364, 80.443, 0.763, 0.307)),
    _row(
        "CorrFlowNet ODE",
        "corrflownet",
        (0.202, 91.695, 0.779, 0.318),
        {"draws.sampler": "ode"},
        by_default=False,
    ),
    _row("SD1.5", "sd15", (0.207, 97.550, 0.701, 0.245)),
    _row("Flux", "flux", (0.248, 95.843, 0.668, 0.227)),
    _row("DDL-CXR", "ddl_cxr", (0.235, 122.410, 0.701, 0.237)),
    _row("ImageFlowNet SDE", "imageflownet", (0.362, 217.706, 0.782, 0.339)),
    _row(
        "CorrFlowNet SDE",
        "corrflownet",
        (0.202, 88.560, 0.776, 0.321),
        {"draws.sampler": "sde"},
    ),
    _row("NAMD", "namd", (0.220, 83.060, 0.805, 0.346)),
    _row(
        "NAMD w/o L_align",
        "namd",
        (0.205, 101.301, 0.765, 0.305),
        {"vae.alignment.weight": 0},
        by_default=False,
    ),
)
"""The rows of trained methods, in the paper's order."""

INTERPRETED = {
    "mcwgan": "partly our interpretation: the appendices with its networks and losses were not "
    "readable, and no code is public",
    "corrflownet": "partly our interpretation: only the abstract was readable, and neither code "
    "nor hyperparameters are public",
}
"""Methods whose publication leaves too much open for the row to be called theirs."""

CONFOUNDED = {
    "authors_no_align": "the authors' released configuration of the row without L_align: it also "
    "changes learning rate and batch, so its difference is not the alignment's alone",
}
"""Arms, by name, that change more than what they are named after."""


def published_row(method: str, settings: Mapping[str, Any]) -> PublishedRow | None:
    """Return the row of the paper that an arm stands for, if there is one."""
    return next((row for row in PUBLISHED if row.stands_for(method, settings)), None)
