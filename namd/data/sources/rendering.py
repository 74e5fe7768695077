"""Intensities for a reader's outline: lung, vessels, chest wall, nodule, scanner.

Everything is drawn from one generator per nodule and lives in HU on one grid. Which nodules are
drawn, and what their outlines are, is not decided here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fftfreq, irfft2, rfft2, rfftfreq
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.draw import polygon

from namd.data.sources.reader_contours import Lesion

LOWEST_HU, HIGHEST_HU = -1024, 3071
SOLID_TEXTURE, GROUND_GLASS_TEXTURE = 4.5, 2.0
NO_CALCIUM = 5.5
SUPERSAMPLING = 4

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """Shares and levels that no contour shows.

    Attributes:
        wall_attached: Share of nodules that touch the chest wall.
        wall_near: Share of the others with the wall in the crop.
        vessel_attached: Share with a vessel leading to the nodule.
        lung_hu: Mean attenuation of lung and its spread between patients.
        noise_hu: Median standard deviation of the noise.
        streaks: Share of crops whose noise runs in one direction.
    """

    wall_attached: float = 0.3
    wall_near: float = 0.3
    vessel_attached: float = 0.3
    lung_hu: tuple[float, float] = (-872.0, 32.0)
    noise_hu: float = 25.0
    streaks: float = 0.35


@dataclass(frozen=True)
class Grid:
    """Pixel centres of a crop in mm about its middle, rows and columns (S, S)."""

    size: int
    spacing_mm: float

    @property
    def axis(self) -> Floats:
        """Pixel centres along one side, mm."""
        return (np.arange(self.size, dtype=np.float64) - (self.size - 1) / 2) * self.spacing_mm

    def mesh(self) -> tuple[Floats, Floats]:
        """Rows and columns in mm, (S, S) each."""
        rows, columns = np.meshgrid(self.axis, self.axis, indexing="ij")
        return rows, columns


def coverage(lesion: Lesion, grid: Grid) -> Floats:
    """Share of each pixel that lies in the nodule by the majority of its readers, (S, S)."""
    fine = grid.size * SUPERSAMPLING
    step = grid.spacing_mm / SUPERSAMPLING
    votes = np.zeros((fine, fine), dtype=np.int8)
    for outlines in lesion.outlines:
        inside = np.zeros((fine, fine), dtype=bool)
        for points, includes in outlines:
            place = points / step + (fine - 1) / 2
            inside[polygon(place[:, 0], place[:, 1], (fine, fine))] = includes
        votes += inside
    majority = votes * 2 >= max(len(lesion.outlines), 1)
    majority &= votes > 0
    shape = (grid.size, SUPERSAMPLING, grid.size, SUPERSAMPLING)
    return majority.reshape(shape).mean(axis=(1, 3))


def render(
    lesion: Lesion, inside: Floats, look: Look, grid: Grid, rng: np.random.Generator
) -> NDArray[np.int16]:
    """Render a crop around a nodule whose coverage is given; int16 (S, S) in HU."""
    hu = lung(look, grid, rng)
    hu = np.maximum(hu, vessels(lesion, inside, look, grid, rng))
    hu, wall = add_wall(hu, lesion, inside, look, grid, rng)
    hu = add_nodule(hu, wall, lesion, inside, grid, rng)
    return scan(hu, lesion, look, grid, rng)


def lung(look: Look, grid: Grid, rng: np.random.Generator) -> Floats:
    """Parenchyma: a level, a gradient towards the back, and texture at three scales."""
    rows, columns = grid.mesh()
    level, spread = look.lung_hu
    hu = np.full(rows.shape, level + spread * np.clip(rng.standard_normal(), -2, 2))
    hu += rng.uniform(0.0, 1.6) * rows + rng.normal(0.0, 0.5) * columns
    for width_mm, depth in ((5.0, 12.0), (2.0, 20.0), (1.0, 22.0)):
        field = correlated(grid, width_mm, rng)
        # Lobular septa and small vessels stand out upwards, air does not downwards.
        hu += depth * rng.uniform(0.6, 1.4) * np.where(field > 0, np.abs(field) ** 1.4, 0.7 * field)
    return hu


def vessels(
    lesion: Lesion, inside: Floats, look: Look, grid: Grid, rng: np.random.Generator
) -> Floats:
    """Branching vessels in the plane and vessels that cross it; -1024 where there are none."""
    half = grid.size * grid.spacing_mm / 2
    blood = rng.normal(110.0 if lesion.contrast else 35.0, 15.0)
    canvas = np.full((grid.size, grid.size), float(LOWEST_HU))
    richness = rng.gamma(3.0, 1 / 3.0)
    for _ in range(rng.poisson(1.2 * richness)):
        edge = rng.uniform(0, 2 * np.pi)
        start = half * 1.2 * np.array([np.sin(edge), np.cos(edge)])
        target = rng.uniform(-0.8, 0.8, 2) * half
        _grow(canvas, start, target, 0.5 + rng.exponential(0.45), blood, grid, rng)
    for _ in range(rng.poisson(19 * richness)):
        _cross_section(canvas, rng.uniform(-half, half, 2), blood, grid, rng)
    if rng.random() < look.vessel_attached:
        edge = rng.uniform(0, 2 * np.pi)
        start = half * 1.2 * np.array([np.sin(edge), np.cos(edge)])
        reach = np.sqrt(inside.sum() / np.pi) * grid.spacing_mm
        _grow(canvas, start, np.zeros(2), min(0.45 + 0.1 * reach, 1.3), blood, grid, rng)
    return canvas


def _grow(
    canvas: Floats,
    start: Floats,
    target: Floats,
    radius_mm: float,
    blood: float,
    grid: Grid,
    rng: np.random.Generator,
    depth: int = 0,
) -> None:
    """Walk a vessel from start towards target, thinning, branching, leaving the slice."""
    place, heading = start.astype(float), target - start
    length = float(np.linalg.norm(heading)) * rng.uniform(0.5, 1.3)
    angle = np.arctan2(heading[0], heading[1])
    # A vessel that tilts out of the slice fades over its length.
    tilt = rng.uniform(0.2, 2.2)
    for step in range(int(length / 0.6)):
        done = step * 0.6 / max(length, 1e-6)
        angle += rng.normal(0.0, 0.09)
        if depth == 0:
            wanted = np.arctan2(target[0] - place[0], target[1] - place[1])
            angle += 0.08 * np.sin(wanted - angle)
        place = place + 0.6 * np.array([np.sin(angle), np.cos(angle)])
        radius = max(radius_mm * (1 - 0.45 * done), 0.3)
        _stamp(canvas, place, radius, radius, 0.0, blood, max(1 - tilt * done, 0.0), grid)
        if depth < 2 and rng.random() < 0.035:
            side = angle + rng.choice([-1, 1]) * rng.uniform(0.4, 1.1)
            far = place + rng.uniform(5, 14) * np.array([np.sin(side), np.cos(side)])
            _grow(canvas, place, far, radius * rng.uniform(0.5, 0.8), blood, grid, rng, depth + 1)


def _cross_section(
    canvas: Floats, place: Floats, blood: float, grid: Grid, rng: np.random.Generator
) -> None:
    radius = min(0.42 * np.exp(0.5 * rng.standard_normal()), 2.4)
    stretch = 1 + rng.exponential(0.5)
    turn = rng.uniform(0, np.pi)
    _stamp(canvas, place, radius, radius * stretch, turn, blood, rng.uniform(0.2, 1.0), grid)


def _stamp(
    canvas: Floats,
    place: Floats,
    narrow_mm: float,
    wide_mm: float,
    turn: float,
    blood: float,
    presence: float,
    grid: Grid,
) -> None:
    """Draw one ellipse with a soft edge; thin vessels lose attenuation to partial volume."""
    middle = place / grid.spacing_mm + (grid.size - 1) / 2
    span = int(np.ceil((wide_mm + 0.8) / grid.spacing_mm)) + 1
    top, left = (round(float(value)) - span for value in middle)
    rows = slice(max(top, 0), min(top + 2 * span + 1, grid.size))
    columns = slice(max(left, 0), min(left + 2 * span + 1, grid.size))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    down = (np.arange(rows.start, rows.stop) - middle[0])[:, None] * grid.spacing_mm
    right = (np.arange(columns.start, columns.stop) - middle[1])[None, :] * grid.spacing_mm
    cosine, sine = np.cos(turn), np.sin(turn)
    distance = np.hypot(
        (cosine * right + sine * down) / wide_mm, (cosine * down - sine * right) / narrow_mm
    )
    soft = np.clip((1 - distance) * narrow_mm / 0.7 + 0.5, 0.0, 1.0) * presence
    value = -880 + soft * (blood + 880)
    patch = canvas[rows, columns]
    np.maximum(patch, np.where(soft > 0, value, LOWEST_HU), out=patch)


def add_wall(
    hu: Floats,
    lesion: Lesion,
    inside: Floats,
    look: Look,
    grid: Grid,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Chest wall, diaphragm or mediastinum in a share of crops; returns its opacity too."""
    rows, columns = grid.mesh()
    attached = rng.random() < look.wall_attached
    near = rng.random() < look.wall_near
    outward = np.pi if lesion.side == "R" else 0.0
    angle = outward + rng.normal(0.0, 0.9)
    curve_mm, bumps = rng.uniform(50, 140), rng.uniform(0.2, 0.8)
    away = rng.uniform(9, 21)
    ripple = correlated(grid, 6.0, rng) * bumps
    layers = rng.normal([45.0, -95.0, 650.0], [12.0, 12.0, 200.0])
    marrow_hu = rng.uniform(100, 300)
    rib_at, rib_mm = rng.uniform(-25, 25), rng.uniform(3.0, 6.0)
    fat_mm, has_rib = rng.exponential(1.2), rng.random() < 0.65
    if not (attached or near):
        return hu, np.zeros_like(hu)
    across = columns * np.cos(angle) + rows * np.sin(angle)
    along = rows * np.cos(angle) - columns * np.sin(angle)
    if attached:
        solid = inside > 0.5
        away = float(across[solid].max()) - rng.uniform(0.3, 1.6) if solid.any() else away
    depth = across - away + along**2 / (2 * curve_mm) + ripple
    tissue = np.full_like(hu, layers[0]) + 12 * ripple / max(bumps, 0.1)
    fat = np.clip((depth - 1.2) / 0.6, 0, 1) * np.clip((1.2 + fat_mm - depth) / 0.6, 0, 1)
    tissue += fat * (layers[1] - layers[0])
    if has_rib:
        bone = np.hypot((depth - 2.5 - rib_mm) / rib_mm, (along - rib_at) / (3.0 * rib_mm))
        shell = np.clip((1 - bone) * rib_mm, 0, 1)
        marrow = np.clip((1 - bone) * rib_mm - 1.2, 0, 1)
        tissue += shell * layers[2] - marrow * (layers[2] - marrow_hu)
    opacity = np.clip(depth / 0.7 + 0.5, 0.0, 1.0)
    return hu * (1 - opacity) + tissue * opacity, opacity


