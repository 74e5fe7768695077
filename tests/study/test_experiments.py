"""The studies that ship fit the method they are about, and say what the plan promises."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.published import PUBLISHED
from namd.pipeline.graph import make_plan
from namd.study.spec import StudySpec, read_study
from namd.study.trials import Configurator, ablation_trials

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
FILES = [*sorted(FOLDER.glob("*.yaml")), FOLDER.parent / "namd" / "cli" / "demo.yaml"]


TABLE_1 = ("table1", "table1-small")
ROWS_OF_TABLE_1 = {row.method for row in PUBLISHED} | {"copy_noise", "regression"}
"""The paper's methods, and what every one of them must beat."""


def compared(spec: StudySpec) -> set[str]:
    """The methods that a study names."""
    return {spec.base.method} | {
        values["method"]
        for values in (spec.ablation.toggles.values() if spec.ablation else ())
        if "method" in values
    }


def keys_of(trial) -> dict[str, str]:
    """The key of each stage by its name, of families that of the last index."""
    configuration = trial.configuration
    plan = make_plan(configuration.stages(), configuration.config, cohort_digest=lambda _part: "c")
    return {node.stage.name: node.key for node in plan.nodes}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_path_and_value_of_a_shipped_study_is_allowed(path):
    spec = read_study(path)
    assert spec.name == path.stem
    Configurator(spec).check()


@pytest.mark.parametrize("name", TABLE_1)
def test_table_1_has_every_method_of_the_papers(name):
    spec = read_study(FOLDER / f"{name}.yaml")
    assert ROWS_OF_TABLE_1 - compared(spec) == set()
    values = spec.ablation.toggles.values()
    samplers = [v["draws.sampler"] for v in values if v.get("method") == "corrflownet"]
    assert samplers == ["ode", "sde"]


def test_a_method_without_a_row_in_table_1_would_be_seen():
    spec = read_study(FOLDER / "table1.yaml")
    del spec.ablation.toggles["flux"]
    assert ROWS_OF_TABLE_1 - compared(spec) == {"flux"}


def test_the_small_table_1_has_the_rows_of_the_large_one():
    large, small = (read_study(FOLDER / f"{name}.yaml") for name in TABLE_1)
    assert list(small.ablation.toggles) == list(large.ablation.toggles)
    assert small.evaluate.secondary == large.evaluate.secondary
    assert (large.base.preset, large.train_seeds, large.evaluate.num_draws) == (
        "base", tuple(range(5)), 20,
    )  # fmt: skip


@pytest.mark.parametrize("name", TABLE_1)
def test_the_authors_own_arm_of_table_1_trains_for_as_many_epochs(name):
    spec = read_study(FOLDER / f"{name}.yaml")
    theirs = spec.ablation.toggles["authors_no_align"]
    with_known = replace(spec, ablation=replace(spec.ablation, toggles={"authors": theirs}))
    clean, confounded = (
        trial.configuration.config.vae
        for trial in ablation_trials(with_known, Configurator(with_known))[:2]
    )
    cases = {vae.num_steps * vae.batch_size for vae in (clean, confounded)}
    assert len(cases) == 1
    assert confounded.learning_rate == 2 * clean.learning_rate
    assert confounded.batch_size == clean.batch_size // 4
    assert confounded.alignment.weight == confounded.prediction.weight == 0


def test_rows_of_table_1_share_the_judge_the_references_and_the_autoencoder():
    spec = read_study(FOLDER / "table1-small.yaml")
    spec = replace(spec, seeds=1)
    trials = ablation_trials(spec, Configurator(spec))
    assert len(trials) == 1 + len(spec.ablation.toggles)
    keys = {trial.arm: keys_of(trial) for trial in trials}
    for stage in ("judge", "reference-test"):
        assert len({found[stage] for found in keys.values()}) == 1
    assert keys["sd15"]["vae"] == keys["no_align_no_predict"]["vae"]
    assert keys["sd15"]["vae"] != keys["no_align"]["vae"]
    assert keys["corrflownet_ode"]["flow"] == keys["corrflownet_sde"]["flow"]
    assert keys["corrflownet_ode"]["draws-test"] != keys["corrflownet_sde"]["draws-test"]


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
