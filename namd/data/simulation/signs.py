"""What malignancy adds to a nodule at a glance: a solid core, or a spiculated margin.

Both are several millimetres wide with blunt edges, so that they outlive an autoencoder that
keeps one latent per 4 mm. Neither comes near calcium, which would be a benign sign. Whether a
nodule shows its sign, and how large, is drawn elsewhere.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from namd.data.simulation.settings import SignSettings
from namd.data.simulation.warp import Polar

EDGE_MM = 1.0
CORE_EDGE_MM = 1.6
# Spicules start this far inside the margin.
ROOT_MM = 0.8
SMALLEST_CORE_MM = 1.5
# Spicules stand unevenly: their angles and lengths follow multiples of the golden angle.
GOLDEN = 2.399963229728653

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sign:
    """One drawn sign.

    Attributes:
        core: True for a solid core, False for a spiculated margin.
        core_offset: Distance of the core's centre from the nodule's, in nodule radii.
        core_angle: Its direction, radians.
        num_spicules: Around the margin.
        spicule_mm: Length of the longest beyond the margin.
        spicule_phase: Radians.
    """

    core: bool
    core_offset: float
    core_angle: float
    num_spicules: int
    spicule_mm: float
    spicule_phase: float


def add(hu: Floats, polar: Polar, spacing_mm: float, sign: Sign, settings: SignSettings) -> Floats:
    """Return the pixels near a nodule, (n,) in HU, with its sign drawn.

    Attenuation only ever rises, and nothing changes farther than `reach_mm` from the outline.
    """
    if sign.core:
        opacity = core_opacity(polar, spacing_mm, sign, settings)
        return _towards(hu, settings.core_hu, opacity * min(settings.strength, 1.0))
    inside = _ramp((polar.edge_px - polar.radius_px) * spacing_mm, EDGE_MM)
    share = min(settings.consolidation * settings.strength, 1.0)
    denser = _towards(hu, settings.solid_hu, inside * share)
    level = nodule_level(denser, polar)
    opacity = spicule_opacity(polar, spacing_mm, sign, settings)
    return _towards(denser, level, opacity * min(settings.strength, 1.0))


def core_opacity(polar: Polar, spacing_mm: float, sign: Sign, settings: SignSettings) -> Floats:
    """Opacity 0...1 of a core within the grown outline: its shape, smaller and a little lobed."""
    mean_mm = float(polar.edge_px.mean()) * spacing_mm
    core_mm = max(settings.core_share * mean_mm * settings.strength, SMALLEST_CORE_MM)
    away_mm = sign.core_offset * max(mean_mm - core_mm, 0.0)
    distance = np.hypot(
        polar.radius_px * spacing_mm * np.cos(polar.angle) - away_mm * np.cos(sign.core_angle),
        polar.radius_px * spacing_mm * np.sin(polar.angle) - away_mm * np.sin(sign.core_angle),
    )
    lobed = 1 + 0.14 * np.sin(3 * polar.angle + sign.core_angle)
    lobed += 0.08 * np.sin(5 * polar.angle - 2 * sign.core_angle)
    border = core_mm * lobed * polar.edge_px / polar.edge_px.mean()
    inside = _ramp((polar.edge_px - polar.radius_px) * spacing_mm, EDGE_MM)
    return _ramp(border - distance, CORE_EDGE_MM) * inside


def spicule_opacity(polar: Polar, spacing_mm: float, sign: Sign, settings: SignSettings) -> Floats:
    """Opacity 0...1 of blunt spicules: they root in the margin, taper and thin out beyond it."""
    beyond = (polar.radius_px - polar.edge_px) * spacing_mm
    radius = polar.radius_px * spacing_mm
    rooted = _ramp(beyond + ROOT_MM, 2 * EDGE_MM)
    opacity = np.zeros_like(radius)
    for number in range(sign.num_spicules):
        angle = sign.spicule_phase + 2 * np.pi * number / sign.num_spicules
        angle += 0.7 * np.sin(GOLDEN * number) / sign.num_spicules * np.pi
        length = sign.spicule_mm * settings.strength * (0.72 + 0.28 * np.cos(GOLDEN * number))
        turned = polar.angle - angle
        along = np.cos(turned) > 0
        share = np.clip(beyond / length, 0.0, 1.0)
        # A slight bend, another way for each: straight rays look drawn.
        bend = 0.35 * beyond * np.sin(2 * GOLDEN * number) * share
        sideways = np.abs(radius * np.sin(turned) - bend)
        half_mm = settings.spicule_width_mm / 2 * (1.15 - 0.6 * share)
        blade = _ramp(half_mm - sideways, EDGE_MM) * _ramp(length - beyond, EDGE_MM) * along
        opacity = np.maximum(opacity, blade * (1 - 0.4 * share))
    return opacity * rooted


def reach_mm(sign: Sign, settings: SignSettings) -> float:
    """How far beyond the grown outline the sign changes anything."""
    return EDGE_MM if sign.core else sign.spicule_mm * settings.strength + EDGE_MM


def nodule_level(hu: Floats, polar: Polar) -> float:
    """Attenuation that a spicule continues: the denser part of the nodule, soft tissue at most."""
    inside = hu[polar.radius_px <= polar.edge_px]
    level = float(np.quantile(inside, 0.7)) if inside.size else -100.0
    return float(np.clip(level, -150.0, 60.0))


def _towards(hu: Floats, target: float, opacity: Floats) -> Floats:
    # A tenth of the way is left, so that the tissue's own texture shows through.
    return hu + 0.9 * opacity * np.maximum(target - hu, 0.0)


def _ramp(distance_mm: Floats, width_mm: float) -> Floats:
    """0 outside, 1 inside, a smooth step of the given width centred on the border."""
    share = np.clip(distance_mm / width_mm + 0.5, 0.0, 1.0)
    return share * share * (3 - 2 * share)
