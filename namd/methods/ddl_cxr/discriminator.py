"""The discriminator of patches of latent diffusion's autoencoder (Isola et al. 2017)."""

from torch import nn


def build_discriminator(channels: int, num_layers: int) -> nn.Sequential:
    """Return convolutions to one logit a patch; each of `num_layers` halves the image.

    Batch norm as in the publication's code; weights N(0, 0.02).
    """
    layers: list[nn.Module] = [nn.Conv2d(1, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
    width = channels
    for number in range(1, num_layers + 1):
        wider = channels * min(2**number, 8)
        stride = 2 if number < num_layers else 1
        layers += [
            nn.Conv2d(width, wider, 4, stride, 1, bias=False),
            nn.BatchNorm2d(wider),
            nn.LeakyReLU(0.2),
        ]
        width = wider
    network = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, 1, 1))
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
    return network
