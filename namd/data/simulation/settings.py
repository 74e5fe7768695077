"""Every figure the simulated follow-up depends on. Nothing here draws or computes."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

Law = Literal["nlst", "doubling-time", "marked", "sober"]

OLDEST_YEARS = 120
REACH_SD = 5
"""Standard deviations from the mean within which ages can be drawn with ordinary precision."""

RENDERED_IMAGE_FACTOR = 0.8
"""`image_factor` of the calibrated default on rendered crops, which show Brock's image terms
more plainly than real ones do: at 1 a judge reads baselines better than is wanted."""


@dataclass(frozen=True)
class RecordSettings:
    """The patients' records that no image carries.

    Ages and the share of men are LUNA25's aggregates (2,120 NLST patients); the shares of
    emphysema and of each family flag are round figures of ours.
    """

    mean_age_years: float = 63.3
    sd_age_years: float = 5.2
    youngest_years: float = 55.0
    oldest_years: float = 76.0
    male: float = 0.57
    emphysema: float = 0.25
    family_flag: float = 0.05
    missing_lobe: float = 0.0

    def __post_init__(self) -> None:
        _require_shares(self, "male", "emphysema", "family_flag", "missing_lobe")
        _require_positive(self, "sd_age_years")
        youngest, oldest = self.youngest_years, self.oldest_years
        if not 0 <= youngest < oldest <= OLDEST_YEARS:
            raise ValueError(
                f"youngest_years...oldest_years must rise within 0...{OLDEST_YEARS}, got "
                f"{youngest}...{oldest}"
            )
        reach = REACH_SD * self.sd_age_years
        if not (youngest < self.mean_age_years + reach and oldest > self.mean_age_years - reach):
            raise ValueError(
                f"youngest_years...oldest_years {youngest}...{oldest} lies more than {REACH_SD} "
                f"sd_age_years {self.sd_age_years} from mean_age_years {self.mean_age_years}: "
                "nobody would be that old"
            )


@dataclass(frozen=True)
class SignSettings:
    """What a malignant nodule shows at a glance, one year on.

    Attributes:
        strength: 0 shows nothing, 1 the whole sign; scales opacity and extent alike.
        sensitivity: Share of malignant follow-ups that show the sign.
        false_rate: Share of benign follow-ups that show it too.
        core_share: Radius of a solid core over the radius of its ground-glass nodule.
        core_hu: Attenuation of the core: soft tissue, well below calcium.
        num_spicules: Fewest and most spicules of a solid nodule's margin.
        spicule_mm: Shortest and longest spicule, beyond the margin.
        spicule_width_mm: Full width at its root; below 1.5 mm an f8 autoencoder loses it.
        solid_hu: Attenuation that a solid nodule's inside moves towards.
        consolidation: Share of the way to `solid_hu` at strength 1.
    """

    strength: float = 1.0
    sensitivity: float = 0.85
    false_rate: float = 0.05
    core_share: float = 0.65
    core_hu: float = 30.0
    num_spicules: tuple[int, int] = (5, 8)
    spicule_mm: tuple[float, float] = (2.0, 4.0)
    spicule_width_mm: float = 2.4
    solid_hu: float = 50.0
    consolidation: float = 0.5

    def __post_init__(self) -> None:
        _require_shares(self, "sensitivity", "false_rate", "consolidation")
        if not 0 <= self.strength <= 2:
            raise ValueError(f"strength must lie in 0...2, got {self.strength}")
        if not 0 < self.core_share < 1:
            raise ValueError(f"core_share must lie between 0 and 1, got {self.core_share}")
        _require_positive(self, "spicule_width_mm")
        for name in ("num_spicules", "spicule_mm"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must rise from above 0, got {(low, high)}")
        for name in ("core_hu", "solid_hu"):
            if not -200 <= getattr(self, name) <= 120:
                raise ValueError(
                    f"{name} must be soft tissue, -200...120 HU, got {getattr(self, name)}"
                )


@dataclass(frozen=True)
class ScanSettings:
    """How the second scan differs from the first for reasons that say nothing.

    All are standard deviations, except that `noise_hu` is the range of the fresh noise's
    standard deviation and `noise_mm` its correlation length.
    """

    shift_mm: float = 0.7
    rotation_deg: float = 4.0
    offset_hu: float = 12.0
    noise_hu: tuple[float, float] = (8.0, 24.0)
    noise_mm: float = 0.5
    months_sd: float = 0.7

    def __post_init__(self) -> None:
        for name in ("shift_mm", "rotation_deg", "offset_hu", "months_sd"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be 0 or more, got {value}")
        _require_positive(self, "noise_mm")
        low, high = self.noise_hu
        if not 0 <= low <= high:
            raise ValueError(f"noise_hu must rise from 0 or more, got {self.noise_hu}")


@dataclass(frozen=True)
class SecondSliceSettings:
    """How a second slice through the same nodule, in another breath, differs from the first.

    In a real chest CT the lung's detail about its level correlates at 0.41 with the slice 1.5 mm
    away, 0.07 at 3 mm and 0.00 at 4.5 mm (docs/simulation.md): that of a second slice is new.

    Attributes:
        breathing_sd: Standard deviation of the logarithm of the in-plane scale between two held
            breaths. From total lung capacity to residual volume a nodule's volume changes by
            16.8% on average (Petkovska et al., Acad Radiol 2007;14:476-485), its diameter by 5.5%;
            two scans aimed at full inspiration differ by a part of that. 2% is our choice.
        level_mm: The lung's level is a Gaussian mean of this standard deviation; it stays.
        grain_mm: Likewise within nodule, wall and mediastinum, where only grain is new; it is
            shifted by this to twice this.
        kept_mm: Soft tissue at least this wide stays where it is.
        rim_mm: Lung this near to the nodule stays its own.
        border_mm: Width over which what stays and what is new are mixed.
        moved_mm: Least and most that a piece of lung is shifted, along rows and columns.
        smallest_mm2: A region below this area has too little detail to draw from and stays.
    """

    breathing_sd: float = 0.02
    level_mm: float = 4.0
    grain_mm: float = 1.5
    kept_mm: float = 5.0
    rim_mm: float = 2.0
    border_mm: float = 1.5
    moved_mm: tuple[float, float] = (3.0, 9.0)
    smallest_mm2: float = 12.0

    def __post_init__(self) -> None:
        if not 0 <= self.breathing_sd <= 0.1:
            raise ValueError(f"breathing_sd must lie in 0...0.1, got {self.breathing_sd}")
        lengths = ("level_mm", "grain_mm", "kept_mm", "rim_mm", "border_mm", "smallest_mm2")
        _require_positive(self, *lengths)
        low, high = self.moved_mm
        if not 0 < low <= high:
            raise ValueError(f"moved_mm must rise from above 0, got {self.moved_mm}")


@dataclass(frozen=True)
class SimulationSettings:
    """One law of progression.

    Attributes:
        law: Law of growth; see `namd.data.simulation.growth`.
        replicates: Times each nodule is repeated with fresh draws.
        prevalence: Mean probability of malignancy; the intercept is solved for it.
        image_factor: Multiplies Brock's terms of size, type and spiculation.
        record_factor: Multiplies Brock's terms of age, sex, family, emphysema and lobe.
        largest_mm: A follow-up's longest diameter stops here, so that it stays in the crop.
    """

    law: Law = "marked"
    replicates: int = 4
    prevalence: float = 0.15
    image_factor: float = 1.0
    record_factor: float = 3.0
    largest_mm: float = 26.0
    record: RecordSettings = field(default_factory=RecordSettings)
    signs: SignSettings = field(default_factory=SignSettings)
    scan: ScanSettings = field(default_factory=ScanSettings)

    def __post_init__(self) -> None:
        self._require_law()
        if self.replicates < 1:
            raise ValueError(f"replicates must be at least 1, got {self.replicates}")
        if not 0 < self.prevalence < 1:
            raise ValueError(f"prevalence must lie between 0 and 1, got {self.prevalence}")
        _require_positive(self, "largest_mm")
        for name in ("image_factor", "record_factor"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be 0 or more, got {value}")

    def _require_law(self) -> None:
        if self.law not in ("nlst", "doubling-time", "marked"):
            raise ValueError(f"law must be nlst, doubling-time or marked, got {self.law!r}")

    @classmethod
    def for_law(
        cls, law: Law, replicates: int | None = None, *, rendered: bool = False
    ) -> "SimulationSettings":
        """Return the settings that go with a law.

        `marked` is the calibrated default. `nlst` and `doubling-time` are the laws as
        published: growth alone, no sign at a glance, Brock's terms at the factors they
        were first measured with (0.8 and 2). `sober` is the law for sceptics; see
        `SoberSettings`.

        Args:
            law: Law of growth.
            replicates: Times each nodule is repeated; None: the default.
            rendered: The baselines are the phantom's, not real crops.
        """
        if law == "sober":
            sober = SoberSettings()
            return sober if replicates is None else replace(sober, replicates=replicates)
        settings = SimulationSettings(law=law)
        if rendered:
            settings = replace(settings, image_factor=RENDERED_IMAGE_FACTOR)
        if law != "marked":
            settings = replace(
                settings, image_factor=0.8, record_factor=2.0, signs=SignSettings(strength=0.0)
            )
        return settings if replicates is None else replace(settings, replicates=replicates)


def _sober_signs() -> SignSettings:
    """Half the default's strength, and half as many malignant follow-ups that show a sign."""
    usual = SignSettings()
    return replace(usual, strength=usual.strength / 2, sensitivity=usual.sensitivity / 2)