def add_nodule(
    hu: Floats,
    wall: Floats,
    lesion: Lesion,
    inside: Floats,
    grid: Grid,
    rng: np.random.Generator,
) -> Floats:
    """Fill the outline by the texture rating, with strands, a soft border, and calcium."""
    ratings = lesion.ratings
    radius_mm = max(np.sqrt(inside.sum() / np.pi) * grid.spacing_mm, 1.0)
    border_mm = 0.25 + 0.28 * (5 - ratings["margin"]) + rng.uniform(0, 0.2)
    # Readers draw the first pixels outside: the tissue ends half a scan pixel further in.
    depth_mm = distance_transform_edt(inside > 0.5) * grid.spacing_mm
    ends_mm = 0.5 * lesion.spacing_mm * rng.uniform(0.8, 2.0)
    body = np.clip((depth_mm - ends_mm) / grid.spacing_mm + 0.5, 0, 1)
    soft = gaussian_filter(body, border_mm / grid.spacing_mm)
    # Thick slices hold air above and below a small nodule.
    loss = np.clip(0.9 * lesion.thickness_mm / (2 * radius_mm), 0.0, 0.6) * rng.uniform(0.4, 1.3)
    core = nodule_hu(ratings["texture"], depth_mm / radius_mm, grid, rng)
    core -= loss * np.maximum(core + 850, 0) * (1 - 0.5 * np.clip(depth_mm / radius_mm, 0, 1))
    if ratings["calcification"] <= NO_CALCIUM:
        core += calcium(ratings["calcification"], radius_mm, soft, grid, rng)
    if ratings["spiculation"] >= 2.0:
        hu = np.maximum(hu, strands(ratings["spiculation"], radius_mm, grid, rng))
    soft = soft * (1 - wall)
    return hu * (1 - soft) + np.maximum(core, hu) * soft


