"""The judge: a crop's score depends on the crop alone; saved and loaded it is the same."""

import pytest
import torch

from namd.config.errors import InputError
from namd.models.initialisation import initialised_from
from namd.models.judge import Judge, load_judge, save_judge
from namd.models.judge_settings import JudgeArchitecture

SMALL = JudgeArchitecture(32, 8, (8, 8, 16), 1, width=16, depth=1, num_heads=2, mlp_width=16)
PLAIN = JudgeArchitecture(
    32, 8, (), width=16, depth=1, num_heads=2, mlp_width=16, pooling="class", dropout=0.5
)


def crops(count=6, size=32):
    return torch.linspace(-1, 1, count * size * size).reshape(count, 1, size, size).sin()


def judge(architecture):
    with initialised_from("test", 0):
        network = Judge(architecture)
        torch.nn.init.normal_(network.transformer.heads.head.weight)
    return network.eval()


@pytest.mark.parametrize("architecture", [SMALL, PLAIN])
def test_a_score_does_not_depend_on_its_batch_and_loads_as_saved(architecture, tmp_path):
    network, images = judge(architecture), crops()
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


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"image_size": 60}, "60"),
        ({"stem_channels": (16, 32)}, "stem"),
        ({"width": 66}, "66"),
        ({"dropout": 1.0}, "dropout"),
        ({"depth": 0}, "depth"),
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
