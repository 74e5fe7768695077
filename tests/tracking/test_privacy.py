"""Of texts plain words and numbers leave this machine, of values what is known to be a choice."""

import dataclasses
import json
import socket
import types
import typing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from namd.config.parsing import to_mapping
from namd.methods.namd.method import METHOD
from namd.methods.registry import METHODS
from namd.pipeline.run_configuration import from_mapping
from namd.tracking.privacy import GONE, PLACES, clean, clean_text
from namd.tracking.runs import LIMITS, TAG_LIMIT, RunContent, StudyRuns, shortened

HOME = "/".join(("", "home", "alice"))
IDENTIFYING = (
    *("/data/MRN-1", "/data/MRN-1/", "/MRN-1", "data/MRN-1", "./MRN-1", "../MRN-1", "MRN-1.npz"),
    *(f"{HOME}/MRN-1", "~/MRN-1", "~alice/MRN-1", "~alice", "file:///data/MRN-1", "s3://MRN-1"),
    *("s3://bucket/MRN-1/x.bin", r"C:\scans\MRN-1", r"\\server\share\MRN-1", "x=/data/MRN-1"),
    *("/data/Jane Doe/MRN-1", "/data/Jane Mary Doe/ct/MRN-1.dcm", "OSError:/data/MRN-1"),
    *("10.1.2.3", "10.1.2.3:8265", "http://10.1.2.3:8265/MRN-1", "::1", "fe80::1", "dead::beef"),
    *("fe80::1%eth0", "2001:db8:0:0:0:0:2:1", "[2001:db8::1]:6379", "02:42:ac:11:00:02"),
    *("node77", "node77.hospital", "gpu-03", "gpu-03.cluster.local", "orion.local", "a.b.example"),
    *(
        "alice@node77",
        "alice@orion.local",
        "DOE^JANE",
        "1.2.840.113619.2.55",
        "00012345",
        "1234567",
    ),
    *("MRN-1", "MRN0817", "case-0817", "patient-55", "1950-01-01", "19500101", "a1b2c3d4e5f6"),
    *("'Doe'", "'Jane Doe'", "nodules.csv", "scan.nii.gz", "id_4711", "LIDC-IDRI-0001"),
)
TELLING = (
    "Does aligning the latent space help the judge?",
    'How much of the paper\'s row "w/o L_align" is the alignment?',
    "its driver process died 3 times",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 78.2GiB used)",
    "OSError: [Errno 28] No space left on device",
    "MemoryError: 3,500 MiB",
    "draws-test: pairs (a case, k=0), (a case, k=12) did not return; 12 of 20",
    "and/or 1.5 of 2/3, vae.align.weight=0.1, soft_prompts: 1e-05 -> -0.5",
    "auroc is nan at vae; in every case loss[12] = 3,500 ± 12%",
    "ray.exceptions.RayTaskError: the node was lost, W&B was not",
)


@pytest.mark.parametrize("word", IDENTIFYING)
@pytest.mark.parametrize("text", ["{}", "cannot read {}", "{}: no such file", "see ({}), then go."])
def test_what_names_a_place_a_machine_or_a_person_is_taken_out(word, text):
    cleaned = clean_text(text.format(word))
    assert GONE in cleaned
    for part in (
        "MRN",
        "alice",
        "Doe",
        "Jane",
        "Mary",
        "node",
        "10.",
        "db8",
        "beef",
        "orion",
        "55",
    ):
        assert part not in cleaned
    assert not set("0123456789") & set(cleaned)
    for rest in ("cannot read", "no such file", "see (", "then go."):
        assert (rest in cleaned) == (rest in text)


@pytest.mark.parametrize("text", TELLING)
def test_plain_words_and_numbers_stay(text):
    assert clean_text(text) == text


@pytest.mark.parametrize("word", ["case", "patient", "Patient", "lesion id", "series", "node"])
def test_what_follows_the_word_for_a_person_or_a_machine_is_its_name(word):
    for name in ("Doe", "4711", "DOE", "Doe-Smith", "b12"):
        assert clean_text(f"the {word} {name} was lost") == f"the {word} {GONE} was lost"
    assert clean_text(f"the {word} was lost") == f"the {word} was lost"


def test_this_machine_is_taken_out_even_if_its_name_is_a_plain_word(monkeypatch):
    from namd.tracking import privacy

    assert clean_text("orion and alice went") == "orion and alice went"
    monkeypatch.setattr(socket, "gethostname", lambda: "orion.hospital")
    monkeypatch.setenv("USER", "alice")
    privacy._this_machine.cache_clear()
    try:
        assert clean_text("orion and alice: went") == f"{GONE} and {GONE}: went"
        assert clean({"arm": "orion", "other": "vega"}) == {"arm": GONE, "other": "vega"}
    finally:
        monkeypatch.undo()
        privacy._this_machine.cache_clear()