def nodule_hu(texture: float, depth: Floats, grid: Grid, rng: np.random.Generator) -> Floats:
    """Attenuation of tissue by texture rating (1 ground glass ... 5 solid); depth in radii."""
    fine, coarse = correlated(grid, 0.9, rng), correlated(grid, 2.2, rng)
    solid = rng.normal(-10.0, 60.0) + 28 * fine + 22 * coarse
    glass = rng.normal(-640.0, 70.0) + 45 * fine + 55 * coarse + 60 * depth
    if texture >= SOLID_TEXTURE:
        return solid
    if texture <= GROUND_GLASS_TEXTURE:
        return glass + 60 * (texture - 1)
    share = (texture - GROUND_GLASS_TEXTURE) / (SOLID_TEXTURE - GROUND_GLASS_TEXTURE)
    core = np.clip((depth + 0.35 * coarse - (0.75 - 0.75 * share)) / 0.25, 0, 1)
    denser = glass + 180 * share
    return denser * (1 - core) + (solid - 60) * core


def calcium(
    rating: float, radius_mm: float, soft: Floats, grid: Grid, rng: np.random.Generator
) -> Floats:
    """Calcium by LIDC's rating: popcorn, laminated, solid, non-central, central."""
    rows, columns = grid.mesh()
    distance = np.hypot(rows, columns) / radius_mm
    level = rng.uniform(250, 900)
    kind = int(np.clip(np.floor(rating), 1, 5))
    if kind == 1:
        return level * np.clip(correlated(grid, 1.2, rng) - 0.2, 0, 1.2)
    if kind == 2:
        return level * np.exp(-(((distance - 0.65) / 0.2) ** 2))
    if kind == 3:
        return level * soft
    away = 0.45 * radius_mm if kind == 4 else 0.0
    turn = rng.uniform(0, 2 * np.pi)
    spot = np.hypot(rows - away * np.sin(turn), columns - away * np.cos(turn)) / radius_mm
    return level * np.exp(-((spot / 0.4) ** 2))


