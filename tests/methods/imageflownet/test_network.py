"""The cut U-Net: what evolves, and that nothing else changed."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel

from namd.methods.imageflownet.network import BOTTLENECK, build_unet, held_fixed
from namd.methods.imageflownet.noise import case_noise
from namd.methods.imageflownet.settings import UNetSettings
from namd.models.initialisation import initialised_from
from tests.methods.imageflownet.made import SDE, SIZE, UNET, images, network, white

ATTENTIVE = UNetSettings((8, 16), norm_num_groups=4, attention_sizes=(8,), num_heads=4)


@pytest.mark.parametrize("unet", [UNET, ATTENTIVE])
def test_at_tau_0_it_is_the_plain_unet(unet):
    model = network(unet).eval()
    with torch.no_grad():
        plain = model.unet(images(), timestep=0).sample
        assert torch.equal(model.reconstruct(images()), plain)
        # Twins: a latent that has evolved, or a U-Net at another time, is another image.
        assert not torch.allclose(model.predict(images(), white(2)), plain, atol=1e-3)
        assert not torch.allclose(model.unet(images(), timestep=9).sample, plain, atol=1e-4)


def test_the_bottleneck_and_every_skip_evolve_each_by_its_own_sde():
    model = network()
    before = model.encode(images())
    after = model.evolve(before, white(2))
    assert list(model.sdes) == list(before)
    assert list(before)[-1] == BOTTLENECK
    assert len(before) == 1 + sum(len(block.resnets) for block in model.unet.up_blocks)
    assert all(not torch.equal(after[name], latent) for name, latent in before.items())
    sigmas = [id(sde.sigma) for sde in model.sdes.values()]
    assert len(set(sigmas)) == len(before)


def test_every_latent_reaches_the_image_and_in_its_place():
    model = network()
    latents = model.encode(images())
    whole = model.decode(latents)
    for name, latent in latents.items():
        changed = model.decode(latents | {name: latent + 1})
        assert not torch.allclose(changed, whole, atol=1e-5), name


def test_the_ablation_lets_the_bottleneck_evolve_alone():
    model = network(sde=dataclasses.replace(SDE, evolved="bottleneck"))
    before = model.encode(images())
    after = model.evolve(before, white(2))
    assert [name for name in before if after[name] is not before[name]] == [BOTTLENECK]
    assert list(model.sdes) == [BOTTLENECK]


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_heads_are_what_diffusers_makes_of_a_head_of_that_width(heads):
    settings = UNetSettings((8, 8), 1, 4, (16, 8), heads)
    with initialised_from("test", 1):
        ours = build_unet(settings, SIZE).eval()
    theirs = UNet2DModel.from_config({**ours.config, "attention_head_dim": 8 // heads}).eval()
    theirs.load_state_dict(ours.state_dict())
    one = UNet2DModel.from_config({**ours.config, "attention_head_dim": 8}).eval()
    one.load_state_dict(ours.state_dict())
    with torch.no_grad():
        made = ours(images(), timestep=0).sample
        assert torch.equal(theirs(images(), timestep=0).sample, made)
        assert torch.equal(one(images(), timestep=0).sample, made) is (heads == 1)


def test_a_module_that_is_held_fixed_passes_gradients_and_keeps_none():
    layer = torch.nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    given = torch.ones(1, 2, requires_grad=True)
    with held_fixed(layer):
        layer(given).sum().backward()
    assert given.grad is not None
    assert layer.weight.grad is None
    assert [p.requires_grad for p in layer.parameters()] == [True, False]
    layer(given).sum().backward()
    assert layer.weight.grad is not None


def test_noise_of_a_case_depends_on_seed_case_and_draw_alone():
    ids = np.array(["a", "b", "c"])

    def drawn(seed=0, case_ids=ids, k=0, name="skip0", n=0):
        return case_noise("test", seed, case_ids, k, "cpu")(name, n, (2, 4, 4))

    assert torch.equal(drawn(case_ids=ids[[2, 0]]), drawn()[[2, 0]])
    for other in (drawn(seed=1), drawn(k=1), drawn(name="skip1"), drawn(n=1), drawn().roll(1, 0)):
        assert not torch.isclose(other, drawn()).flatten(1).all(1).any()
