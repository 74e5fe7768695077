"""Networks of others that images are compared with: LPIPS (VGG, AlexNet) and FID's Inception.

Their weights are read without unpickling objects, from where `weights` finds them.
"""

import pickle
import tempfile
from pathlib import Path
from typing import Literal

import lpips
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from namd.config.errors import InputError
from namd.models.initialisation import initialised_from
from namd.models.weights import require

NUM_INCEPTION_FEATURES = 2048


def load_lpips(net: Literal["vgg", "alex"], configured: str | None = None) -> nn.Module:
    """Return the lpips package's distance, frozen; it maps two RGB batches to (B, 1, 1, 1).

    The package's own linear heads stand on the trunk that `trunks.lpips_<net>` names.

    Raises InputError if the trunk is not on disk or is not that network.
    """
    path = require(f"lpips-{net}", configured)
    state = read_state(path)
    # Left to itself the package would fetch and unpickle the trunk, and random weights that are
    # overwritten at once would move torch's generator.
    with initialised_from("lpips", 0):
        network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    # Its layers keep their numbers within torchvision's `features`, sorted into slices.
    own = {name: f"features.{name.partition('.')[2]}" for name in network.net.state_dict()}
    try:
        network.net.load_state_dict({name: state[theirs] for name, theirs in own.items()})
    except (KeyError, RuntimeError) as error:
        raise _wrong_network(path, f"the {net} trunk of LPIPS") from error
    return network.requires_grad_(False).eval()


def load_inception(configured: str | None = None, device: str = "cpu") -> nn.Module:
    """Return FID's Inception: uint8 RGB (B, 3, H, W) to 2,048 features, frozen.

    Raises InputError if it is not on disk or is not that network.
    """
    path = require("inception", configured)
    state = read_state(path)
    with tempfile.TemporaryDirectory() as folder:
        # The library unpickles what it is given: it gets a file that was written here.
        safe = Path(folder) / "inception.pth"
        torch.save(state, safe)
        try:
            metric = FrechetInceptionDistance(
                feature=NUM_INCEPTION_FEATURES, feature_extractor_weights_path=str(safe)
            )
        except (KeyError, RuntimeError) as error:
            raise _wrong_network(path, "FID's Inception") from error
    return metric.inception.requires_grad_(False).eval().to(device)


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint; nothing but tensors is read from it.

    Raises InputError if the file holds anything else.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError) as error:
        raise InputError(
            f"{path}: not a file of tensors alone; other pickles are never read"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: holds something else than named tensors")
    return state


def _wrong_network(path: Path, wanted: str) -> InputError:
    return InputError(f"{path}: its tensors are not those of {wanted} (see namd weights)")
