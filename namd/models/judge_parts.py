"""Parts of the judge that torchvision's transformer has no word for; the judge puts them in."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class WideAttention(nn.Module):
    """Self-attention whose heads are wider together than a token, called as torch's own is.

    Queries, keys and values have no bias.
    """

    def __init__(self, width: int, num_heads: int, head_width: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.project_in = nn.Linear(width, 3 * num_heads * head_width, bias=False)
        self.project_out = nn.Linear(num_heads * head_width, width)
        for layer in (self.project_in, self.project_out):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.project_out.bias)

    def forward(
        self,
        query: Float[Tensor, "B L D"],
        key: Tensor,  # noqa: ARG002 - torchvision hands in the same tokens three times
        value: Tensor,  # noqa: ARG002
        need_weights: bool = False,  # noqa: ARG002
    ) -> tuple[Float[Tensor, "B L D"], None]:
        """Return the tokens' mixture, and no weights."""
        batch, length, _ = query.shape
        projected = self.project_in(query).view(batch, length, 3, self.num_heads, -1)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4).unbind()
        mixed = functional.scaled_dot_product_attention(
            queries, keys, values, dropout_p=self.dropout if self.training else 0.0
        )
        return self.project_out(mixed.transpose(1, 2).reshape(batch, length, -1)), None


class NormedPatches(nn.Module):
    """Patches as tokens, with a layer norm before and after their linear projection.

    The first takes each patch's mean and contrast away: what it can tell is its pattern.
    """

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.before = nn.LayerNorm(patch_size**2)
        self.projection = nn.Linear(patch_size**2, width)
        self.after = nn.LayerNorm(width)

    def forward(self, images: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B D h w"]:
        """Return the tokens at their places, as a convolution would."""
        patches = functional.pixel_unshuffle(images, self.patch_size)
        tokens = self.after(self.projection(self.before(patches.permute(0, 2, 3, 1))))
        return torch.permute(tokens, (0, 3, 1, 2))
