"""One follow-up: draw what changes, then apply it. Drawing never looks at an image."""

from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fftfreq, irfft2, rfft2, rfftfreq
from scipy.ndimage import map_coordinates
from scipy.special import ndtri

from namd.data.simulation import growth, signs, warp
from namd.data.simulation.brock import GROUND_GLASS_CODE, MIXED_CODE
from namd.data.simulation.contour import Outline
from namd.data.simulation.second_slice import second_slice
from namd.data.simulation.settings import SimulationSettings, SoberSettings

LOWEST_HU, HIGHEST_HU = -1024, 3071
NUM_UNIFORMS = 12
NUM_SLICE_SEEDS = 2**24
"""Every whole number below it survives a column of 32-bit floats."""


@dataclass(frozen=True)
class Nodule:
    """What drawing and rendering may know of a case at baseline; its label is not among it.

    Attributes:
        baseline: int16 (S, S), HU.
        mask: uint8 (S, S).
        outline: Of the mask.
        spacing_mm: In plane.
        attenuation: SCT_PRE_ATT.
        months: Between the scans.
    """

    baseline: NDArray[np.int16]
    mask: NDArray[np.uint8]
    outline: Outline
    spacing_mm: float
    attenuation: int
    months: float


@dataclass(frozen=True)
class Change:
    """Everything drawn for one follow-up, noise field aside; fields become `sim_*` columns."""

    growth_quantile: float
    growth_ratio: float
    sign: float
    core_offset: float
    core_angle: float
    num_spicules: float
    spicule_mm: float
    spicule_phase: float
    shift_row_mm: float
    shift_column_mm: float
    rotation_deg: float
    offset_hu: float
    noise_hu: float


@dataclass(frozen=True)
class SoberChange(Change):
    """The same under the law `sober`.

    Attributes:
        breathing_scale: In-plane size of everything, second scan over first.
        slice_seed: Of the second slice's detail, a whole number.
    """

    breathing_scale: float
    slice_seed: float


def draw(
    settings: SimulationSettings, nodule: Nodule, label: int, rng: np.random.Generator
) -> Change:
    """Draw a follow-up's change under a label.

    The same uniform numbers are taken whatever the label, so a case's draws differ between its
    two labels only by the laws they pass through.
    """
    uniform = rng.random(NUM_UNIFORMS)
    normal = ndtri(np.clip(uniform[8:12], 0.01, 0.99))
    sign, scan = settings.signs, settings.scan
    ratio = float(
        growth.ratio(settings.law, uniform[0], np.asarray(label), np.asarray(nodule.months))
    )
    # A nodule wider than the limit from the start must not shrink because of it.
    most = max(settings.largest_mm / (nodule.outline.widest_px * nodule.spacing_mm), 1.0)
    shown = uniform[1] < (sign.sensitivity if label == 1 else sign.false_rate)
    fewest, max_spicules = sign.num_spicules
    change = Change(
        growth_quantile=float(uniform[0]),
        growth_ratio=min(ratio, most),
        sign=float(shown and sign.strength > 0),
        core_offset=float(0.6 * uniform[2]),
        core_angle=float(2 * np.pi * uniform[3]),
        num_spicules=float(fewest + int(uniform[4] * (max_spicules - fewest + 1))),
        spicule_mm=_between(sign.spicule_mm, uniform[5]),
        spicule_phase=float(2 * np.pi * uniform[6]),
        noise_hu=_between(scan.noise_hu, uniform[7]),
        shift_row_mm=float(scan.shift_mm * normal[0]),
        shift_column_mm=float(scan.shift_mm * normal[1]),
        rotation_deg=float(scan.rotation_deg * normal[2]),
        offset_hu=float(scan.offset_hu * normal[3]),
    )
    return _sober(settings, change, rng) if isinstance(settings, SoberSettings) else change


def _sober(settings: SoberSettings, change: Change, rng: np.random.Generator) -> SoberChange:
    """Draw what the law `sober` adds; none of it depends on the label."""
    normal = float(ndtri(np.clip(rng.random(), 0.01, 0.99)))
    scale = float(np.float32(np.exp(settings.slice.breathing_sd * normal)))
    seed = float(rng.integers(NUM_SLICE_SEEDS))
    return SoberChange(**asdict(change), breathing_scale=scale, slice_seed=seed)


