"""A comparison in the paper's form: known numbers, known orders, and text that LaTeX can read."""

import csv
import hashlib
import html
import io
import json
import re

import numpy as np
import pytest
from made_study import MadeCohort, MadeStudy, ablation
from safetensors.numpy import save_file
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from analysis.arm_sizes import ArmSize, arm_sizes
from analysis.comparison import ComparedArm, Comparison, comparison_of, order_of
from analysis.comparison_cells import (
    comparison_tables,
    footnotes,
    main_table,
    order_sentence,
)
from analysis.comparison_files import comparison_csv, comparison_latex, comparison_markdown
from analysis.html_page import Table
from analysis.latex import escaped, latex_table
from analysis.published import PUBLISHED, published_row
from analysis.study_report import make_report, write_report
from analysis.study_table import StudyTable, study_table
from namd.evaluate.calibration import diameter_calibration
from namd.evaluate.settings import EvaluateSettings
from namd.ledger import schema
from namd.ledger.schema import Identity
from namd.ledger.view import read_view
from namd.methods.registry import METHODS
from namd.storage.opening import open_storage
from namd.storage.stage_names import StageName
from namd.storage.tensor_counts import stored_numbers

TITLES = {"namd": "NAMD", "mcwgan": "McWGAN", "regression": "Regression"}
TOGGLES = {
    "no_align": {"vae.alignment.weight": 0},
    "mcwgan": {"method": "mcwgan"},
    "corrflownet_ode": {"method": "corrflownet", "draws.sampler": "ode"},
    "regression": {"method": "regression"},
}
SHIFTS = {"namd": 1.5, "no_align": 0.9, "mcwgan": 0.4, "corrflownet_ode": 1.2, "regression": 0.7}
ONCE = ("mcwgan", "corrflownet_ode", "regression")


def made_comparison(folder, **cohort) -> MadeStudy:
    specification = ablation("made", 2, TOGGLES)
    specification["ablation"] |= {"design": "arms", "reference": "namd"}
    cohort = MadeCohort.write(folder / "cohort", 90, **cohort)
    study = MadeStudy(folder / "store", cohort, specification)
    for seed in range(2):
        for arm, shift in SHIFTS.items():
            draws = 1 if arm in ONCE else 3
            values = {"copies": shift / 100 + seed / 1000}
            overrides = TOGGLES.get(arm, {})
            study.run(arm, seed, shift, draws=draws, overrides=overrides, values=values, ideal=3)
    study.close()
    return study


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    study = made_comparison(tmp_path_factory.mktemp("comparison"))
    view = read_view(study.storage, study.name)
    table = study_table(study.storage, view)
    return study, table, comparison_of(study.storage, view, table, TITLES)


def arm(name, published=None, **means) -> ComparedArm:
    row = {metric: {"mean": value} for metric, value in means.items()}
    return ComparedArm(name, name, name, {}, row, published=published)


def ranked(metric, values) -> list[ComparedArm]:
    return [arm(row.title, row, **{metric: v}) for row, v in zip(PUBLISHED, values, strict=True)]


def test_copies_are_those_that_the_runs_recorded(made):
    _, table, _ = made
    for name, shift in SHIFTS.items():
        assert table.row(name)["copies"]["mean"] == pytest.approx(shift / 100 + 0.0005)


def test_the_ideal_sampler_is_measured_like_an_arm(made):
    study, table, comparison = made
    row = {row["row"]: row for row in table.context}["ideal_sampler"]
    draws = np.stack([study.cohort.scores("ideal", 0, k, 2.0)["score"] for k in range(3)])
    labels = study.cohort.table["label"].to_numpy(int)
    assert row["num_draws"] == 3
    assert row["auroc"]["mean"] == pytest.approx(roc_auc_score(labels, draws.mean(0)))
    each = [roc_auc_score(labels, draw) for draw in draws]
    assert row["auroc_per_draw"]["mean"] == pytest.approx(np.mean(each))
    assert row["auroc_per_draw"]["std_draws"] == pytest.approx(np.std(each, ddof=1))
    # Twin: a row that is scored once has the same value per draw and of the mean.
    assert np.mean(each) != pytest.approx(row["auroc"]["mean"])
    printed = {line[0]: line for line in main_table(comparison, table).rows}
    assert "±" in " ".join(printed["ideal sampler"])
    assert "±" not in " ".join(printed["real follow-up"])


