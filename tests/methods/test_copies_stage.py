"""Stages `train_crops` and `copies`: whose crops, which split, which turn, which row and draw."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter

from analysis import copies_figure
from namd.api.copies import copies_line, draw_copies
from namd.config.errors import InputError
from namd.config.seeding import generator
from namd.data import schema
from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.data.rotation import centre_cut, rotated_crops
from namd.evaluate.rendering import to_csv, to_markdown, to_text
from namd.evaluate.scores import plain_scores
from namd.evaluate.settings import EvaluateSettings
from namd.evaluate.table import RowScores, build_table
from namd.methods.shared import copies
from namd.methods.shared.settings import ImageSettings
from namd.pipeline.run_configuration import resolve
from namd.pipeline.score_table import _with_copies
from namd.train.world import LocalWorld
from tests.contexts import open_context

SIZE, STORED = 32, 48
SETTINGS = EvaluateSettings(num_draws=3, num_bootstrap=50, lpips="off", fid="off")
COUNT = 60
SPLIT = np.array(["train", "train", "validation", "test"])[np.arange(COUNT) % 4]
WITHOUT = (0, 3)
"""A train and a test case without a follow-up."""


def crops(*identifiers):
    noise = generator("test-copies-stage", *identifiers).normal(size=(COUNT, STORED, STORED))
    smooth = gaussian_filter(noise, (0, 2, 2))
    return (-500 + 200 * smooth / smooth.std()).astype(np.int16)


@pytest.fixture(scope="module")
def cohort():
    number = np.arange(COUNT)
    table = pd.DataFrame({name: np.full(COUNT, np.nan) for name in schema.COLUMN_TYPES})
    table = table.assign(
        **{name: [f"{name[0]}{n:02d}" for n in number] for name in schema.IDENTIFIERS},
        split=SPLIT,
        label=(number % 3 == 0).astype(float),
        months=12.0,
        spacing_mm=0.5,
    )
    followup, has = crops("followup"), ~np.isin(number, WITHOUT)
    followup[~has] = 0
    return Cohort(table, crops("baseline"), followup, has)


@pytest.fixture(scope="module")
def folder(cohort, tmp_path_factory):
    path = tmp_path_factory.mktemp("cohort") / "made-up"
    cohort.write(path)
    return path


def context(folder, outputs, inputs=None):
    for out in outputs.values():
        out.mkdir(parents=True, exist_ok=True)
    return open_context(
        settings=SimpleNamespace(image=ImageSettings(SIZE, "quarter"), evaluate=SETTINGS),
        values={"split": "test", "scored": "draws-test", "train_crops": "train_crops-test"},
        cohort_path=folder,
        inputs=inputs or {},
        outputs=outputs,
        checkpoints=folder,
        world=LocalWorld(),
        warn=pytest.fail,
    )


@pytest.fixture(scope="module")
def payloads(cohort, folder, tmp_path_factory):
    """Draw 0: a turned train follow-up each; draw 1: a validation baseline; draw 2: the case's."""
    out = tmp_path_factory.mktemp("copies")
    list(copies.run_real(context(folder, {None: out / "train"})))
    train = cohort.select(np.flatnonzero((SPLIT == "train") & np.asarray(cohort.has_followup)))
    validation, test = (cohort.select(name == SPLIT) for name in ("validation", "test"))
    turned = rotated_crops(train.followup[: len(test)], 90, SIZE)
    drawn = (turned, centre_cut(validation.baseline, SIZE), centre_cut(test.baseline, SIZE))
    inputs = {"train_crops-test": out / "train"}
    for k, hu in enumerate(drawn):
        place = out / f"draws{k}"
        place.mkdir()
        save_file({"images": to_unit(hu).astype(np.float16)}, place / "images.safetensors")
        test.table[["case_id"]].to_parquet(place / "cases.parquet")
        inputs[f"draws-test[{k}]"] = place
    outputs = {k: out / f"copies{k}" for k in range(3)}
    steps = list(copies.run(context(folder, outputs, inputs)))
    assert [step.finished for step in steps] == [0, 1, 2]
    return out, outputs, inputs, train.table["case_id"].to_numpy()[: len(test)]


