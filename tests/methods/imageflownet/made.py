"""The smallest networks and pairs that ImageFlowNet's laws can be tried on."""

import numpy as np
import torch

from namd.methods.imageflownet.network import EvolvingUNet
from namd.methods.imageflownet.settings import ImageFlowNetSettings, SDESettings, UNetSettings
from namd.methods.imageflownet.training import FlowBatch, ImageFlowNet
from namd.methods.shared.pair_set import PairBatch
from namd.models.initialisation import initialised_from

SIZE = 16
UNET = UNetSettings((8, 16), norm_num_groups=4, attention_sizes=(), num_heads=1)
SDE = SDESettings(tau=1.0, dt=0.5, initial_sigma=0.1)


def network(unet=UNET, sde=SDE) -> EvolvingUNet:
    with initialised_from("test", 1):
        return EvolvingUNet(unet, sde, SIZE)


def objective(**values) -> ImageFlowNet:
    settings = ImageFlowNetSettings(**{"architecture": UNET, "sde": SDE} | values)
    return ImageFlowNet(network(settings.architecture, settings.sde), settings)


def white(batch: int, seed: int = 0):
    """Noise of SDEs for a batch: other numbers for every latent and step."""
    generator = torch.Generator().manual_seed(seed)
    made = {}

    def noise(name, n, shape):
        if (name, n) not in made:
            made[name, n] = torch.randn(batch, *shape, generator=generator)
        return made[name, n]

    return noise


def images(batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def pairs() -> PairBatch:
    """32 baselines with a square; its follow-up is brighter where the baseline is."""
    rng = np.random.default_rng(0)
    before = torch.from_numpy(rng.uniform(-0.9, -0.4, (32, 1, SIZE, SIZE)).astype(np.float32))
    for n, (row, column) in enumerate(rng.integers(0, 11, (32, 2))):
        before[n, :, row : row + 5, column : column + 5] += 0.5
    after = before + 0.8 * (before > -0.3)
    return PairBatch(before, after)


def flow(clean: PairBatch | None = None, seed: int = 0) -> FlowBatch:
    clean = clean or pairs()
    return FlowBatch(clean, clean, white(len(clean.baseline), seed))
