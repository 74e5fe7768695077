"""The conditional U-Net made ready for many steps on the same cases; inference only.

Own code beside diffusers' UNet2DConditionModel.forward, which a test holds it to. On latents of
8 x 8 that forward pass spends more than half of its time outside matrix products: here

- the time embedding is projected once per timestep, into the bias of each block's convolution;
- the baseline's part of conv_in is computed once per case;
- cross-attention reads few tokens (m), so K and V are multiplied into the query and output
  projections once per case: two C x C products per layer and step become two of C x (heads m);
- self-attention's three projections are one product;
- activations stay channels-last, so that images are tokens without a copy, and sums are in place;
- in bf16 a copy of the weights is cast once, where autocast casts frozen weights at every use, and
  group norms compute in fp32;
- group norms are two average pools and one multiply-add: torch's own kernels for channels-last take
  up to four times as long on CPUs, ten times in bf16.

Networks with parts not known here are called as they are.
"""

import contextlib
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

BLOCKS = {"CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}
PLAIN = ("addition_embed_type", "encoder_hid_dim_type", "class_embed_type", "time_cond_proj_dim")


@dataclass(frozen=True)
class CrossAttention:
    """One layer's cross-attention with the tokens of each case multiplied in.

    Attributes:
        queries: From a position's C numbers to its scores, heads times m.
        outputs: From the m weights of every head to C numbers.
        shape: Heads and m.
        bias: Of the output projection.
    """

    queries: Float[Tensor, "B C hm"]
    outputs: Float[Tensor, "B hm C"]
    shape: tuple[int, int]
    bias: Tensor | None


class PreparedUNet:
    """A frozen U-Net with everything worked out that depends on weights and timesteps alone.

    Args:
        unet: Read, and never changed but in its memory format.
        timesteps: Every timestep that it will be asked for.
        precision: `fp32` computes in the weights' own type, `bf16` in bfloat16 throughout.
    """

    def __init__(
        self, unet: UNet2DConditionModel, timesteps: Sequence[int], precision: str = "fp32"
    ) -> None:
        self.precision = precision
        self.supported = is_supported(unet)
        self.unet = _in_bf16(unet) if self.supported and precision == "bf16" else unet
        self._qkv: dict[Attention, Tensor] = {}
        self._time_biases: dict[int, dict[ResnetBlock2D, Tensor]] = {}
        if self.supported:
            self.unet.to(memory_format=torch.channels_last)
            with self._own_precision():
                self._prepare(timesteps)

    @torch.no_grad()
    def bind(
        self,
        condition: Float[Tensor, "B D h w"],
        encoder_hidden_states: Float[Tensor, "B m E"],
    ) -> Callable[[Tensor, int], Tensor]:
        """Return the function from noisy latents and a timestep to fp32 noise, for these cases."""
        if not self.supported:
            return self._as_it_is(condition, encoder_hidden_states)
        first = self.unet.conv_in
        dtype = first.weight.dtype
        states, condition = encoder_hidden_states.to(dtype), _channels_last(condition.to(dtype))
        layers = [m for m in self.unet.modules() if isinstance(m, BasicTransformerBlock)]
        own = first.in_channels - condition.shape[1]
        with self._own_precision():
            crossed = {layer: multiplied_in(layer.attn2, states) for layer in layers}
            constant = functional.conv2d(
                condition, first.weight[:, own:], first.bias, padding=first.padding
            )

        def predict(latents: Tensor, timestep: int) -> Tensor:
            biases = self._time_biases[timestep]
            with self._own_precision():
                return self._predict(latents.to(dtype), constant, biases, crossed).float()

        return predict

    @torch.no_grad()
    def _predict(
        self,
        latents: Tensor,
        constant: Tensor,
        biases: dict[ResnetBlock2D, Tensor],
        crossed: dict[BasicTransformerBlock, CrossAttention],
    ) -> Tensor:
        unet = self.unet
        weight = unet.conv_in.weight[:, : latents.shape[1]]
        x = functional.conv2d(_channels_last(latents), weight, padding=unet.conv_in.padding)
        x = x.add_(constant)
        skips = [x]
        for block in unet.down_blocks:
            for number, resnet in enumerate(block.resnets):
                x = self._resnet(resnet, x, biases)
                x = self._attend(block, number, x, crossed)
                skips.append(x)
            for downsampler in block.downsamplers or ():
                x = downsampler.conv(x)
                skips.append(x)
        x = self._resnet(unet.mid_block.resnets[0], x, biases)
        for number, resnet in enumerate(unet.mid_block.resnets[1:]):
            x = self._attend(unet.mid_block, number, x, crossed)
            x = self._resnet(resnet, x, biases)
        for block in unet.up_blocks:
            for number, resnet in enumerate(block.resnets):
                x = self._resnet(resnet, torch.cat([x, skips.pop()], 1), biases)
                x = self._attend(block, number, x, crossed)
            for upsampler in block.upsamplers or ():
                size = skips[-1].shape[2:]
                x = upsampler.conv(functional.interpolate(x, size=size, mode="nearest"))
        return unet.conv_out(
            functional.silu(group_norm(unet.conv_norm_out, x), inplace=True).to(x.dtype)
        )

    def _resnet(
        self, block: ResnetBlock2D, x: Tensor, biases: dict[ResnetBlock2D, Tensor]
    ) -> Tensor:
        hidden = functional.silu(group_norm(block.norm1, x), inplace=True).to(x.dtype)
        hidden = functional.conv2d(hidden, block.conv1.weight, biases[block], padding=1)
        hidden = functional.silu(group_norm(block.norm2, hidden), inplace=True).to(x.dtype)
        shortcut = x if block.conv_shortcut is None else block.conv_shortcut(x)
        return block.conv2(hidden).add_(shortcut)

    def _attend(
        self,
        block: nn.Module,
        number: int,
        x: Tensor,
        crossed: dict[BasicTransformerBlock, CrossAttention],
    ) -> Tensor:
        attentions = getattr(block, "attentions", None)
        if not attentions:
            return x
        transformer: Transformer2DModel = attentions[number]
        batch, channels, height, width = x.shape
        normed = group_norm(transformer.norm, x).to(x.dtype)
        tokens = normed.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        tokens = functional.linear(
            tokens, transformer.proj_in.weight.view(channels, channels), transformer.proj_in.bias
        )
        for layer in transformer.transformer_blocks:
            tokens = self._layer(layer, tokens, crossed[layer])
        tokens = functional.linear(
            tokens, transformer.proj_out.weight.view(channels, channels), transformer.proj_out.bias
        )
        return tokens.view(batch, height, width, channels).permute(0, 3, 1, 2).add_(x)

    def _layer(self, layer: BasicTransformerBlock, x: Tensor, cross: CrossAttention) -> Tensor:
        x = x.add_(self._self_attention(layer.attn1, layer.norm1(x)))
        x = x.add_(_cross_attention(cross, layer.norm2(x)))
        projection, output = layer.ff.net[0].proj, layer.ff.net[2]
        hidden, gate = projection(layer.norm3(x)).chunk(2, dim=-1)
        return x.add_(output(functional.gelu(gate).mul_(hidden)))

    def _self_attention(self, attention: Attention, x: Tensor) -> Tensor:
        batch, length, channels = x.shape
        qkv = functional.linear(x, self._qkv[attention])
        qkv = qkv.view(batch, length, 3, attention.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind()
        mixed = functional.scaled_dot_product_attention(query, key, value)
        mixed = mixed.transpose(1, 2).reshape(batch, length, channels)
        return attention.to_out[0](mixed)

    @torch.no_grad()
    def _prepare(self, timesteps: Sequence[int]) -> None:
        unet = self.unet
        device, dtype = unet.conv_in.weight.device, unet.conv_in.weight.dtype
        resnets = [m for m in unet.modules() if isinstance(m, ResnetBlock2D)]
        for timestep in timesteps:
            number = torch.tensor([timestep], device=device)
            embedding = unet.time_embedding(unet.time_proj(number).to(dtype))
            self._time_biases[timestep] = {
                block: block.time_emb_proj(functional.silu(embedding))[0] + block.conv1.bias
                for block in resnets
            }
        for layer in unet.modules():
            if isinstance(layer, BasicTransformerBlock):
                attention = layer.attn1
                parts = [attention.to_q.weight, attention.to_k.weight, attention.to_v.weight]
                self._qkv[attention] = torch.cat(parts)

    def _own_precision(self) -> contextlib.AbstractContextManager[object]:
        """Return the context without a caller's autocast: every tensor here has its type."""
        return torch.autocast(self.unet.conv_in.weight.device.type, enabled=False)

    def _as_it_is(self, condition: Tensor, states: Tensor) -> Callable[[Tensor, int], Tensor]:
        device = self.unet.conv_in.weight.device.type

        def predict(latents: Tensor, timestep: int) -> Tensor:
            joined = torch.cat([latents, condition], 1)
            with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
                return self.unet(joined, timestep, encoder_hidden_states=states, return_dict=False)[
                    0
                ].float()

        return predict


def is_supported(unet: UNet2DConditionModel) -> bool:
    """Whether every part of the network is one that this module computes."""
    config = unet.config
    kinds = {*config.down_block_types, *config.up_block_types}
    return (
        kinds <= BLOCKS
        and config.mid_block_type == "UNetMidBlock2DCrossAttn"
        and config.act_fn == "silu"
        and config.time_embedding_act_fn is None
        and config.resnet_time_scale_shift == "default"
        and config.mid_block_scale_factor == 1
        and not config.use_linear_projection
        and not config.center_input_sample
        and not any(config.get(name) for name in PLAIN)
        and all(_is_plain(m) for m in unet.modules() if isinstance(m, BasicTransformerBlock))
    )


def multiplied_in(
    attention: Attention, encoder_hidden_states: Float[Tensor, "B m E"]
) -> CrossAttention:
    """Return cross-attention of these tokens: softmax(x A) O, with A and O formed here.

    q k = (x Wq)(s Wk) = x (Wq s Wk) and w v Wo = w (s Wv Wo), head by head.
    """
    batch, m, _ = encoder_hidden_states.shape
    heads = attention.heads
    keys = attention.to_k(encoder_hidden_states).view(batch, m, heads, -1)
    values = attention.to_v(encoder_hidden_states).view(batch, m, heads, -1)
    to_query = attention.to_q.weight.view(heads, -1, attention.to_q.in_features)
    to_output = attention.to_out[0].weight.view(-1, heads, keys.shape[-1])
    queries = torch.einsum("hdc,bmhd->bchm", to_query, keys) * attention.scale
    outputs = torch.einsum("bmhd,chd->bhmc", values, to_output)
    return CrossAttention(
        queries.flatten(2), outputs.flatten(1, 2), (heads, m), attention.to_out[0].bias
    )


def _cross_attention(cross: CrossAttention, x: Float[Tensor, "B L C"]) -> Float[Tensor, "B L C"]:
    scores = torch.bmm(x, cross.queries)
    weights = scores.view(*x.shape[:2], *cross.shape).softmax(-1).flatten(2)
    if cross.bias is None:
        return torch.bmm(weights, cross.outputs)
    return torch.baddbmm(cross.bias, weights, cross.outputs)


def _is_plain(layer: BasicTransformerBlock) -> bool:
    attentions = (layer.attn1, layer.attn2)
    return (
        layer.attn2 is not None
        and layer.norm_type == "layer_norm"
        and layer.pos_embed is None
        and type(layer.ff.net[0]).__name__ == "GEGLU"
        and not layer.only_cross_attention
        and all(a.to_q.bias is None and a.norm_q is None for a in attentions)
    )


def _in_bf16(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Return a copy in bfloat16, group norms apart."""
    copied = copy.deepcopy(unet)
    for module in copied.modules():
        if not (list(module.children()) or isinstance(module, nn.GroupNorm)):
            module.to(torch.bfloat16)
    return copied


def group_norm(norm: nn.GroupNorm, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """Return the group norm of channels-last activations, in the type of the norm's weights."""
    batch, channels, *size = x.shape
    groups, own = norm.num_groups, channels // norm.num_groups

    def means(values: Tensor) -> Tensor:
        """Return the mean of each group: (B, groups, 1)."""
        return functional.avg_pool2d(values, size).view(batch, groups, own).mean(-1, keepdim=True)

    x = x.to(norm.weight.dtype)
    x = x - means(x).expand(batch, groups, own).reshape(batch, channels, 1, 1)
    scale = norm.weight.view(groups, own) / means(x * x).add_(norm.eps).sqrt_()
    return torch.addcmul(norm.bias.view(1, channels, 1, 1), x, scale.view(batch, channels, 1, 1))


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
