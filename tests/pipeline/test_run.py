"""What is built, and what is not, when a configuration changes."""

import json

import pytest
from toy_run import toy_run
from toy_stages import read_diary

from namd.config.errors import ConfigError, StageError
from namd.pipeline.run import recorded_runs
from namd.storage.run_records import encode_run, run_place


def built(result):
    return [stage.stage.label for stage in result.stages if not stage.cached]


def test_a_second_identical_run_builds_nothing(store, diary):
    first = toy_run(store)
    wrote = read_diary(diary)
    second = toy_run(store)
    assert len(built(first)) == 2 + 5 + 5
    assert built(second) == []
    assert read_diary(diary) == wrote
    assert second.run == first.run
    assert second.rows == first.rows
    assert [s.key for s in second.stages] == [s.key for s in first.stages]
    assert [s.seconds for s in second.stages] == [s.seconds for s in first.stages]


def test_a_changed_slice_rebuilds_its_stage_and_what_lies_downstream(store, diary):
    toy_run(store)
    assert built(toy_run(store, "encode.scale=3.0"))[0] == "encode"
    assert "train" not in built(toy_run(store, "encode.scale=4.0"))
    assert built(toy_run(store, "train.rate=0.25"))[0] == "train"


def test_a_seed_reaches_only_the_stages_that_declare_it(store, diary):
    toy_run(store)
    assert built(toy_run(store, "draw_seed=9"))[0] == "draws-test[0]"
    assert built(toy_run(store, "train_seed=9"))[0] == "train"


def test_more_draws_compute_only_the_new_ones(store, diary):
    few = toy_run(store, "evaluate.num_draws=5")
    before = len(read_diary(diary))
    many = toy_run(store, "evaluate.num_draws=20")
    assert built(many) == [
        *(f"draws-test[{k}]" for k in range(5, 20)),
        *(f"scores-test[{k}]" for k in range(5, 20)),
    ]
    assert read_diary(diary)[before] == "draw call of 15"
    assert many.rows[:5] == few.rows
    assert many.run != few.run


def test_how_rows_are_formed_changes_the_run_but_no_stage(store, diary):
    first = toy_run(store)
    other = toy_run(store, "evaluate.confidence=0.9")
    assert built(other) == []
    assert other.run != first.run


def test_an_automatic_choice_is_resolved_before_keys(store, diary):
    first = toy_run(store, "precision=auto")
    assert built(toy_run(store, "precision=fp32")) == []
    assert built(toy_run(store, "precision=bf16"))[0] == "train"
    assert first.stages[0].stage.name == "train"


def test_a_run_is_recorded_with_its_configuration_keys_and_rows(store, diary):
    result = toy_run(store)
    record = recorded_runs(store)[result.run]
    assert record["config"]["precision"] == "fp32"
    assert record["rows"] == [dict(row) for row in result.rows]
    assert record["stages"][0]["name"] == "train"
    assert record["gap_recovered"] == 0.5
    json.dumps(result.to_mapping(), allow_nan=False)


def test_a_stage_that_cannot_go_on_is_no_artifact_and_may_be_tried_again(store, diary):
    with pytest.raises(StageError, match="not finite at step 6"):
        toy_run(store, "train.diverge_at=6")
    with pytest.raises(StageError):
        toy_run(store, "train.diverge_at=6")
    assert [entry.committed for entry in store.entries()] == [False]
    (entry,) = store.entries()
    assert not entry.held
    assert read_diary(diary).count("train from 4") == 1
    assert built(toy_run(store, "train.diverge_at=-1"))[0] == "train"


def test_the_manifest_holds_what_was_hashed_and_who_made_it(store, diary):
    result = toy_run(store)
    manifest = result.artifacts["train"].manifest()
    assert manifest["identity"]["slice"]["train"]["rate"] == 0.5
    assert manifest["identity"]["seeds"] == {"train_seed": 1}
    assert manifest["key"] == result.stages[0].key
    assert manifest["notes"] == {"steps": 12}
    assert manifest["environment"]["libraries"]["numpy"]
    assert len(manifest["source_hash"]) == 64
    assert [line["index"] for line in result.artifacts["train"].metrics()] == list(range(1, 13))
    (line,) = result.artifacts["draws-test[3]"].metrics()
    assert line["k"] == 3.0


def test_an_unknown_key_never_reaches_the_store(store, diary):
    with pytest.raises(ConfigError, match=r"train\.rat=1: unknown key; did you mean train\.rate"):
        toy_run(store, "train.rat=1")
    assert list(store.entries()) == []
    assert toy_run(store, "train.rate=1").rows


def test_weights_enter_the_key_by_content_not_by_place(store, diary, tmp_path):
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.bin").write_bytes(content)
    toy_run(store, f"train.weights={tmp_path / 'a'}")
    assert built(toy_run(store, f"train.weights={tmp_path / 'b'}")) == []
    assert built(toy_run(store, f"train.weights={tmp_path / 'c'}"))[0] == "train"
    with pytest.raises(ConfigError, match="no such file"):
        toy_run(store, f"train.weights={tmp_path / 'd'}")


def test_a_record_that_calls_labels_names_is_read_under_todays_names(store, diary):
    result = toy_run(store)
    known = recorded_runs(store)[result.run]
    before = [
        {name: stage[name] for name in ("key", "cached", "seconds")} | {"name": stage["label"]}
        for stage in known["stages"]
    ]
    store.backend.replace(run_place(result.run), encode_run({**known, "stages": before}))
    found = recorded_runs(store)[result.run]["stages"]
    names = ("label", "name", "index", "split", "key", "cached", "seconds")
    assert [[s[n] for n in names] for s in found] == [
        [s[n] for n in names] for s in known["stages"]
    ]
    assert found[-1]["label"] != found[-1]["name"]