def render(
    settings: SimulationSettings, nodule: Nodule, change: Change, rng: np.random.Generator
) -> NDArray[np.int16]:
    """Render the second scan, int16 (S, S) in HU; `rng` draws its noise field alone."""
    sign = sign_of(nodule, change)
    beyond_mm = signs.reach_mm(sign, settings.signs) if change.sign else 0.0
    rows, columns, near, polar = sources(nodule, change, beyond_mm)
    first = _slice(settings, nodule, change).astype(np.float32)
    hu = map_coordinates(first, (rows, columns), order=1, mode="mirror").astype(float)
    if change.sign:
        hu[near] = signs.add(hu[near], polar, nodule.spacing_mm, sign, settings.signs)
    noise = noise_field(hu.shape[0], settings.scan.noise_mm / nodule.spacing_mm, rng)
    hu += change.offset_hu + change.noise_hu * noise
    return np.clip(np.rint(hu), LOWEST_HU, HIGHEST_HU).astype(np.int16)


def _slice(
    settings: SimulationSettings, nodule: Nodule, change: Change
) -> NDArray[np.int16] | warp.Floats:
    """The slice that growth and motion are applied to: the baseline, or another beside it."""
    if isinstance(settings, SoberSettings) and isinstance(change, SoberChange):
        seed = int(change.slice_seed)
        return second_slice(nodule.baseline, nodule.mask, nodule.spacing_mm, settings.slice, seed)
    return nodule.baseline


def follow_mask(nodule: Nodule, change: Change) -> NDArray[np.uint8]:
    """The nodule's mask in the second scan; spicules are not counted as nodule."""
    rows, columns, _, _ = sources(nodule, change)
    share = map_coordinates(nodule.mask.astype(float), (rows, columns), order=1, mode="constant")
    return (share > 0.5).astype(np.uint8)


def sources(
    nodule: Nodule, change: Change, beyond_mm: float = 0.0
) -> tuple[warp.Floats, warp.Floats, NDArray[np.bool_], warp.Polar]:
    """Where every pixel of the second scan lies in the first; see `warp.grown`."""
    spacing = nodule.spacing_mm
    shift = (change.shift_row_mm / spacing, change.shift_column_mm / spacing)
    rows, columns = warp.rigid(nodule.baseline.shape[0], shift, change.rotation_deg)
    if isinstance(change, SoberChange):
        centre, scale = nodule.outline, change.breathing_scale
        rows = centre.row + (rows - centre.row) / scale
        columns = centre.column + (columns - centre.column) / scale
    ratio = change.growth_ratio
    return warp.grown(nodule.outline, ratio, spacing, rows, columns, beyond_mm)


def sign_of(nodule: Nodule, change: Change) -> signs.Sign:
    """The sign a nodule of this type shows."""
    return signs.Sign(
        core=nodule.attenuation in (GROUND_GLASS_CODE, MIXED_CODE),
        core_offset=change.core_offset,
        core_angle=change.core_angle,
        num_spicules=int(change.num_spicules),
        spicule_mm=change.spicule_mm,
        spicule_phase=change.spicule_phase,
    )


def noise_field(size: int, correlation_px: float, rng: np.random.Generator) -> NDArray[np.floating]:
    """Correlated noise of standard deviation 1, (size, size): white noise through a Gaussian."""
    white = rng.standard_normal((size, size), dtype=np.float32)
    smooth = irfft2(rfft2(white) * _response(size, correlation_px), (size, size))
    return smooth / smooth.std()


@lru_cache(maxsize=16)
def _response(size: int, correlation_px: float) -> NDArray[np.floating]:
    square = fftfreq(size)[:, None] ** 2 + rfftfreq(size)[None, :] ** 2
    return np.exp(-2 * (np.pi * correlation_px) ** 2 * square).astype(np.float32)


def _between(limits: tuple[float, float], uniform: float) -> float:
    low, high = limits
    return float(low + (high - low) * uniform)
