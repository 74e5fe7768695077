"""The studies that ship fit the method they are about, and say what the plan promises."""

import subprocess
import sys
from pathlib import Path

import pytest

from namd.study.spec import read_study
from namd.study.trials import Configurator, ablation_trials

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
FILES = [*sorted(FOLDER.glob("*.yaml")), FOLDER.parent / "namd" / "cli" / "demo.yaml"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_path_and_value_of_a_shipped_study_is_allowed(path):
    spec = read_study(path)
    assert spec.name == path.stem
    Configurator(spec).check()


def test_the_table_ablation_is_eighteen_trials_of_six_arms():
    spec = read_study(FOLDER / "table-ablation.yaml")
    trials = ablation_trials(spec, Configurator(spec))
    assert len({trial.trial for trial in trials}) == len(trials) == 18
    assert len({trial.arm for trial in trials}) == 6


def test_the_search_ships_with_all_that_was_asked_for():
    space = read_study(FOLDER / "soft-prompt-search.yaml").search.parsed_space
    names = {parameter.name for parameter in space.parameters}
    ablated = read_study(FOLDER / "alignment-ablation.yaml").ablation.toggles
    for values in ablated.values():
        assert set(values) <= names
    assert {"vae.alignment.sigma_f", "vae.alignment.sigma_z"} <= names
    assert "finetune.soft_prompt.num_sets" in names


def test_the_authors_own_ablation_is_an_arm_beside_the_clean_one():
    spec = read_study(FOLDER / "paper-no-align.yaml")
    arms = {trial.arm: trial for trial in ablation_trials(spec, Configurator(spec))}
    assert list(arms) == ["full", *spec.ablation.toggles]
    assert set(arms["no_align"].overrides) == {"vae.alignment.weight"}
    clean, theirs = (arms[name].configuration.config for name in ("no_align", "authors_no_align"))
    assert clean.vae.architecture.weights is not None
    assert theirs.vae.architecture.weights is None
    cases = {config.vae.num_steps * config.vae.batch_size for config in (clean, theirs)}
    assert len(cases) == 1
    assert theirs.vae.architecture.downsampling == 8


def test_the_study_and_ledger_rooms_load_neither_torch_nor_ray():
    program = (
        "import sys, namd.study.record, namd.study.plan, namd.study.json_schema, namd.ledger.view\n"
        "from pathlib import Path\n"
        "from namd.study.spec import read_study\n"
        "from namd.study.trials import Configurator\n"
        f"Configurator(read_study(Path({str(FOLDER / 'table-ablation.yaml')!r}))).check()\n"
        "assert 'torch' not in sys.modules and 'ray' not in sys.modules, 'heavy'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
