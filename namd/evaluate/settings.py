"""What is evaluated and how its intervals are formed, as values. Torch-free."""

from dataclasses import dataclass, field
from typing import Literal

from namd.config.parsing import LATER

BASELINE, FOLLOWUP, IDEAL = "real_baseline", "real_followup", "ideal_sampler"
PREDICTOR = "ideal_predictor"
"""Rows of the result table that other rows are read against."""

MAXIMUM_DRAWS = 1000
"""Each draw is an artifact of its own; the paper has 20."""


@dataclass(frozen=True)
class EvaluateSettings:
    """The evaluation of a run.

    Attributes:
        split: Split whose cases are drawn and scored.
        num_draws: K.
        num_cases: Size of the evaluated subset (whole patients in hash order); None: the split.
        minimum_malignant: The subset grows until it holds as many malignant cases.
        lpips: `alex`: LPIPS with AlexNet's trunk, which must be on disk; `off`; `auto`: the
            first that this machine can have.
        fid: `inception`: FID and KID on Inception's 2048 features; `off`; `auto` likewise.
        ideal_seed: Seed of the ideal sampler's draws.
        num_bootstrap: Resamples of the patients behind an interval.
        interval: Their central share.
        coverage: Nominal coverage of the intervals of drawn diameters.
        bootstrap_seed: Seed of the resamples; the same ones serve every row.
        ensemble: What the K draws of a case come to: the mean of their judge probabilities, or of
            the `logit`s (released code).
        deviation: Which deviation over draws a table shows: of a `sample` (ddof 1), or of the
            `population` (ddof 0, released code). Both are stored.
        judge_seeds: Seeds of further judges, trained like the first one and shown the same images.
            Every AUROC and AUPRC is then the mean over judges, and its interval holds how far
            judges of other seeds would have ranked otherwise.
        copies: Whether draws are compared with the train crops: how near the nearest one is, and
            how many draws are as near as copies.
    """

    split: Literal["train", "validation", "test"] = "test"
    num_draws: int = 20
    num_cases: int | None = None
    minimum_malignant: int = 80
    lpips: Literal["auto", "alex", "off"] = "auto"
    fid: Literal["auto", "inception", "off"] = "auto"
    ideal_seed: int = 0
    num_bootstrap: int = 2000
    interval: float = 0.95
    coverage: float = 0.9
    bootstrap_seed: int = 0
    ensemble: Literal["probability", "logit"] = field(default="probability", metadata=LATER)
    deviation: Literal["sample", "population"] = field(default="sample", metadata=LATER)
    judge_seeds: tuple[int, ...] = field(default=(), metadata=LATER)
    copies: bool = field(default=True, metadata=LATER)

    def __post_init__(self) -> None:
        """Reject impossible counts and shares."""
        if not 1 <= self.num_draws <= MAXIMUM_DRAWS:
            raise ValueError(f"num_draws lies in 1..{MAXIMUM_DRAWS:,}, not {self.num_draws}")
        if self.num_cases is not None and self.num_cases < 1:
            raise ValueError(f"num_cases is 1 or more or null, not {self.num_cases}")
        if self.minimum_malignant < 0:
            raise ValueError(f"minimum_malignant is 0 or more, not {self.minimum_malignant}")
        if self.num_bootstrap < 2:
            raise ValueError(f"num_bootstrap is 2 or more, not {self.num_bootstrap}")
        if (
            len(set(self.judge_seeds)) < len(self.judge_seeds)
            or min(self.judge_seeds, default=0) < 0
        ):
            raise ValueError(
                f"judge_seeds are different numbers of 0 or more, not {list(self.judge_seeds)}"
            )
        for name in ("interval", "coverage"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} lies between 0 and 1, not {getattr(self, name)}")