def strands(rating: float, radius_mm: float, grid: Grid, rng: np.random.Generator) -> Floats:
    """Thin strands that run out from a spiculated border; -1024 elsewhere."""
    canvas = np.full((grid.size, grid.size), float(LOWEST_HU))
    turn = rng.uniform(0, 2 * np.pi)
    number = int(rng.integers(1, 3) + rating)
    for strand in range(number):
        angle = turn + 2 * np.pi * (strand + rng.uniform(-0.5, 0.5)) / number
        heading = np.array([np.sin(angle), np.cos(angle)])
        reach = radius_mm + rng.uniform(1.5, 5.0)
        for distance in np.arange(0.6 * radius_mm, reach, 0.4):
            thin = 0.3 + 0.35 * max(1 - (distance - radius_mm) / 4, 0)
            fade = np.clip(1.0 - (distance / reach) ** 3, 0.1, 0.8)
            _stamp(canvas, distance * heading, thin, thin, 0.0, -60.0, fade, grid)
            heading = heading + rng.normal(0, 0.04, 2)
    return canvas


def scan(
    hu: Floats, lesion: Lesion, look: Look, grid: Grid, rng: np.random.Generator
) -> NDArray[np.int16]:
    """The scanner: blur of kernel and pixel, correlated noise, 12-bit range."""
    blur_mm = 0.42 * lesion.spacing_mm + rng.uniform(0.1, 0.4)
    hu = gaussian_filter(hu, blur_mm / grid.spacing_mm)
    noise = look.noise_hu * np.exp(0.45 * rng.standard_normal()) * lesion.thickness_mm**-0.25
    hu = hu + noise * scanner_noise(grid, lesion.spacing_mm, rng.random() < look.streaks, rng)
    return np.clip(np.rint(hu), LOWEST_HU, HIGHEST_HU).astype(np.int16)


def scanner_noise(grid: Grid, native_mm: float, streaks: bool, rng: np.random.Generator) -> Floats:
    """Noise of standard deviation 1 whose power rises with frequency, then falls.

    Filtered back-projection takes low frequencies out (the ramp), the kernel the high ones;
    beyond the scan's own pixel there is nothing.
    """
    square = _square_frequency(grid)
    cut = rng.uniform(0.17, 0.36) / native_mm
    response = (square + 0.01) ** 0.25 * np.exp(-square / (2 * cut**2))
    if streaks:
        # Rays through the shoulders are starved of photons: their noise runs along them.
        turn = rng.normal(0.0, 0.35)
        down = fftfreq(grid.size, grid.spacing_mm)[:, None]
        right = rfftfreq(grid.size, grid.spacing_mm)[None, :]
        along = right * np.cos(turn) + down * np.sin(turn)
        response = response * np.exp(-(along**2) / (2 * rng.uniform(0.08, 0.3) ** 2))
    return _filtered(grid, response, rng)


def correlated(grid: Grid, width_mm: float, rng: np.random.Generator) -> Floats:
    """A Gaussian field of standard deviation 1 and a given correlation length."""
    return _filtered(grid, np.exp(-2 * (np.pi * width_mm / 2) ** 2 * _square_frequency(grid)), rng)


def _square_frequency(grid: Grid) -> Floats:
    down = fftfreq(grid.size, grid.spacing_mm)[:, None]
    right = rfftfreq(grid.size, grid.spacing_mm)[None, :]
    return down**2 + right**2


def _filtered(grid: Grid, response: Floats, rng: np.random.Generator) -> Floats:
    white = rng.standard_normal((grid.size, grid.size))
    field = irfft2(rfft2(white) * response, (grid.size, grid.size))
    return (field - field.mean()) / field.std()