@pytest.mark.parametrize(("metric", "against"), [("auroc_per_draw", "auroc"), ("lpips", "lpips")])
def test_spearman_of_the_order_is_scipys(metric, against):
    values = np.random.default_rng(3).normal(size=len(PUBLISHED))
    order = order_of(ranked(metric, values), metric, against)
    theirs = [row.values[against] for row in PUBLISHED]
    assert order.rho == pytest.approx(spearmanr(values, theirs).statistic)
    assert order.rho != pytest.approx(spearmanr(-values, theirs).statistic)


@pytest.mark.parametrize(("metric", "against"), [("auroc", "auroc"), ("kid_judge", "fid")])
def test_the_papers_own_figures_have_its_order_and_their_opposite_has_not(metric, against):
    theirs = [row.values[against] for row in PUBLISHED]
    same = order_of(ranked(metric, theirs), metric, against)
    assert same.rho == pytest.approx(1)
    assert same.ours == same.theirs
    best = max(theirs) if against == "auroc" else min(theirs)
    assert PUBLISHED[same.ours.index(1)].values[against] == best
    assert "no row changes its place" in order_sentence(same)
    assert "as there" in order_sentence(same)
    opposite = order_of(ranked(metric, [-value for value in theirs]), metric, against)
    assert opposite.rho == pytest.approx(-1)
    assert order_sentence(opposite).startswith("against the paper's, beyond chance")


def test_two_rows_have_no_order_and_equal_rows_no_correlation():
    rows = ranked("auroc", [0.5] * len(PUBLISHED))
    assert order_of(rows[:2], "auroc", "auroc") is None
    alike = order_of(rows, "auroc", "auroc")
    assert alike.rho is None
    assert "no order" in order_sentence(alike)


def test_the_sentence_names_the_row_that_moves_most():
    theirs = [row.values["auroc"] for row in PUBLISHED]
    moved = list(theirs)
    moved[[row.title for row in PUBLISHED].index("Flux")] = 1.0
    sentence = order_sentence(order_of(ranked("auroc", moved), "auroc", "auroc"))
    assert "Flux leads here, NAMD there; Flux moves most, from place 9 to 1." in sentence


def test_places_within_chance_are_called_so():
    values = [row.values["auroc"] for row in PUBLISHED[:3]]
    order = order_of(ranked("auroc", [*values, *[np.nan] * 6])[:3], "auroc", "auroc")
    assert order.chance == pytest.approx(0.997, abs=1e-3)
    nine = order_of(ranked("auroc", np.arange(9.0)), "auroc", "auroc")
    assert nine.chance == pytest.approx(0.666, abs=1e-3)
    assert order_sentence(nine).startswith("no closer to the paper's than chance") == (
        abs(nine.rho) < nine.chance
    )


def test_rows_of_the_paper_are_known_by_what_an_arm_sets():
    def title(method, **settings):
        row = published_row(method, {path.replace("__", "."): v for path, v in settings.items()})
        return row and row.title

    assert title("namd") == "NAMD"
    assert title("namd", vae__alignment__weight=0) == "NAMD w/o L_align"
    assert title("namd", vae__prediction__weight=0) is None
    assert title("corrflownet", draws__sampler="ode") == "CorrFlowNet ODE"
    assert title("corrflownet") == "CorrFlowNet SDE"
    assert title("regression") is None


def test_a_row_of_the_paper_is_a_method_and_stands_once():
    names = [row.title for row in PUBLISHED]
    assert len(set(names)) == len(names) == 9
    missing = {row.method for row in PUBLISHED} - METHODS.keys()
    assert missing == set()
    default = METHODS["corrflownet"].config_class().draws.sampler
    assert published_row("corrflownet", {}).settings == {"draws.sampler": default}


