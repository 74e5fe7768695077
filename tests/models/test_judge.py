"""The judge: a crop's score depends on the crop alone; saved and loaded it is the same."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from namd.config.errors import InputError
from namd.models.initialisation import initialised_from
from namd.models.judge import Judge, load_judge, save_judge
from namd.models.judge_parts import NormedPatches, WideAttention
from namd.models.judge_settings import JudgeArchitecture

SMALL = JudgeArchitecture(32, 8, (8, 8, 16), 1, width=16, depth=1, num_heads=2, mlp_width=16)
PLAIN = JudgeArchitecture(
    32, 8, (), width=16, depth=1, num_heads=2, mlp_width=16, pooling="class", dropout=0.5
)

RELEASED = replace(PLAIN, head_width=24, patch_norms=True)


def crops(count=6, size=32):
    return torch.linspace(-1, 1, count * size * size).reshape(count, 1, size, size).sin()


def judge(architecture):
    with initialised_from("test", 0):
        network = Judge(architecture)
        torch.nn.init.normal_(network.transformer.heads.head.weight)
    return network.eval()


@pytest.mark.parametrize("architecture", [SMALL, PLAIN, RELEASED])
def test_a_score_does_not_depend_on_its_batch_and_loads_as_saved(architecture, tmp_path):
    network, images = judge(architecture), torch.sin(300 * crops())  # ramps are one pattern
    together = network.probability(images)
    alone = torch.cat([network.probability(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert ((together > 0) & (together < 1)).all()
    assert together.std() > 1e-4  # it does tell crops apart
    torch.testing.assert_close(network.logit(network.features(images)), network(images))
    save_judge(network, tmp_path)
    loaded = load_judge(tmp_path)
    torch.testing.assert_close(loaded(images), network(images), atol=1e-5, rtol=0)
    saved = network.state_dict()
    assert all((value == saved[name]).all() for name, value in loaded.state_dict().items())
    assert loaded.architecture == architecture
    network.train()
    assert not torch.allclose(network(images), loaded(images))  # dropout is for training only


def test_density_reaches_the_logit():
    """A crop 100 HU denser is another crop; a norm over the image would undo that."""
    network, images = judge(SMALL), 0.1 * crops()
    denser = network(images + 0.14) - network(images)
    assert denser.abs().mean() > 1e-2
    normalised = torch.nn.functional.group_norm
    torch.testing.assert_close(
        normalised(images + 0.14, 1), normalised(images, 1), atol=1e-3, rtol=0
    )


def test_the_papers_judge_has_its_stated_shape():
    paper = JudgeArchitecture(
        64, 8, (), width=1024, depth=6, num_heads=32, mlp_width=2048, dropout=0.5, pooling="class"
    )
    with torch.device("meta"):
        network = Judge(paper)
    layer = 4 * 1024**2 + 4 * 1024 + 2 * 1024 * 2048 + 2048 + 1024 + 4 * 1024
    outside = 64 * 1024 + 1024 + 65 * 1024 + 1024 + 2 * 1024 + 1025
    assert sum(p.numel() for p in network.parameters()) == 6 * layer + outside


def test_the_released_codes_judge_has_its_stated_shape():
    """Heads of width 64 attend over 2048 numbers; norms of 64 pixels and of 1024 numbers."""
    released = JudgeArchitecture(
        64, 8, (), width=1024, depth=6, num_heads=32, mlp_width=2048, dropout=0.5, pooling="class",
        head_width=64, patch_norms=True,
    )  # fmt: skip
    with torch.device("meta"):
        network, plain = Judge(released), Judge(replace(released, head_width=None))
    attention = network.transformer.encoder.layers[0].self_attention
    assert attention.project_in.weight.shape == (3 * 2048, 1024)
    layer = 4 * 1024 * 2048 + 1024 + 2 * 1024 * 2048 + 2048 + 1024 + 4 * 1024
    outside = 64 * 1024 + 1024 + 65 * 1024 + 1024 + 2 * 1024 + 1025
    count = sum(p.numel() for p in network.parameters())
    assert count == 6 * layer + outside + 2 * 64 + 2 * 1024
    assert count > sum(p.numel() for p in plain.parameters())


def test_wide_attention_is_attention_head_by_head():
    """Against torch's own, whose heads share the width out: a head of width / heads is the same."""
    ours = WideAttention(16, 2, 8, dropout=0.5).eval()
    theirs = nn.MultiheadAttention(16, 2, bias=True, batch_first=True).eval()
    theirs.in_proj_weight.data = ours.project_in.weight.data
    theirs.in_proj_bias.data.zero_()
    theirs.out_proj.load_state_dict(ours.project_out.state_dict())
    tokens = crops(3, 8).view(3, 4, 16)
    expected = theirs(tokens, tokens, tokens, need_weights=False)[0]
    torch.testing.assert_close(ours(tokens, tokens, tokens)[0], expected)
    wider = WideAttention(16, 2, 24, dropout=0.5).eval()
    assert wider(tokens, tokens, tokens)[0].shape == expected.shape
    assert not torch.allclose(ours.train()(tokens, tokens, tokens)[0], expected)


def test_patches_are_cut_as_a_convolution_cuts_them_and_normed_on_both_sides():
    patches = NormedPatches(8, 16)
    images = crops(2, 32)
    for norm in (patches.before, patches.after):
        norm.forward = lambda values: values
    weight = patches.projection.weight.view(16, 1, 8, 8)
    plain = nn.functional.conv2d(images, weight, patches.projection.bias, stride=8)
    torch.testing.assert_close(patches(images), plain)
    normed = NormedPatches(8, 16)
    normed.load_state_dict(patches.state_dict())
    torch.testing.assert_close(normed(3 * images + 1), normed(images), atol=1e-2, rtol=0)
    assert not torch.allclose(patches(3 * images + 1), patches(images), atol=1e-2)
    tokens = normed(images)
    torch.testing.assert_close(tokens.mean(1), torch.zeros(2, 4, 4), atol=1e-5, rtol=0)


def test_a_judge_of_the_old_kind_is_saved_as_it_always_was(tmp_path):
    save_judge(judge(SMALL), tmp_path)
    assert not {"head_width", "patch_norms"} & set(
        json.loads((tmp_path / "config.json").read_text())
    )


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"image_size": 60}, "60"),
        ({"stem_channels": (16, 32)}, "stem"),
        ({"width": 66}, "66"),
        ({"dropout": 1.0}, "dropout"),
        ({"depth": 0}, "depth"),
        ({"head_width": 0}, "head_width"),
        ({"patch_norms": True}, "patch_norms needs .* stem_channels"),
        ({"stem_channels": (16, 30, 48, 64)}, "30"),
    ],
)
def test_impossible_shapes_are_refused(wrong, named):
    with pytest.raises(ValueError, match=named):
        JudgeArchitecture(**wrong)
    JudgeArchitecture()


def test_a_folder_without_a_judge_is_the_users_mistake(tmp_path):
    with pytest.raises(InputError, match="no judge here"):
        load_judge(tmp_path)
    save_judge(judge(SMALL), tmp_path)
    load_judge(tmp_path)
