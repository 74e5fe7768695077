"""What the command line needs to show a study, from its store alone."""

from types import SimpleNamespace

import pytest
from run_files import read_runs
from tracked_study import ablation, drive, opened, records

from namd.api import publishing
from namd.api.publishing import ledger_records, live_trackers, publish_study
from namd.config.errors import InputError
from namd.storage.stage_names import StageName
from namd.tracking.wandb_writer import WandbWriter


class Nobody:
    def event(self, *record):
        pass

    def step(self, *record):
        pass


def test_a_study_is_published_from_its_store_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(WandbWriter, "close", lambda self: None)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    with opened(tmp_path, ablation(1), Nobody()) as record:
        drive(record, Nobody())
    found = publish_study(str(tmp_path), "toys", "offline")
    assert found["records"] == len(list(records(tmp_path, "toys")))
    assert found["folder"] == str(tmp_path / "studies" / "toys" / "wandb")
    assert len(read_runs(tmp_path)) == 5
    assert list(ledger_records(str(tmp_path), "toys")) == list(records(tmp_path, "toys"))


def test_off_means_no_tracker_and_nothing_to_publish(tmp_path):
    assert live_trackers("off", str(tmp_path), "toys", print) == []
    with pytest.raises(InputError, match="switched off"):
        publish_study(str(tmp_path), "toys", "off")


@pytest.mark.parametrize(
    ("stage", "shown"),
    [
        (StageName("outcomes-test", 0, "outcomes", "draw", "test"), True),
        (StageName("outcomes-test", 1, "outcomes", "draw", "test"), False),
        (StageName("draws-test", 0, "draws", "map", "test"), False),
        (StageName.read({}, "draws-test[0]"), True),
    ],
)
def test_pictures_are_of_the_first_draw_by_its_role(stage, shown, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "_pictures", lambda payload: [("one", payload)])
    found = publishing._Stages(str(tmp_path))
    asked = []
    artifact = SimpleNamespace(payload=b"png")
    found._store = SimpleNamespace(find=lambda *place: asked.append(place) or artifact)
    assert bool(found.images(stage, "k")) == shown
    assert asked == ([(stage.name, "k")] if shown else [])