def read(folder):
    return pd.read_parquet(folder / "copies.parquet")


def test_train_crops_are_both_time_points_of_the_train_split_at_every_turn(payloads, cohort):
    table = pd.read_parquet(payloads[0] / "train" / "train.parquet")
    train = cohort.table[SPLIT == "train"]
    assert set(table["case_id"]) == set(train["case_id"])
    assert sorted(table["angle"].unique()) == [0, 90, 180, 270]
    each = table.groupby(["time", "angle"]).size()
    assert set(each["baseline"]) == {len(train)}
    assert set(each["followup"]) == {len(train) - 1}


def test_a_copied_draw_names_its_train_crop_and_turn(payloads):
    _, outputs, _, copied = payloads
    first, second = read(outputs[0]), read(outputs[1])
    assert first["train_case"].tolist() == copied.tolist()
    assert set(first["train_time"]) == {"followup"}
    assert set(first["angle"]) == {90}
    assert first["distance"].max() < 1e-3
    assert second["distance"].min() > 0.1
    assert [set(read(outputs[k])["k"]) for k in range(3)] == [{0}, {1}, {2}]
    assert set(first["row"]) == {"drawn"}


def test_real_images_are_measured_once_each(payloads, cohort):
    out, outputs, _, _ = payloads
    real = read(out / "train")
    test = cohort.table[SPLIT == "test"]
    rows = {str(name): part for name, part in real.groupby("row")}
    assert set(rows) == {"real_baseline", "real_followup"}
    assert rows["real_baseline"]["case_id"].tolist() == test["case_id"].tolist()
    assert rows["real_followup"]["case_id"].tolist() == test["case_id"].tolist()[1:]
    drawn = read(outputs[2])["distance"].to_numpy()
    assert rows["real_baseline"]["distance"].to_numpy() == pytest.approx(drawn, abs=2e-3)
    assert real["distance"].min() > 0.1


def test_the_picture_shows_the_nearest_draws_beside_the_train_crops_as_turned(
    payloads, folder, cohort, tmp_path, monkeypatch
):
    out, outputs, inputs, copied = payloads
    shown = {}
    monkeypatch.setattr(copies_figure, "copies_figure", lambda *a, **k: shown.update(k, args=a))
    payload_of = {"train_crops-test": out / "train", **inputs}
    payload_of |= {f"copies-test[{k}]": place for k, place in outputs.items()}
    artifacts = {label: SimpleNamespace(payload=place) for label, place in payload_of.items()}
    whole = resolve("tiny", None, ["method=copy_noise", "evaluate.num_draws=3"])
    assert set(artifacts) <= {stage.label for stage in whole.stages()}
    draw_copies(artifacts, whole, folder, tmp_path / "new" / "copies.png")
    draws, real, path = shown["args"]
    assert (path, len(draws), len(real)) == (tmp_path / "new" / "copies.png", 6, 6)
    test = cohort.select(SPLIT == "test")
    for pair in draws:
        # Draw 0 is its nearest train crop, turned by 90 degrees.
        assert np.abs(pair.image - pair.train).max() < 2e-3
        own = [np.abs(pair.baseline - to_unit(centre_cut(b, SIZE))).max() for b in test.baseline]
        case = int(np.argmin(own))
        place = cohort.table["case_id"].tolist().index(copied[case])
        expected = to_unit(rotated_crops(cohort.followup[place], 90, SIZE))
        assert (pair.train == expected).all()
    assert [pair.distance for pair in real] == sorted(pair.distance for pair in real)
    assert shown["threshold"] == real[0].distance
    with pytest.raises(InputError, match=r"set evaluate\.copies=true"):
        draw_copies({}, whole, folder, tmp_path / "none.png")


