"""A run from Python: refused early, planned without writing, loaded by the start of its key."""

import json

import pytest

import namd
from namd.pipeline.store import open_store
from tests.data.conftest import make_cohort

KEY = "a" * 64
ROWS = [
    {"row": "real_baseline", "num_draws": 1, "auroc": {"mean": 0.7, "low": 0.6, "high": 0.8}},
    {"row": "namd", "num_draws": 2, "auroc": {"mean": 0.8, "low": 0.7, "high": 0.9}, "fid": None},
]


def record(store, simulated: bool, key: str = KEY) -> None:
    """Write a run as the pipeline records it."""
    content = {
        "config": {},
        "method": "namd",
        "preset": "tiny",
        "stages": [{"name": "vae", "key": "b" * 64, "cached": True, "seconds": 1.0}],
        "rows": ROWS,
        "gap_recovered": 0.5,
        "about": {"simulated": simulated},
        "crops": {"spacing_mm": 0.5},
    }
    store.backend.replace(f"runs/{key}/run.json", json.dumps(content).encode())


@pytest.fixture
def store(tmp_path):
    made = open_store(str(tmp_path / "store"))
    record(made, simulated=True)
    return tmp_path / "store"


@pytest.fixture
def cohort(tmp_path):
    make_cohort(size=32).write(tmp_path / "c")
    return tmp_path / "c"


def test_a_run_is_loaded_by_the_start_of_its_key(store):
    run = namd.load_run("aaaa", store)
    assert (run.key, run.gap_recovered, run.simulated) == (KEY, 0.5, True)
    assert run.rows.loc["namd", "auroc.mean"] == 0.8
    assert run.rows.columns[0] == "num_draws"
    assert run.stages.loc["vae", "cached"]
    assert run.configuration.method.name == "namd"
    for missing in ("b", ""):
        with pytest.raises(namd.InputError, match=r"runs? of this key"):
            namd.load_run(missing, store)
    with pytest.raises(namd.InputError, match="no store there"):
        namd.load_run(KEY, store.parent / "none")


def test_a_damaged_run_hides_no_other(store):
    opened = open_store(str(store))
    opened.backend.replace(f"runs/{'c' * 64}/run.json", b"{")
    assert namd.load_run("aaaa", store).key == KEY
    with pytest.raises(namd.InputError, match="unreadable"):
        namd.load_run("cccc", store)


def test_the_banner_stands_over_simulated_numbers_alone(store):
    run = namd.load_run(KEY, store)
    for shown in (repr(run), run._repr_html_(), repr(run.rows), repr(run.rows[["auroc.mean"]])):
        assert shown.count("SIMULATED") == 1
    record(open_store(str(store)), simulated=False, key="d" * 64)
    measured = namd.load_run("dddd", store)
    for shown in (repr(measured), measured._repr_html_()):
        assert "SIMULATED" not in shown
        assert "Research use only" in shown


def test_a_prediction_is_refused_in_one_line_before_anything_is_loaded(store, tmp_path):
    run = namd.load_run(KEY, store)
    (tmp_path / "dicom").mkdir()
    (tmp_path / "ehr.json").write_text('{"age": 61}')
    good = {"dicom": tmp_path / "dicom", "centre": (1, 2, 3), "ehr": tmp_path / "ehr.json"}
    for change, message in (
        ({"dicom": tmp_path / "Doe^Jane"}, "dicom: no such folder"),
        ({"centre": (1, 2)}, "three numbers"),
        ({"centre": (1, 2, float("nan"))}, "three numbers"),
        ({"ehr": tmp_path / "none.json"}, "none.json: no such file"),
        ({}, "its vae is no longer in the store"),
    ):
        with pytest.raises(namd.InputError, match=message) as caught:
            run.predict(**{**good, **change})
        assert "Doe" not in str(caught.value)
    with pytest.raises(namd.InputError, match="load it with cohort="):
        run.picture(tmp_path / "p.png")


def test_a_plan_takes_values_as_the_command_takes_texts(cohort, tmp_path):
    from namd.pipeline.run_configuration import resolve

    store = tmp_path / "new"
    values = {"vae.alignment.weight": 0, "judge.num_steps": 8}
    by_value = namd.plan("tiny", cohort=cohort, store=store, set=values)
    other = namd.plan("tiny", cohort=cohort, store=store)
    assert by_value.key != other.key
    assert by_value.num_missing == len(by_value.stages) > 10
    assert not by_value.provisional
    assert "to build" in by_value._repr_html_()
    assert not store.exists()
    texts = [f"{path}={value}" for path, value in values.items()]
    assert resolve("tiny", None, texts).config == resolve("tiny", None, values).config


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "tinny"}, "tinny"),
        ({"preset": None}, "name a preset"),
        ({"method": "nmad"}, "method='nmad' does not exist"),
        ({"set": {"vae.alignment.wieght": 0}}, "did you mean vae.alignment.weight"),
        ({"set": {"vae.alignment.weight": "much"}}, r"vae\.alignment\.weight"),
        ({"set": {"vae..weight": 1}}, "dotted path"),
        ({"cohort": "phantom:"}, "phantom:CASES"),
        ({"cohort": "nowhere"}, "nowhere"),
        ({"store": None}, "no store"),
        ({"store": "s3:/bucket"}, "did you mean s3://bucket"),
        ({"config": "none.yaml"}, "none.yaml"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_leaves_nothing(cohort, tmp_path, given, message):
    preset = given.pop("preset", "tiny")
    words = {"cohort": cohort, "store": tmp_path / "new"} | given
    for call in (namd.plan, namd.run):
        with pytest.raises(namd.InputError, match=message) as caught:
            call(preset, **words)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "new" / "runs").exists()


def test_an_unbuilt_phantom_makes_a_plan_provisional(tmp_path):
    plan = namd.plan("tiny", cohort="phantom:200", store=tmp_path / "new")
    assert plan.provisional
    assert "not built yet" in "".join(plan.problems)


def test_weights_of_a_preset_are_listed():
    assert {status.name for status in namd.weights()} >= {s.name for s in namd.weights("paper")}
    with pytest.raises(namd.ConfigError, match="papr"):
        namd.weights("papr")