def test_a_study_of_one_method_is_no_comparison(tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.study_report.FIGURES", {})
    study = MadeStudy(tmp_path / "store", MadeCohort.write(tmp_path / "c", 60),
                      ablation("made", 1, {"no_align": TOGGLES["no_align"]}))  # fmt: skip
    for name in ("full", "no_align"):
        study.run(name, 0, 1.0, overrides=TOGGLES.get(name, {}))
    view = read_view(study.storage, study.name)
    assert comparison_of(study.storage, view, study_table(study.storage, view)) is None
    page = write_report(make_report(study.storage, view), tmp_path / "out")
    assert not list(page.parent.glob("comparison.*"))


def test_rows_stand_in_the_papers_order_and_others_behind(made):
    _, table, comparison = made
    assert [each.title for each in comparison.arms] == [
        "McWGAN", "CorrFlowNet ODE", "NAMD", "NAMD w/o L_align", "Regression",
    ]  # fmt: skip
    shown = [row[0] for row in main_table(comparison, table).rows]
    assert shown == [
        "real follow-up", "real baseline", "ideal sampler", "McWGAN (a)", "CorrFlowNet ODE (b)",
        "NAMD", "NAMD w/o L_align", "Regression",
    ]  # fmt: skip


def test_what_is_drawn_once_has_no_spread_and_no_coverage(made):
    _, table, comparison = made
    found = main_table(comparison, table)
    cells = {row[0]: dict(zip(found.header, row, strict=True)) for row in found.rows}
    several, once = cells["NAMD"], cells["Regression"]
    for metric in ("AUROC per draw ↑", "AUPRC per draw ↑"):
        assert "±" in several[metric]
        assert "±" not in once[metric]
        assert once[metric] != "-"
    assert (several["draws"], once["draws"]) == ("3", "1")
    assert several["coverage"] != "-"
    assert once["coverage"] == "-"
    assert once["CRPS mm ↓"] != "-"
    notes = "\n".join(footnotes(comparison, table))
    assert "McWGAN, CorrFlowNet ODE, Regression: every draw would be the same" in notes


def test_the_spread_over_draws_is_numpys(made):
    study, table, _ = made
    labels = study.cohort.table["label"].to_numpy()
    spreads = []
    for seed in range(2):
        draws = [study.cohort.scores("namd", seed, k, 1.5)["score"].to_numpy() for k in range(3)]
        spreads.append(np.std([area(labels, draw) for draw in draws], ddof=1))
    found = table.row("namd")["auroc_per_draw"]["std_draws"]
    assert found == pytest.approx(np.mean(spreads), abs=1e-5)
    assert found != pytest.approx(np.mean(spreads) * np.sqrt(2 / 3), abs=1e-5)
    assert table.row("namd")["auroc"]["std_draws"] is None


def area(labels, score) -> float:
    pairs = score[labels == 1][:, None] - score[labels == 0][None]
    return float((pairs > 0).mean() + 0.5 * (pairs == 0).mean())


def test_diameters_are_measured_as_in_a_runs_own_table(made):
    study, table, _ = made
    truth = study.cohort.diameters()
    settings = EvaluateSettings(num_bootstrap=2)
    wanted = []
    for seed in range(2):
        draws = [study.cohort.scores("namd", seed, k, 1.5)["diameter_mm"] for k in range(3)]
        drawn = np.stack(draws, axis=1)
        wanted.append(diameter_calibration(drawn, truth, study.cohort.table, settings).rule)
    row = table.row("namd")
    for name, values in (
        ("diameter_crps_mm", [rule.crps_mm["value"] for rule in wanted]),
        ("diameter_coverage", [rule.coverage["value"] for rule in wanted]),
    ):
        assert row[name]["mean"] == pytest.approx(np.mean(values), abs=1e-5)
        assert row[name]["low"] < row[name]["mean"] < row[name]["high"]
    assert table.row("no_align")["differences"]["diameter_crps_mm"]["p_holm"] is not None


def test_footnotes_say_what_is_ours_and_what_is_simulated(made, tmp_path):
    _, table, comparison = made
    notes = footnotes(comparison, table)
    assert notes[0].startswith("SIMULATED")
    assert sum("partly our interpretation" in note for note in notes) == 2
    assert any(note.startswith("No LPIPS") for note in notes)
    real = made_comparison(tmp_path, simulated=False)
    view = read_view(real.storage, real.name)
    plain = study_table(real.storage, view)
    told = footnotes(comparison_of(real.storage, view, plain), plain)
    assert not [note for note in told if "SIMULATED" in note]
    assert "SIMULATED" not in comparison_latex(comparison_of(real.storage, view, plain), plain)


def test_holm_takes_all_rows_as_one_family(made):
    _, table, _ = made
    found = [row["differences"]["auprc"] for row in table.rows if row["arm"] != "namd"]
    p = sorted(each["p"] for each in found)
    stepped = np.minimum(1, np.maximum.accumulate([p[i] * (len(p) - i) for i in range(len(p))]))
    assert sorted(each["p_holm"] for each in found) == pytest.approx(list(stepped))


def test_the_csv_has_every_number_of_the_table(made):
    _, table, comparison = made
    lines = list(csv.DictReader(io.StringIO(comparison_csv(comparison, table))))
    named = {line["row"]: line for line in lines}
    assert len(lines) == 3 + len(comparison.arms)
    ours, theirs = named["NAMD w/o L_align"], table.row("no_align")
    assert float(ours["auroc"]) == theirs["auroc"]["mean"]
    assert float(ours["auroc_difference_p_holm"]) == theirs["differences"]["auroc"]["p_holm"]
    assert float(ours["paper_auroc"]) == 0.765
    assert named["Regression"]["paper_auroc"] == ""
    assert named["Regression"]["diameter_coverage"] == ""
    assert (named["McWGAN"]["interpreted"], named["NAMD"]["interpreted"]) == ("True", "False")
    assert float(named["real_followup"]["auroc_per_draw"]) == 1.0


def plain_table(**more) -> StudyTable:
    return StudyTable("s", "q", "ablation", "test", "auroc", ("auroc",), (), **more)


def test_a_table_of_known_numbers():
    def value(mean, std=None, low=None, high=None):
        return {"mean": mean, "std_draws": std, "low": low, "high": high}

    row = {
        "num_draws": 20,
        "differences": {"auroc": {"mean": -0.04, "low": -0.09, "high": 0.01, "p_holm": 0.0004}},
        "auroc_per_draw": value(0.7654, 0.0211),
        "auroc": value(0.8051, None, 0.75, 0.85),
        "lpips": value(0.2204, 0.001),
        "gap_recovered": value(0.82),
        "copies": value(0.0125),
    }
    one = ComparedArm("x", "X_1", "x", {}, row, ArmSize(4_321_000, 990.4))
    table = plain_table(reference="namd")
    comparison = Comparison((one,), ())
    found = comparison_tables(comparison, table)
    assert any(note.startswith("Copies:") for note in footnotes(comparison, table))
    assert found[0][1].header == (
        "row", "LPIPS ↓", "AUROC per draw ↑", "AUROC of mean ↑", "gap recovered ↑",
        "copies ↓", "draws", "parameters", "training s",
    )  # fmt: skip
    assert found[0][1].rows == (
        ("X_1", "0.220 ± 0.001", "0.765 ± 0.021", "0.805 [0.750, 0.850]", "0.820", "0.013", "20",
         "4.32 M", "990"),
    )  # fmt: skip
    assert found[1][1].rows == (("X_1", "−0.040 [−0.090, +0.010]\np < 0.001"),)


def balanced(text: str) -> bool:
    """Whether braces are paired, environments are closed, and every row has all its columns."""
    bare = re.sub(r"\\[\\{}&%$#_]", "", text)
    opened = re.findall(r"\\begin\{(.*?)\}", text)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            return False
    if sorted(re.findall(r"\\end\{(.*?)\}", text)) != sorted(opened):
        return False
    columns = [
        len(re.sub(r"\{.*?\}", "", found))
        for found in re.findall(r"\\begin\{tabular\}\{(.*)\}", text)
    ]
    parts = re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", text, re.DOTALL)
    even = all(
        line.replace(r"\&", "").count("&") == wanted - 1
        for wanted, part in zip(columns, parts, strict=True)
        for line in part.splitlines()
        if line.endswith(r" \\")
    )
    comments = re.sub(r"(?m)^%.*$", "", text)
    lone = re.search(r"(?<!\\)[%#_^~]", comments)
    return depth == 0 and even and lone is None


def test_the_latex_is_balanced_and_escaped(made):
    _, table, comparison = made
    text = comparison_latex(comparison, table)
    assert balanced(text)
    assert r"NAMD w/o L\_align" in text
    assert text.count(r"\begin{tabular}") == len(comparison_tables(comparison, table)) == 3
    assert all(ord(character) < 127 for character in text)


@pytest.mark.parametrize(
    "wrong",
    [
        (r"L\_align", "L_align"),
        (r"\end{tabular}", ""),
        (" & ", " "),
        (r"\caption{", r"\caption{{"),
    ],
)
def test_latex_that_would_not_compile_would_be_seen(wrong):
    table = Table(("row", "a & b"), (("L_align", "50%"), ("x", "±1")))
    text = latex_table(table, "a_b", "tab:x", ["100%"])
    assert balanced(text)
    assert wrong[0] in text
    assert not balanced(text.replace(*wrong))


def test_every_special_character_is_escaped():
    assert escaped("a_b & 5% #1 {x} ~ ^ $ \\") == (
        r"a\_b \& 5\% \#1 \{x\} \textasciitilde{} \textasciicircum{} \$ \textbackslash{}"
    )
    two = latex_table(Table(("a", "b"), (("x", "1_\n2"),)), "", "tab:x")
    assert r"\shortstack[r]{1\_\\2} \\" in two
    assert balanced(two)
    assert escaped("−1 ± 2\n< é") == r"$-$1 $\pm$ 2 \textless{} é"


def test_a_report_has_the_comparison_in_every_form(made, tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.study_report.FIGURES", {})
    study, table, comparison = made
    view = read_view(study.storage, study.name)
    page = write_report(make_report(study.storage, view, titles=TITLES), tmp_path / "out")
    folder = page.parent
    assert (folder / "comparison.tex").read_text() == comparison_latex(comparison, table)
    assert (folder / "comparison.csv").read_text().splitlines() == (
        comparison_csv(comparison, table).splitlines()
    )
    assert (folder / "comparison.md").read_text() == comparison_markdown(comparison, table)
    page_text = html.unescape(page.read_text())
    for told in ("partly our interpretation", "NAMD w/o L_align", "beside the paper's"):
        assert told in page_text
        assert told in (folder / "table.md").read_text()


def published_artifact(root, place, tensors, inputs=()) -> None:
    """An artifact as a store would publish it, named `stage/key`, and what it was made from."""
    stage, key = place.split("/")
    folder = root / stage / key / "attempts" / "a"
    (folder / "payload").mkdir(parents=True)
    if tensors:
        save_file(tensors, folder / "payload" / "model.safetensors")
    upstream = {each.split("/")[0]: each.split("/")[1] for each in inputs}
    manifest = {"device_seconds": 10.0, "identity": {"upstream": upstream}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            name = path.relative_to(folder).as_posix()
            files[name] = {"sha256": digest, "size": path.stat().st_size}
    commit = {"attempt": "a", "files": files}
    (folder.parents[1] / "COMMIT").write_text(json.dumps(commit))


def test_numbers_are_counted_from_the_headers(tmp_path):
    tensors = {"weight": np.zeros((3, 4, 5), np.float32), "scale": np.zeros((), np.float32)}
    published_artifact(tmp_path, "vae/k1", tensors)
    published_artifact(tmp_path, "latents/k2", {})
    storage = open_storage(str(tmp_path))
    assert stored_numbers(storage, "vae", "k1") == 61
    assert stored_numbers(storage, "latents", "k2") == 0
    assert stored_numbers(storage, "vae", "gone") is None


GRAPH = {
    "perceptual": ("train", ()),
    "vae": ("train", ("perceptual",)),
    "latents": ("map", ("vae",)),
    "finetune": ("train", ("latents", "vae")),
    "judge": ("train", ()),
    "draws": ("draw", ("vae", "finetune")),
    "scores": ("score", ("draws", "judge")),
}


def test_a_size_is_what_the_draws_read_and_all_that_it_was_trained_from(tmp_path):
    cohort = MadeCohort.write(tmp_path / "cohort", 6)
    study = MadeStudy(tmp_path / "store", cohort, ablation("made", 1, TOGGLES))
    trial = study.queue("full", 0)
    study.writer.append(Identity(trial, 1, schema.STARTED))
    for number, (stage, (role, inputs)) in enumerate(GRAPH.items(), 1):
        tensors = {"weight": np.zeros(10**number, np.float16)} if number < 6 else {}
        upstream = [f"{each}/key-{each}" for each in inputs]
        published_artifact(study.root, f"{stage}/key-{stage}", tensors, upstream)
        recorded = StageName(stage, None, stage, role).to_mapping()
        study.stage(trial, stage, f"key-{stage}", recorded)
    study.writer.append(Identity(trial, 1, schema.COMPLETED), {"values": {"auroc": 0.5}})
    study.queue("no_align", 0)
    view = read_view(study.storage, study.name)
    found = arm_sizes(study.storage, view, ["full", "no_align"])
    assert found == {"full": ArmSize(10**2 + 10**4, 30.0)}
    study.storage.remove("latents/key-latents/COMMIT")
    gone = arm_sizes(study.storage, view, ["full"])["full"]
    assert gone == ArmSize(10**2 + 10**4, None)
