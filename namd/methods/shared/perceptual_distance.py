"""The perceptual term of an autoencoder's loss: which extractor a configuration names."""

from collections.abc import Callable

from torch import Tensor

from namd.losses.perceptual import perceptual_distance
from namd.losses.reconstruction import reconstruction_loss
from namd.methods.base import StageContext
from namd.models.perceptual import load_encoder
from namd.models.trunks import load_lpips

Distance = Callable[[Tensor, Tensor], Tensor]


def distance_of(context: StageContext, weight: float) -> Distance:
    """Return LPIPS, or the distance between features of the `perceptual` artifact's encoder.

    For a term of weight 0, which is not computed, any distance will do.
    """
    if not weight:
        return reconstruction_loss
    settings, device = context.settings.perceptual, context.world.device
    if settings.source == "lpips":
        network = load_lpips("vgg", context.settings.trunks.lpips_vgg).to(device)
        return lambda ours, theirs: network(
            ours.expand(-1, 3, -1, -1), theirs.expand(-1, 3, -1, -1)
        ).mean()
    encoder = load_encoder(context.inputs["perceptual"], settings.channels).to(device)
    return lambda ours, theirs: perceptual_distance(
        encoder.features(ours), encoder.features(theirs)
    )
