"""How close drawn images come to real ones: per image, and as sets.

Libraries compute all of it (torchmetrics, lpips); nothing is ever downloaded.
Whether an image looks malignant is the judge's matter.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from namd.models.trunks import load_inception, load_lpips

DATA_RANGE = 2.0  # images lie in [-1, 1]
BATCH = 256


def ssim_and_psnr(
    images: Float[Tensor, "N 1 H W"], targets: Float[Tensor, "N 1 H W"]
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Structural similarity (Gaussian window, sd 1.5 px) and peak signal-to-noise ratio in dB.

    An image equal to its target has infinite PSNR; it is given as 100 dB.
    """
    similarity = [
        structural_similarity_index_measure(
            ours, theirs, data_range=DATA_RANGE, reduction="none"
        ).reshape(-1)
        for ours, theirs in zip(images.split(BATCH), targets.split(BATCH), strict=True)
    ]
    error = (images - targets).square().mean(dim=(1, 2, 3)).clamp(min=DATA_RANGE**2 * 1e-10)
    psnr = 10 * torch.log10(DATA_RANGE**2 / error)
    return torch.cat(similarity).cpu().numpy(), psnr.cpu().numpy()


def lpips_alex(
    device: str, trunk: str | None = None
) -> Callable[[Tensor, Tensor], Float[np.ndarray, " N"]]:
    """Return the function from two sets of grey images to LPIPS-Alex per pair.

    The lpips package, not torchmetrics' copy of it: that one can only unpickle its trunk.
    Raises InputError if AlexNet's trunk is not on disk.
    """
    network = load_lpips("alex", trunk).to(device)

    @torch.no_grad()
    def distance(ours: Tensor, theirs: Tensor) -> np.ndarray:
        pairs = zip(ours.split(BATCH), theirs.split(BATCH), strict=True)
        values = [network(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)) for a, b in pairs]
        return torch.cat([value.reshape(-1) for value in values]).cpu().numpy()

    return distance


def frechet_distance(ours: Float[Tensor, "N D"], theirs: Float[Tensor, "M D"]) -> float:
    """Squared Frechet distance of two sets of features as Gaussians (FID's formula).

    Biased upwards for small sets, the more the wider the features.
    """
    metric = FrechetInceptionDistance(feature=_AsTheyAre(ours.shape[1]), normalize=True)
    metric = metric.set_dtype(torch.float64)
    metric.update(theirs.double().cpu(), real=True)
    metric.update(ours.double().cpu(), real=False)
    return float(metric.compute())


def kernel_distance(ours: Float[Tensor, "N D"], theirs: Float[Tensor, "M D"]) -> float:
    """Squared maximum mean discrepancy of two sets of features (KID's kernel), unbiased.

    All features enter at once: KID's random subsets would only add noise at this size. Sets of
    different size are cut to the smaller one, as KID's are.
    """
    count = min(len(ours), len(theirs))
    return float(poly_mmd(theirs[:count].double().cpu(), ours[:count].double().cpu()))


def inception_features(
    device: str, trunk: str | None = None
) -> Callable[[Tensor], Float[Tensor, "N 2048"]]:
    """Return the function from grey images in [-1, 1] to Inception's features.

    The Frechet and the kernel distance of these features are FID and KID. Raises InputError
    if Inception is not on disk.
    """
    network = load_inception(trunk, device)

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        batches = [b.to(device).expand(-1, 3, -1, -1) for b in pixels.split(BATCH)]
        return torch.cat([network(batch).cpu() for batch in batches])

    return features


class _AsTheyAre(nn.Module):
    """Hands features that are already known to a metric that wants to extract them."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        """Return the features."""
        return features
