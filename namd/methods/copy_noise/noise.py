"""Noise with the spectrum of the pairs' changes, added to the baseline."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from safetensors.numpy import load_file, save_file
from torch import Tensor

from namd.config.seeding import generator
from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.data.rotation import centre_cut
from namd.methods.base import StageContext, Step
from namd.methods.shared.crop_set import read_split
from namd.methods.shared.pair_set import PairSet

FILE = "spectrum.safetensors"


def mean_power(changes: Float[np.ndarray, "N H W"]) -> Float[np.ndarray, "H W"]:
    """Return mean over pairs of |F(x2 - x1)|^2 / (H W), the expected power of each frequency.

    The mean change (frequency 0) counts as noise too: scanners differ in their offset.
    """
    spectra = np.fft.fft2(changes.astype(np.float64), norm="ortho")
    return (np.abs(spectra) ** 2).mean(0)


def coloured(
    white: Float[np.ndarray, "H W"], power: Float[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W"]:
    """Return F^-1(sqrt(power) F(white)): white noise of deviation 1 given that power spectrum."""
    return np.fft.ifft2(np.sqrt(power) * np.fft.fft2(white, norm="ortho"), norm="ortho").real


def run(context: StageContext) -> Iterator[Step]:
    """Write the mean power spectrum of the train pairs' changes, in units of [-1, 1] squared."""
    pairs = PairSet(read_split(context.cohort, "train"), context.settings.image)
    changes = to_unit(pairs.followup[0]) - to_unit(pairs.baseline[0])
    power = mean_power(changes)
    save_file({"power": power}, context.out / FILE)
    yield Step(1, 1, {"change_deviation": float(np.sqrt(power.mean()))})


class CopyNoiseDrawer:
    """Adds fresh noise to the baseline; knows nothing else of the case."""

    batch_size = 64

    def __init__(self, context: StageContext, cohort: Cohort) -> None:
        self.device = context.world.device
        settings = context.settings
        self.seeds = settings.train_seed, settings.draw_seed
        self.power = load_file(context.inputs["noise_spectrum"] / FILE)["power"]
        self.strength = settings.noise.strength
        self.baseline = to_unit(centre_cut(np.asarray(cohort.baseline), settings.image.size))
        self.case_ids = cohort.table["case_id"].to_numpy()

    def __len__(self) -> int:
        return len(self.baseline)

    def draw(self, cases: np.ndarray, index: int) -> Float[Tensor, "B 1 H W"]:
        """Return baseline + strength x noise; the noise depends on (both seeds, case, index)."""
        noise = np.stack([self._noise(self.case_ids[case], index) for case in cases])
        images = self.baseline[cases] + self.strength * noise
        return torch.from_numpy(images.astype(np.float32))[:, None].clamp(-1, 1).to(self.device)

    def _noise(self, case_id: str, index: int) -> np.ndarray:
        draws = generator("copy_noise", *self.seeds, case_id, index)
        return coloured(draws.standard_normal(self.power.shape), self.power)
