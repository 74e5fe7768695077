"""The rung that ends a bad latent space: what it measures, and when it says nothing."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from namd.methods.base import StageContext
from namd.methods.namd import probe
from tests.contexts import open_context


def rows(seed: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = (np.arange(400) % 5 == 0).astype(int)
    return random.normal(size=(400, 16)) + strength * labels[:, None], labels


@pytest.mark.parametrize(("strength", "low", "high"), [(2.0, 0.99, 1.0), (0.0, 0.35, 0.65)])
def test_it_reads_what_is_there_and_nothing_else(strength, low, high):
    value = probe.probe_auroc(*rows(0, strength), *rows(1, strength))
    assert low <= value <= high


def test_a_scaled_latent_space_scores_the_same():
    """No searched weight may move the rung by rescaling the latents."""
    train, labels = rows(0, 0.3)
    held_out, truth = rows(1, 0.3)
    assert probe.probe_auroc(train, labels, held_out, truth) == pytest.approx(
        probe.probe_auroc(7 * train, labels, 7 * held_out, truth)
    )


def context(tmp_path, monkeypatch, labels: list) -> tuple[StageContext, list[str]]:
    ids = np.array([f"case{n}" for n in range(len(labels))])
    images = torch.tensor([[[[float(label == 1)]]] for label in labels])[None]
    latents = SimpleNamespace(case_ids=ids, followup=SimpleNamespace(mean=images))
    table = pd.DataFrame({"case_id": ids[::-1], "label": pd.array(labels[::-1], dtype="Int8")})
    monkeypatch.setattr(probe, "load_latents", lambda folder, split: latents)
    monkeypatch.setattr(probe, "read_split", lambda path, split: SimpleNamespace(table=table))
    said: list[str] = []
    world = SimpleNamespace(rank=0, size=1, device="cpu")
    made = open_context(
        None, {}, tmp_path, {"latents": tmp_path}, {None: tmp_path}, tmp_path, world, said.append
    )
    return made, said


def test_labels_are_matched_by_case_and_unknown_ones_left_out(tmp_path, monkeypatch):
    made, said = context(tmp_path, monkeypatch, [0, 1, None, 0, 1, 1])
    (step,) = probe.run(made)
    assert step.metrics == {"probe_auroc": 1.0}
    assert json.loads((tmp_path / "probe.json").read_text())["cases"]["train"] == 5
    assert not said


def test_a_split_of_one_class_is_said_and_measures_nothing(tmp_path, monkeypatch):
    made, said = context(tmp_path, monkeypatch, [0, 0, None, 0])
    (step,) = probe.run(made)
    assert not step.metrics
    assert "nothing to measure" in said[0]


def test_it_is_fitted_on_train_and_measured_on_validation(tmp_path, monkeypatch):
    """Latents whose sign means one thing in train and the other in validation."""
    made, _ = context(tmp_path, monkeypatch, [0, 1, 0, 1])
    ids = np.array([f"case{n}" for n in range(4)])

    def latents(_folder, split):
        sign = 1.0 if split == "train" else -1.0
        images = sign * torch.tensor([0.0, 1.0, 0.0, 1.0])[None, :, None, None, None]
        return SimpleNamespace(case_ids=ids, followup=SimpleNamespace(mean=images))

    monkeypatch.setattr(probe, "load_latents", latents)
    (step,) = probe.run(made)
    assert step.metrics == {"probe_auroc": 0.0}
