"""Stage `language`: resumed equals uninterrupted, and EOS carries the record."""

import json
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from namd.methods.namd.language import run
from namd.models.language import build_context
from namd.models.language_settings import (
    EmbeddedLanguageSettings,
    LanguageSettings,
    LoRASettings,
    SoftPromptSettings,
)
from namd.train.world import LocalWorld
from tests.contexts import open_context

TINY = EmbeddedLanguageSettings(
    hidden_size=32, num_layers=1, num_heads=2, intermediate_size=32, vocabulary_size=512,
    num_steps=52, batch_size=4, probe_records=100, checkpoint_every=25,
)  # fmt: skip


def stage_context(folder, shape):
    for name in ("out", "checkpoints"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return open_context(
        settings=SimpleNamespace(language=LanguageSettings(embedded=shape)),
        values={},
        cohort_path=folder,
        inputs={},
        outputs={None: folder / "out"},
        checkpoints=folder / "checkpoints",
        world=LocalWorld(),
        warn=pytest.fail,
    )


def weights(folder):
    return load_file(folder / "out" / "model" / "model.safetensors")


def test_resumed_equals_uninterrupted_and_the_folder_loads(tmp_path):
    list(run(stage_context(tmp_path / "whole", TINY)))
    steps = run(stage_context(tmp_path / "killed", TINY))
    assert next(step for step in steps if step.index == 50).total == 52
    steps.close()
    rest = [step.index for step in run(stage_context(tmp_path / "killed", TINY))]
    assert rest == [50, 52]
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all((whole[name] == resumed[name]).all() for name in whole)
    probes = [
        json.loads((tmp_path / name / "out" / "probes.json").read_text())
        for name in ("whole", "killed")
    ]
    assert probes[0] == probes[1]
    assert set(probes[0]) == {"trained", "random"}
    context = build_context(
        LanguageSettings(),
        SoftPromptSettings(2, 3),
        LoRASettings(),
        "eos",
        tmp_path / "whole" / "out",
        0,
    )
    assert context(["A nodule is present."]).shape == (1, 2, 32)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_linear_probes_read_the_record_from_eos_and_not_from_random_weights(tmp_path):
    shape = EmbeddedLanguageSettings()
    context = stage_context(tmp_path, shape)
    for _ in run(context):
        pass
    found = context.notes["probes"]
    for behind in ("0_prompts", "8_prompts"):
        trained, control = found["trained"][behind], found["random"][behind]
        assert min(trained.values()) >= 0.9, (behind, trained)
        ahead = {name: trained[name] - control[name] for name in trained}
        assert min(ahead.values()) > 0, (behind, ahead)
        assert sum(margin >= 0.05 for margin in ahead.values()) > len(ahead) / 2, (behind, ahead)