@dataclass(frozen=True)
class SoberSettings(SimulationSettings):
    """The law for sceptics: nothing that a nodule or a record says is turned up.

    Brock's terms as published (only the intercept is solved, for the prevalence), NLST's real
    one-year ratios, one future for each nodule, signs at half strength, and a follow-up that is a
    second slice in another breath, not the first slice warped.
    """

    law: Law = "sober"
    replicates: int = 1
    record_factor: float = 1.0
    signs: SignSettings = field(default_factory=_sober_signs)
    slice: SecondSliceSettings = field(default_factory=SecondSliceSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.replicates != 1:
            raise ValueError(
                f"law sober gives each nodule one future: replicates must be 1, got "
                f"{self.replicates}; more are to be had under law marked, nlst or doubling-time"
            )
        for name in ("image_factor", "record_factor"):
            if getattr(self, name) != 1:
                raise ValueError(
                    f"law sober takes Brock's terms as published: {name} must be 1, got "
                    f"{getattr(self, name)}"
                )

    def _require_law(self) -> None:
        if self.law != "sober":
            raise ValueError(f"law must be sober beside settings of a slice, got {self.law!r}")


def settings_class(law: object) -> type[SimulationSettings]:
    """Return the class that holds the settings of a law; that of an unknown one refuses it."""
    return SoberSettings if law == "sober" else SimulationSettings


def _require_shares(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in 0...1, got {value}")


def _require_positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be above 0, got {value}")
