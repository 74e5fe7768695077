"""Shape of the judge as values. Torch-free."""

from dataclasses import dataclass, field
from typing import Literal

from namd.config.parsing import LATER


@dataclass(frozen=True)
class JudgeArchitecture:
    """A vision transformer on grey crops, one logit.

    The defaults are `small` and `base`'s; the released code of NAMD has patch 8 without a stem,
    width 1024, depth 6, 32 heads, MLP 2048, dropout 0.5 (preset `paper`), heads of width 64 and
    norms around the patch projection (`paper-authors-code`).

    Attributes:
        image_size: Pixels per side.
        patch_size: Pixels per token along one axis.
        stem_channels: Channels of the convolutions before the transformer, one per halving;
            empty: patches are projected linearly. A thousand crops teach a convolution more
            than a patch projection (Xiao 2021, arXiv 2106.14881).
        stem_depth: Convolutions per halving, the first with stride 2.
        width: Of a token.
        depth: Transformer layers.
        num_heads: Attention heads.
        mlp_width: Hidden width of a layer's MLP.
        dropout: After attention, in the MLPs and on the tokens, in training only.
        pooling: What the logit reads: the `class` token (the paper) or the tokens' `mean`.
        head_width: Of each attention head; null: width / num_heads, as in torch's own attention.
        patch_norms: A layer norm before and one after the linear patch projection.
    """

    image_size: int = 64
    patch_size: int = 16
    stem_channels: tuple[int, ...] = (16, 32, 48, 64)
    stem_depth: int = 1
    width: int = 64
    depth: int = 1
    num_heads: int = 4
    mlp_width: int = 128
    dropout: float = 0.1
    pooling: Literal["class", "mean"] = "mean"
    head_width: int | None = field(default=None, metadata=LATER)
    patch_norms: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        """Reject shapes that cannot be built, or that would be built silently."""
        if self.patch_size < 1 or self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}"
            )
        if self.stem_channels and 2 ** len(self.stem_channels) != self.patch_size:
            raise ValueError(
                f"{len(self.stem_channels)} stem levels halve an image to tokens of "
                f"{2 ** len(self.stem_channels)} pixels, not patch_size {self.patch_size}"
            )
        if any(channels < 8 or channels % 8 for channels in self.stem_channels):
            raise ValueError(f"stem_channels are multiples of 8, not {list(self.stem_channels)}")
        if self.patch_norms and self.stem_channels:
            raise ValueError(
                "patch_norms needs a linear patch projection: set stem_channels to [], not "
                f"{list(self.stem_channels)}"
            )
        if self.head_width is not None and self.head_width < 1:
            raise ValueError(f"head_width is 1 or more or null, not {self.head_width}")
        if self.num_heads < 1 or self.width % self.num_heads:
            raise ValueError(f"width {self.width} is no multiple of num_heads {self.num_heads}")
        for name in ("image_size", "width", "depth", "mlp_width", "stem_depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is 1 or more, not {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout lies in [0, 1), not {self.dropout}")
