"""Folders in which SD1.5 and MedGemma would lie, with random weights of any width."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
)

from namd.config.seeding import generator
from namd.data.records import RandomRecords
from namd.models.embedded_language import train_tokenizer


@dataclass(frozen=True)
class Width:
    """Shapes of the networks that lie in the folders.

    Attributes:
        vae, unet: Channels per level.
        groups: Of group norms.
        clip: Width of CLIP's states.
        language: Width of the language model's.
        layers: Of the language model.
    """

    vae: tuple[int, ...]
    unet: tuple[int, ...]
    groups: int
    clip: int
    language: int
    layers: int


NARROW = Width((8, 8, 8, 8), (16, 16, 16, 16), 4, 24, 32, 1)
FULL = Width((128, 256, 512, 512), (320, 640, 1280, 1280), 32, 768, 2560, 2)
"""SD1.5's; of MedGemma the width, in two of its 34 layers."""


def put_weights(folder: Path, width: Width) -> None:
    """Write what the presets name, with random weights."""
    torch.manual_seed(0)
    sd, levels = folder / "stable-diffusion-v1-5", len(width.vae)
    AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=width.vae,
        layers_per_block=2,
        norm_num_groups=width.groups,
    ).save_pretrained(sd / "vae")
    UNet2DConditionModel(
        sample_size=64,
        block_out_channels=width.unet,
        layers_per_block=2,
        attention_head_dim=8,
        norm_num_groups=width.groups,
        cross_attention_dim=width.clip,
    ).save_pretrained(sd / "unet")
    put_clip(sd, width.clip)
    rng, records = generator("test-paper-reports"), RandomRecords()
    tokenizer = train_tokenizer([records.report(records.draw(rng), rng) for _ in range(300)], 600)
    tokenizer.save_pretrained(folder / "medgemma-1.5-4b-it")
    model = Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width.language,
            intermediate_size=4 * width.language,
            num_hidden_layers=width.layers,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=max(16, width.language // 10),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.bos_token_id,
        )
    )
    model.to(torch.bfloat16).save_pretrained(folder / "medgemma-1.5-4b-it")


def put_clip(sd: Path, width: int) -> None:
    """Write a text encoder and its tokenizer as Stable Diffusion's folder has them."""
    special = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    (sd / "tokenizer").mkdir(parents=True, exist_ok=True)
    (sd / "tokenizer" / "vocab.json").write_text(json.dumps(special | {"a": 2, "a</w>": 3}))
    (sd / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(sd / "tokenizer")
    tokenizer.save_pretrained(sd / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    CLIPTextModel(config).save_pretrained(sd / "text_encoder")
