"""A stage is known by the fields of its record; a record of an earlier version has its label."""

import pytest

from namd.storage.stage_names import StageName

WHOLE = StageName("draws-test", 3, "draws", "draw", "test")


def test_a_record_with_fields_is_read_back_as_it_was_written():
    for stage in (WHOLE, StageName("a-b", None, "a-b", "map"), StageName("x[1]", 2, "x", "train")):
        assert StageName.read(stage.to_mapping(), "of no account") == stage


@pytest.mark.parametrize(
    ("label", "read"),
    [
        ("draws-test[3]", WHOLE),
        (
            "scores-validation[0]",
            StageName("scores-validation", 0, "scores", "score", "validation"),
        ),
        ("reference-test", StageName("reference-test", None, "reference", "reference", "test")),
        ("vae", StageName("vae", None, "vae")),
        ("train", StageName("train", None, "train")),
        ("my-method", StageName("my-method", None, "my-method")),
        ("draws[12]", StageName("draws", 12, "draws", "draw")),
    ],
)
def test_the_label_of_an_earlier_record_says_what_it_can(label, read):
    found = StageName.read({"stage": label}, label)
    assert found == read
    assert found.label == label
