"""The paper's networks have the known sizes and can be trained on a CPU with 22 GiB."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from namd.models.settings import UNetArchitecture, VAEArchitecture
from namd.models.unet import build_unet
from namd.models.vae import build_vae

MEMORY_LIMIT_GIB = 22
# Weights, gradients and AdamW's two moments in fp32, and what Python and its libraries take.
MEMORY_NEEDED_GIB = 16

CONTEXT_WIDTH = 2560
SD15_PARAMETERS = 859_520_964
"""Of SD1.5's U-Net: 4 input channels, cross-attention on 768 numbers a token."""
SD15_VAE_PARAMETERS = 83_653_863

# Widths of the cross-attention blocks: two per resolution on the way down, one in the middle,
# three per resolution on the way up; none at the lowest resolution.
ATTENTION_WIDTHS = 2 * (320 + 640 + 1280) + 1280 + 3 * (320 + 640 + 1280)
WIDER_CONTEXT = 2 * ATTENTION_WIDTHS * (CONTEXT_WIDTH - 768)
MORE_CHANNELS = 4 * 320 * 3 * 3

UNET = UNetArchitecture(
    block_out_channels=(320, 640, 1280, 1280),
    layers_per_block=2,
    num_attention_heads=8,
    norm_num_groups=32,
    attention_last=False,
)
VAE = VAEArchitecture(
    in_channels=3,
    block_out_channels=(128, 256, 512, 512),
    layers_per_block=2,
    norm_num_groups=32,
    dropout=0.2,
)

STEP = """
import json, resource, sys
import torch
from tests_paper_size import UNET, VAE, CONTEXT_WIDTH, build_unet, build_vae

part = sys.argv[1]
noise = torch.Generator().manual_seed(0)
if part == "unet":
    model = build_unet(UNET, 8, 4, CONTEXT_WIDTH, 8)
    watched = model.conv_in.weight
    def loss():
        latents = torch.randn(1, 8, 8, 8, generator=noise)
        context = torch.randn(1, 2, CONTEXT_WIDTH, generator=noise)
        predicted = model(latents, torch.tensor([500]), context).sample
        return (predicted - torch.randn(predicted.shape, generator=noise)).square().mean()
else:
    model = build_vae(VAE)
    watched = model.autoencoder.encoder.conv_in.weight
    def loss():
        images = torch.rand(1, 1, 64, 64, generator=noise) * 2 - 1
        posterior = model.encode(images)
        assert posterior.mean.shape == (1, 4, 8, 8)
        return (model.decode(posterior.mean) - images).abs().mean()

optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=False)
before = watched.detach().clone()
value = loss()
value.backward()
optimiser.step()
print(json.dumps({
    "parameters": sum(p.numel() for p in model.parameters()),
    "loss": float(value),
    "largest_change": float((watched.detach() - before).abs().max()),
    "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
}))
"""


def num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_unet_has_sd15s_parameters_and_those_of_a_wider_context():
    with torch.device("meta"):
        narrow = build_unet(UNET, 4, 4, 768, 8)
        paper = build_unet(UNET, 8, 4, CONTEXT_WIDTH, 8)
    assert num_parameters(narrow) == SD15_PARAMETERS
    assert num_parameters(paper) == SD15_PARAMETERS + WIDER_CONTEXT + MORE_CHANNELS == 904_260_804


def test_heads_are_not_head_widths():
    """diffusers' `attention_head_dim` is the number of heads: 8 of 40 channels at the top."""
    with torch.device("meta"):
        unet = build_unet(UNET, 8, 4, CONTEXT_WIDTH, 8)
    top = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    assert top.heads == 8
    assert top.to_q.out_features == 320
    assert top.to_k.in_features == CONTEXT_WIDTH


def test_cross_attention_at_the_lowest_resolution_would_be_noticed():
    wrong = UNetArchitecture(**(vars(UNET) | {"attention_last": True}))
    with torch.device("meta"):
        assert num_parameters(build_unet(wrong, 4, 4, 768, 8)) > SD15_PARAMETERS


def test_the_vae_has_sd15s_parameters():
    with torch.device("meta"):
        vae = build_vae(VAE)
    assert num_parameters(vae) == SD15_VAE_PARAMETERS
    assert vae.downsampling == 8


def available_gib() -> float:
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        pytest.skip("needs /proc/meminfo to know that enough memory is free")
    fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) / 2**20


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("part", "parameters", "needed_gib"),
    [
        ("vae", SD15_VAE_PARAMETERS, 4),
        ("unet", SD15_PARAMETERS + WIDER_CONTEXT + MORE_CHANNELS, MEMORY_NEEDED_GIB),
    ],
)
def test_one_optimiser_step_fits_into_memory(part, parameters, needed_gib):
    if available_gib() < needed_gib:
        pytest.skip(f"needs {needed_gib} GiB of free memory, has {available_gib():.1f}")
    program = STEP.replace("tests_paper_size", Path(__file__).stem)
    done = subprocess.run(
        [sys.executable, "-c", program, part],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["parameters"] == parameters
    assert 0 < measured["loss"] < 100
    # AdamW's first step moves every weight by about the learning rate, whatever the gradient.
    assert 1e-5 < measured["largest_change"] < 2e-4
    assert measured["peak_gib"] < MEMORY_LIMIT_GIB
