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

EDGE_MM = 0.6
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
    inside = _ramp((polar.edge_px - polar.radius_px) * spacing_mm)
    share = min(settings.consolidation * settings.strength, 1.0)
    denser = _towards(hu, settings.solid_hu, inside * share)
    level = nodule_level(denser, polar)
    opacity = spicule_opacity(polar, spacing_mm, sign, settings)
    return _towards(denser, level, opacity * min(settings.strength, 1.0))


def core_opacity(polar: Polar, spacing_mm: float, sign: Sign, settings: SignSettings) -> Floats:
    """Opacity 0...1 of a round core within the grown outline."""
    mean_mm = float(polar.edge_px.mean()) * spacing_mm
    core_mm = max(settings.core_share * mean_mm * settings.strength, SMALLEST_CORE_MM)
    away_mm = sign.core_offset * max(mean_mm - core_mm, 0.0)
    distance = np.hypot(
        polar.radius_px * spacing_mm * np.cos(polar.angle) - away_mm * np.cos(sign.core_angle),
        polar.radius_px * spacing_mm * np.sin(polar.angle) - away_mm * np.sin(sign.core_angle),
    )
    inside = _ramp((polar.edge_px - polar.radius_px) * spacing_mm)
    return _ramp(core_mm - distance) * inside


def spicule_opacity(polar: Polar, spacing_mm: float, sign: Sign, settings: SignSettings) -> Floats:
    """Opacity 0...1 of blunt spicules that taper to half their width and end beyond the margin."""
    beyond = (polar.radius_px - polar.edge_px) * spacing_mm
    radius = polar.radius_px * spacing_mm
    opacity = np.zeros_like(radius)
    for number in range(sign.num_spicules):
        angle = sign.spicule_phase + 2 * np.pi * number / sign.num_spicules
        angle += 0.5 * np.sin(GOLDEN * number) / sign.num_spicules * np.pi
        length = sign.spicule_mm * settings.strength * (0.75 + 0.25 * np.cos(GOLDEN * number))
        turned = polar.angle - angle
        along = np.cos(turned) > 0
        taper = 1.0 - 0.5 * np.clip(beyond / length, 0.0, 1.0)
        sideways = settings.spicule_width_mm / 2 * taper - np.abs(radius * np.sin(turned))
        blade = _ramp(sideways) * _ramp(length - beyond) * along
        opacity = np.maximum(opacity, blade)
    return opacity


def reach_mm(sign: Sign, settings: SignSettings) -> float:
    """How far beyond the grown outline the sign changes anything."""
    return EDGE_MM if sign.core else sign.spicule_mm * settings.strength + EDGE_MM


def nodule_level(hu: Floats, polar: Polar) -> float:
    """Attenuation that a spicule continues: the denser part of the nodule, soft tissue at most."""
    inside = hu[polar.radius_px <= polar.edge_px]
    level = float(np.quantile(inside, 0.7)) if inside.size else -100.0
    return float(np.clip(level, -150.0, 60.0))


def _towards(hu: Floats, target: float, opacity: Floats) -> Floats:
    return hu + opacity * np.maximum(target - hu, 0.0)


def _ramp(distance_mm: Floats) -> Floats:
    """0 outside, 1 inside, linear over one edge width centred on the border."""
    return np.clip(distance_mm / EDGE_MM + 0.5, 0.0, 1.0)
