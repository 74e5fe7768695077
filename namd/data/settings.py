"""Configuration of splits and of the crops source, and what a run asks of a cohort.

Nothing here reads or computes.
"""

import math
from dataclasses import dataclass, field

MAX_SIZE_PX = 4096
STATED_ANGLES = {"to_180": (0, 45, 90, 135, 180), "to_135": (0, 45, 90, 135)}
"""Rotations that a configuration states: they are kept to, or refused."""


@dataclass(frozen=True)
class SplitFractions:
    """Expected share of patients in each split.

    Shares hold in expectation: a patient's place depends on its own hash alone.
    """

    train: float = 0.6
    validation: float = 0.1
    test: float = 0.3

    def __post_init__(self) -> None:
        shares = (self.train, self.validation, self.test)
        if not all(math.isfinite(share) and share >= 0 for share in shares):
            raise ValueError(f"split fractions must be 0 or more, got {shares}")
        if abs(sum(shares) - 1.0) > 1e-9:
            raise ValueError(f"split fractions must sum to 1, got {shares} = {sum(shares)}")


@dataclass(frozen=True)
class CohortDemands:
    """What one configuration asks of a cohort beyond what every run does.

    Attributes:
        image_size: Least height and width of the stored crops, in pixels.
        diameters: Whether both diameters must be known for some train case.
        turned: Whether images are turned by 45 degrees, for which stored crops must have room.
    """

    image_size: int = 1
    diameters: bool = False
    turned: bool = False

    @property
    def stored_size(self) -> int:
        """Least height and width of the stored crops, in pixels."""
        return room_to_turn(self.image_size) if self.turned else self.image_size


def room_to_turn(image_size: int) -> int:
    """Return the pixels of a stored crop that holds an image turned by 45 degrees."""
    return math.ceil(math.sqrt(2.0) * image_size)


@dataclass(frozen=True)
class CropSettings:
    """How stored crops are cut and which nodules enter.

    Attributes:
        spacing_mm: In-plane spacing that every crop is resampled to.
        size: Height and width of the stored crop, in pixels; None: 92, which has room for an image
            of 64 turned by 45 degrees, or 64 if some crop of the source ends before that.
        leave_out_short: Leave out cases whose crop ends before the stored one does; they are
            refused otherwise.
        smallest_mm: Least long diameter of a nodule whose follow-up is simulated.
        largest_mm: Greatest such diameter: a larger one has no room to grow in the crop.
        readers: Fewest readers that must have marked such a nodule.
        fractions: Shares of the splits.
    """

    spacing_mm: float = 0.5
    size: int | None = None
    leave_out_short: bool = False
    smallest_mm: float = 4.0
    largest_mm: float = 22.0
    readers: int = 2
    fractions: SplitFractions = field(default_factory=SplitFractions)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.spacing_mm) and self.spacing_mm > 0):
            raise ValueError(f"spacing_mm must be above 0, got {self.spacing_mm}")
        if self.size is not None and self.size < 8:
            raise ValueError(f"size must be at least 8 pixels, got {self.size}")
        if self.size is not None and self.size > MAX_SIZE_PX:
            raise ValueError(f"size must be at most {MAX_SIZE_PX} pixels, got {self.size}")
        if not 0 <= self.smallest_mm <= self.largest_mm:
            raise ValueError(
                f"smallest_mm...largest_mm must rise from 0 or more, got "
                f"{self.smallest_mm}...{self.largest_mm}"
            )
        if self.readers < 1:
            raise ValueError(f"readers must be at least 1, got {self.readers}")
