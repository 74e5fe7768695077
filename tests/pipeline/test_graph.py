"""What a key depends on, and what it does not."""

import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_run import cohort_digest, configure
from toy_stages import stages

from namd.config.errors import InputError
from namd.config.parsing import LATER
from namd.methods.base import CohortSlice, Stage
from namd.pipeline.graph import make_plan


def keys(*overrides, digest=cohort_digest, change=lambda found: found, targets=None):
    configuration = configure(*overrides)
    found = change(list(configuration.stages()))
    plan = make_plan(found, configuration.config, cohort_digest=digest, targets=targets)
    return {node.label: node.key for node in plan.nodes}


def changed(before, after):
    return {label.partition("[")[0] for label in before if before[label] != after[label]}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.rate=0.1", {"train", "encode", "draws-test", "scores-test"}),
        ("train_seed=5", {"train", "encode", "draws-test", "scores-test"}),
        ("encode.scale=1", {"encode", "draws-test", "scores-test"}),
        ("draw_seed=5", {"draws-test", "scores-test"}),
        ("evaluate.confidence=0.5", set()),
        ("evaluate.num_draws=20", set()),
    ],
)
def test_a_key_moves_with_its_own_slice_and_upstream_only(override, expected):
    assert changed(keys(), keys(override)) == expected


def test_members_of_a_family_differ_and_read_the_member_of_their_index():
    configuration = configure()
    plan = make_plan(configuration.stages(), configuration.config, cohort_digest=cohort_digest)
    by_label = {node.label: node for node in plan.nodes}
    assert len({node.key for node in plan.nodes}) == len(plan.nodes)
    for k in range(5):
        inputs = by_label[f"scores-test[{k}]"].inputs
        assert inputs == {f"draws-test[{k}]": ("draws-test", by_label[f"draws-test[{k}]"].key)}


def test_a_stage_without_index_reads_the_whole_family():
    table = Stage("table", 1, "map", "toy_stages:score", upstream=("scores-test",))
    few = keys(change=lambda found: [*found, table])
    many = keys("evaluate.num_draws=6", change=lambda found: [*found, table])
    assert few["table"] != many["table"]


@pytest.mark.parametrize(
    "field", [{"code_version": 2}, {"values": {"split": "validation"}}, {"body": "toy_stages:draw"}]
)
def test_what_a_stage_is_enters_its_key(field):
    def change(found):
        return [replace(s, **field) if s.name == "encode" else s for s in found]

    assert changed(keys(), keys(change=change)) == {"encode", "draws-test", "scores-test"}


def test_the_cohort_enters_only_by_the_slice_that_a_stage_declares():
    def digest_of(column):
        return lambda cohort: "other" if column in cohort.columns else "same"

    assert "train" in changed(keys(), keys(digest=digest_of("baseline")))
    assert changed(keys(digest=digest_of("x")), keys(digest=digest_of("followup"))) == set()


def test_kind_of_launch_does_not_enter():
    def change(found):
        return [replace(s, role="train") for s in found]

    assert keys(change=change) == keys()


def test_only_what_the_targets_need_is_planned():
    assert set(keys(targets=["encode"])) == {"train", "encode"}
    assert set(keys()) > {"train", "encode"}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda found: [*found, found[0]], "two stages"),
        (lambda found: found[1:], "no stage"),
        (lambda found: [replace(found[0], upstream=("encode",)), *found[1:]], "ring"),
        (lambda found: [s for s in found if s.label != "draws-test[3]"], "no member"),
    ],
)
def test_stages_that_form_no_graph_are_refused(change, word):
    with pytest.raises(ValueError, match=word):
        keys(change=change)


def test_stages_may_be_listed_in_any_order():
    assert keys(change=lambda found: found[::-1]) == keys()


def test_weights_are_digested_by_content_and_their_names(tmp_path):
    def key(folder):
        return keys(f"train.weights={folder}")["train"]

    for name in ("a", "b", "c", "d"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "w.bin").write_bytes(b"1234")
    (tmp_path / "b" / ".lock").write_text("")
    (tmp_path / "c" / "w.bin").rename(tmp_path / "c" / "v.bin")
    (tmp_path / "d" / "w.bin").write_bytes(b"1235")
    assert key(tmp_path / "a") == key(tmp_path / "b")
    assert len({key(tmp_path / name) for name in "acd"}) == 3
    (tmp_path / "a" / "w.bin").write_bytes(b"4321")
    assert key(tmp_path / "a") != key(tmp_path / "b")


def test_a_cohort_slice_is_read_once_for_all_stages_that_share_it(tmp_path, monkeypatch):
    import namd.data.cohort as cohorts
    from namd.pipeline.digests import DigestCache

    (tmp_path / "cases.parquet").write_bytes(b"")
    (tmp_path / "card.json").write_text("{}")
    asked = []
    monkeypatch.setattr(cohorts, "cohort_fingerprint", lambda *a: asked.append(a) or "digest")
    slice_ = CohortSlice(("baseline",), ("train",))
    many = [Stage(f"s{i}", 1, "map", "x:y", cohort=slice_) for i in range(5)]
    for _ in range(2):
        make_plan(many, object(), tmp_path, digests=DigestCache(tmp_path / "digests.json"))
    assert len(asked) == 1
    (tmp_path / "card.json").write_text('{"a": 1}')
    make_plan(many, object(), tmp_path, digests=DigestCache(tmp_path / "digests.json"))
    assert len(asked) == 2


def test_planning_imports_no_torch():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from toy_run import *; from namd.pipeline.graph import make_plan;"
        "from namd.pipeline.run_configuration import resolve; c = configure();"
        "make_plan(c.stages(), c.config, cohort_digest=cohort_digest);"
        "n = resolve('tiny'); make_plan(n.stages(), n.config, cohort_digest=cohort_digest);"
        "print([m for m in ('torch', 'ray', 'transformers', 'diffusers') if m in sys.modules])"
    )
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code, here], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_every_toy_stage_is_declared_once():
    assert len(stages(configure().config)) == 12


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1


@dataclass(frozen=True)
class WithChoice(Inner):
    order: str = field(default="fixed", metadata=LATER)


@dataclass(frozen=True)
class WithPlainField(Inner):
    order: str = "fixed"


def key_of(train, reads=("train",)):
    stage = Stage("train", 1, "train", "toy_stages:train", reads=reads)
    (node,) = make_plan([stage], SimpleNamespace(train=train)).nodes
    return node.key


def test_a_field_added_later_moves_no_key_until_it_says_something_new():
    before = key_of(Inner())
    assert key_of(WithChoice()) == before
    assert len({before, key_of(WithChoice(order="random")), key_of(WithPlainField())}) == 3


def test_a_stage_may_read_such_a_field_alone():
    plain = ("train.rate",)
    both = ("train.rate", "train.order")
    assert key_of(WithChoice(), both) == key_of(WithChoice(), plain)
    assert key_of(WithChoice(order="random"), both) != key_of(WithChoice(), plain)
    assert key_of(WithPlainField(), both) != key_of(WithChoice(), plain)


def test_a_package_that_a_stage_needs_is_asked_for_before_anything_is_built():
    def needing(package):
        stage = Stage("train", 1, "train", "toy_stages:train", packages={package: f"get {package}"})
        return [stage]

    absent = needing("no_such_package")
    with pytest.raises(InputError, match="get no_such_package"):
        make_plan(absent, SimpleNamespace())
    (provisional,) = make_plan(absent, SimpleNamespace(), provisional=True).nodes
    (present,) = make_plan(needing("json"), SimpleNamespace()).nodes
    assert present.key == provisional.key