def test_dotted_names_stay_if_they_begin_as_the_configuration_does():
    text = "vae.alignment.weight is below gpu.hospital.example"
    assert clean_text(text, frozenset({"vae"})) == f"vae.alignment.weight is below {GONE}"
    assert clean_text(text) == f"{GONE} is below {GONE}"


@settings(deadline=None)
@given(st.text(max_size=80))
def test_nothing_is_added_and_cleaning_twice_changes_nothing(text):
    once = clean_text(text)
    assert clean_text(once) == once
    assert set(once) <= {*text, *GONE}


def free_texts(cls, path=""):
    """Dotted names of a configuration's fields that may hold any text."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name = f"{path}{field.name}"
        kinds = {hints[field.name], *_parts(hints[field.name])}
        if str in kinds:
            yield name
        for kind in kinds:
            if dataclasses.is_dataclass(kind):
                yield from free_texts(kind, f"{name}.")


def _parts(kind):
    for part in typing.get_args(kind):
        if isinstance(part, type | types.GenericAlias | types.UnionType):
            yield part
        yield from _parts(part)


HARMLESS = frozenset({"method", "revision", "include", "target_modules"})
"""Free texts of a configuration that name no place: a choice, a commit, columns, modules."""


def test_every_free_text_of_a_configuration_is_a_place_or_known_to_be_harmless():
    """A new one must be entered, or the folder that it names would be sent."""
    found = {name for method in METHODS.values() for name in free_texts(method.config_class)}
    assert {"vae.architecture.weights", "language.source", "perceptual.source"} & found
    assert {name for name in found if name.rpartition(".")[2] not in PLACES | HARMLESS} == set()


@pytest.mark.parametrize("preset", METHOD.presets)
def test_a_whole_configuration_is_sent_but_its_places(preset):
    mapping = to_mapping(from_mapping(METHOD.preset(preset)).config)
    planted = json.loads(json.dumps(mapping))
    for section in (planted["vae"]["architecture"], planted["unet"], planted["language"]):
        for name in section.keys() & PLACES:
            section[name] = "MRN-1"
    cleaned = clean(planted)
    assert "MRN" not in str(cleaned)
    for name, value in flat(mapping).items():
        if name.rpartition(".")[2] not in PLACES:
            assert flat(cleaned)[name] == value, name


def flat(value, prefix=""):
    if not isinstance(value, dict):
        return {prefix[:-1]: list(value) if isinstance(value, tuple) else value}
    return {k: v for key, item in value.items() for k, v in flat(item, f"{prefix}{key}.").items()}


def test_overrides_are_cleaned_by_the_end_of_their_path():
    found = {"vae.architecture.weights": "/w/MRN-1", "cohort": "MRN-1", "precision": "bf16"}
    assert clean(found) == {"vae.architecture.weights": GONE, "cohort": GONE, "precision": "bf16"}
    assert clean({"cohort": "phantom", "perceptual.source": "lpips"}) == {
        "cohort": "phantom",
        "perceptual.source": "lpips",
    }


def content(**more):
    fields = {"run_id": "a", "name": "n", "group": "g", "job_type": "j"}
    return RunContent(**{**fields, **more})


@pytest.mark.parametrize(("name", "limit"), LIMITS.items())
def test_a_field_that_wandb_would_refuse_is_shortened_and_stays_distinct(name, limit):
    fits, long, other = "a" * limit, "a" * (limit + 1), "a" * limit + "b"
    assert getattr(content(**{name: fits}), name) == fits
    first, second = (getattr(content(**{name: text}), name) for text in (long, other))
    assert len(first) == len(second) == limit
    assert first != second
    assert first == getattr(content(**{name: long}), name)


def test_long_tags_are_shortened_too():
    assert content(tags=("b" * TAG_LIMIT, "c" * 65)).tags == (
        "b" * TAG_LIMIT,
        shortened("c" * 65, TAG_LIMIT),
    )


def test_an_arm_of_a_factorial_is_shortened_as_a_job_type_and_whole_in_the_config():
    arm = "+".join(
        f"no_{toggle}_at_all" for toggle in ("align", "predict", "prompts", "ehr", "pre")
    )
    assert len(arm) > 64
    reducer = StudyRuns()
    reducer.event(None, 1, "opened", {"specification": {"name": "toys"}})
    reducer.event("t", 0, "queued", {"arm": arm, "proposal": None, "seed": 0, "overrides": {}})
    reducer.event("t", 1, "started", {})
    run = reducer.event("t", 1, "completed", {"values": {"auroc": 0.5}})
    assert run.config["arm"] == arm
    assert run.job_type == shortened(arm, 64) != arm
    assert Path(run.job_type).name == run.job_type
