"""The judge: a vision transformer that scores one crop for malignancy. It never sees a record.

torchvision's VisionTransformer is used as it is, but for its first convolution, which expects
three colours, and what `judge_parts` puts in its place. Training lives in the stage.
"""

import json
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models.vision_transformer import ConvStemConfig, VisionTransformer

from namd.config.errors import InputError
from namd.config.parsing import identity_mapping, parse
from namd.models.judge_parts import NormedPatches, WideAttention
from namd.models.judge_settings import JudgeArchitecture

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


class Judge(nn.Module):
    """From grey crops in [-1, 1] to one logit of malignancy."""

    def __init__(self, architecture: JudgeArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        # Batch norm in the stem: in single runs that also differed in augmentation, follow-ups were
        # told apart at AUROC 0.86 with it and 0.80 with group norm. Its running statistics are
        # buffers that the training state keeps beside the weights; a score does not depend on
        # the batch, because scoring is done in eval mode.
        stem = [
            ConvStemConfig(channels, 3, 1 if later else 2)
            for channels in architecture.stem_channels
            for later in range(architecture.stem_depth)
        ]
        self.transformer = VisionTransformer(
            image_size=architecture.image_size,
            patch_size=architecture.patch_size,
            num_layers=architecture.depth,
            num_heads=architecture.num_heads,
            hidden_dim=architecture.width,
            mlp_dim=architecture.mlp_width,
            dropout=architecture.dropout,
            attention_dropout=architecture.dropout,
            num_classes=1,
            conv_stem_configs=stem or None,
        )
        _make_grey(self.transformer)
        if architecture.patch_norms:
            patches = NormedPatches(architecture.patch_size, architecture.width)
            self.transformer.conv_proj = patches
        if architecture.head_width is not None:
            for layer in self.transformer.encoder.layers:
                layer.self_attention = WideAttention(
                    architecture.width,
                    architecture.num_heads,
                    architecture.head_width,
                    architecture.dropout,
                )

    def features(self, images: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B D"]:
        """Return what the last linear layer reads: the class token or the mean of the tokens."""
        tokens = self.transformer._process_input(images)
        leading = self.transformer.class_token.expand(len(images), -1, -1)
        encoded = self.transformer.encoder(torch.cat([leading, tokens], dim=1))
        return encoded[:, 0] if self.architecture.pooling == "class" else encoded[:, 1:].mean(1)

    def forward(self, images: Float[Tensor, "B 1 H W"]) -> Float[Tensor, " B"]:
        """Return logits of malignancy."""
        return self.logit(self.features(images))

    def logit(self, features: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        """Return the logits of crops whose features are known."""
        return self.transformer.heads(features)[:, 0]

    def probability(self, images: Float[Tensor, "B 1 H W"]) -> Float[Tensor, " B"]:
        """Return probabilities of malignancy in (0, 1)."""
        return torch.sigmoid(self(images))


def save_judge(judge: Judge, folder: Path) -> None:
    """Write weights (safetensors) and architecture (JSON)."""
    state = {name: value.detach().cpu().contiguous() for name, value in judge.state_dict().items()}
    save_file(state, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(
        json.dumps(identity_mapping(judge.architecture), indent=1) + "\n"
    )


def load_judge(folder: Path, device: str = "cpu") -> Judge:
    """Return a saved judge, frozen and in eval mode.

    Raises InputError if the folder holds no judge.
    """
    if not (folder / CONFIG_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        raise InputError(f"{folder}: no judge here ({CONFIG_FILE} and {WEIGHTS_FILE} make one)")
    judge = Judge(parse(JudgeArchitecture, json.loads((folder / CONFIG_FILE).read_text())))
    judge.load_state_dict(load_file(folder / WEIGHTS_FILE))
    return judge.requires_grad_(False).eval().to(device)


def _make_grey(transformer: VisionTransformer) -> None:
    """Replace the first convolution by one that takes a single channel.

    Weights are drawn as torchvision draws them.
    """
    projection = transformer.conv_proj
    if isinstance(projection, nn.Conv2d):
        grey = _one_channel(projection)
        nn.init.trunc_normal_(grey.weight, std=grey.weight[0].numel() ** -0.5)
        transformer.conv_proj = grey
        return
    projection[0][0] = _one_channel(projection[0][0])
    nn.init.kaiming_normal_(projection[0][0].weight, nonlinearity="relu")


def _one_channel(colour: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution of the same shape that takes one channel; its bias is zero."""
    grey = nn.Conv2d(
        1,
        colour.out_channels,
        (colour.kernel_size[0], colour.kernel_size[0]),
        stride=(colour.stride[0], colour.stride[0]),
        padding=int(colour.padding[0]),
    )
    if grey.bias is not None:
        nn.init.zeros_(grey.bias)
    return grey