def test_a_picture_of_copies_is_written(tmp_path):
    even = np.zeros((8, 8))
    pairs = [copies_figure.Pair(0.1 * n, even, even, even) for n in range(3)]
    path = tmp_path / "copies.png"
    copies_figure.copies_figure(pairs, pairs[:1], path, threshold=0.1, simulated=True)
    assert path.stat().st_size > 1000
    with pytest.raises(ValueError, match="no pair"):
        copies_figure.copies_figure([], [], path, threshold=0.1, simulated=True)


def test_draws_of_other_cases_are_refused(payloads, folder, cohort, tmp_path):
    _, _, inputs, _ = payloads
    place = tmp_path / "draws"
    place.mkdir()
    wrong = cohort.table[SPLIT == "test"][["case_id"]].iloc[::-1]
    wrong.to_parquet(place / "cases.parquet")
    changed = {**inputs, "draws-test[0]": place}
    with pytest.raises(RuntimeError, match="draw 0 holds other cases"):
        list(copies.run(context(folder, {0: tmp_path / "out"}, changed)))


@pytest.fixture(scope="module")
def table(payloads, cohort):
    out, outputs, _, _ = payloads
    cases = cohort.table[SPLIT == "test"].reset_index(drop=True)
    ids = cases["case_id"].to_numpy()
    scores = plain_scores(ids, generator("test-copies-scores").random(len(ids)))
    frames = [scores.assign(k=k) for k in range(3)]
    rows = {
        "real_followup": RowScores(scores),
        "ideal_sampler": RowScores(scores),
        "namd": RowScores(pd.concat(frames), title="NAMD"),
    }
    found = _with_copies(rows, [out / "train", *outputs.values()], "namd")
    return build_table(found, cases, SETTINGS, simulated=False)


def test_the_table_has_the_share_of_all_draws_that_are_copies(table, payloads):
    row, real = table.row("namd"), table.row("real_followup")
    assert row.copies == row.nearest_train.copies["value"] == pytest.approx(1 / 3, abs=0.05)
    cases = sum(SPLIT == "test")
    assert real.copies == pytest.approx(1 / (cases - 1))
    assert row.nearest_train.cases == cases
    assert row.nearest_train.real_cases == cases - 1
    distances = [read(place)["distance"].mean() for place in payloads[1].values()]
    assert row.nearest_train.distance["value"] == pytest.approx(np.mean(distances))
    assert table.row("ideal_sampler").copies is None


def test_text_markdown_csv_and_card_say_it(table):
    written = to_markdown(table)
    assert "| row | distance to the nearest train crop | copies |" in written
    assert "14 real follow-ups (cf. Dar et al. 2025)" in written
    assert "copies" in to_text(table)
    assert "nearest_train.copies.low" in to_csv(table).splitlines()[0]
    rows = {row["row"]: row for row in table.to_mapping()["rows"]}
    line = copies_line(rows["namd"])
    assert line.startswith(f"{table.row('namd').copies:.1%} [")
    assert "14 real follow-ups" in line
    assert copies_line(rows["ideal_sampler"]) is None
    assert copies_line({"row": "a record of an earlier version"}) is None


def test_a_run_without_the_stages_has_a_table_without_the_column(cohort):
    cases = cohort.table[SPLIT == "test"].reset_index(drop=True)
    rows = {"namd": RowScores(plain_scores(cases["case_id"].to_numpy(), np.arange(len(cases))))}
    table = build_table(_with_copies(rows, [], "namd"), cases, SETTINGS, simulated=False)
    assert table.row("namd").nearest_train is None
    assert "copies" not in to_text(table)


@pytest.mark.parametrize("method", ["namd", "copy_noise", "regression"])
def test_switching_copies_off_takes_their_stages_away_and_moves_no_key(method):
    on, off = (
        {s.label: s for s in resolve("tiny", None, [f"method={method}", *more]).stages()}
        for more in ([], ["evaluate.copies=false"])
    )
    left = {label for label in on if label not in off}
    assert {on[label].role for label in left} == {"copies"}
    assert {on[label].family for label in left} == {"train_crops", "copies"}
    assert all(stage == on[label] for label, stage in off.items())
