"""Stage `resnet`: what the classifier learns from, what stops it, and what is read back."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from namd.config.errors import InputError
from namd.data.cohort import Cohort
from namd.methods.base import StageContext
from namd.methods.mcwgan import features as stage
from namd.methods.mcwgan.networks import FrozenFeatures
from namd.pipeline.run_configuration import resolve
from namd.train.world import LocalWorld
from tests.contexts import open_context
from tests.methods import made


def context_of(folder: Path, cohort: Cohort) -> StageContext:
    size = (f"image.size={made.SIZE}", f"judge.architecture.image_size={made.SIZE}")
    own = ("resnet.batch_size=6", "wgan.critic_channels=[4]", "image.rotations=none")
    cohort.write(folder / "cohort")
    (folder / "out").mkdir()
    return open_context(
        settings=resolve("tiny", None, ["method=mcwgan", *size, *own]).config,
        values={},
        cohort_path=folder / "cohort",
        inputs={},
        outputs={None: folder / "out"},
        checkpoints=folder,
        world=LocalWorld(),
        warn=pytest.fail,
    )


@pytest.fixture
def noted(monkeypatch, tmp_path):
    """A run whose training is left out; what it was given."""
    seen = {}

    def fit(state, batches, validate, _folder) -> Iterator[object]:
        seen.update(state=state, batches=batches, validate=validate)
        state.objective.eval()
        return iter(())

    monkeypatch.setattr(stage, "fit", fit)
    list(stage.run(context_of(tmp_path, made.cohort())))
    return seen | {"out": tmp_path / "out"}


def labelled(split):
    cases = [*made.SPLITS[split], *(case + 0.5 for case in made.FOLLOWED[split])]
    return [case for case in cases if int(case) not in made.UNLABELLED]


def test_it_learns_from_labelled_train_crops_of_both_time_points(noted):
    cases = labelled("train")
    batches = [noted["batches"](step) for step in range(len(cases))]
    seen = [case for batch in batches for case in made.which(batch.images)]
    assert sorted(seen) == sorted(cases * 6)
    labels = [label for batch in batches for label in batch.labels.tolist()]
    assert labels == [int(case) % 2 for case in seen]


def test_it_is_validated_on_labelled_validation_crops_alone(noted):
    """A network that says how bright a crop is: its loss by hand."""
    network = noted["state"].objective.network
    seen = []

    def brightness(images):
        seen.append(images)
        return images.mean((2, 3))

    network.forward = brightness
    metrics = noted["validate"]()
    cases = labelled("validation")
    assert made.which(torch.cat(seen)) == cases
    signs = np.array([2 * (int(case) % 2) - 1 for case in cases])
    wanted = np.log1p(np.exp(-signs * [made.unit(case) for case in cases])).mean()
    assert metrics["validation_loss"] == pytest.approx(wanted, rel=1e-3)


def test_the_features_are_those_that_the_classifier_s_last_layer_reads(noted):
    network = noted["state"].objective.network
    images = noted["batches"](0).images
    with torch.no_grad():
        logits, head = network(images), network.fc
        features = FrozenFeatures.load(noted["out"], (1, 1, 1, 1))(images)
    assert features.shape == (len(images), 512)
    assert torch.allclose(head(features), logits, atol=1e-5)
    assert not torch.allclose(head(features.flip(0)), logits, atol=1e-5)


def test_a_split_of_one_class_is_refused(tmp_path):
    one_class = made.cohort(label=np.zeros(18))
    with pytest.raises(InputError, match=r"lacks malignant or benign .* wgan\.feature_weight=0"):
        list(stage.run(context_of(tmp_path, one_class)))
