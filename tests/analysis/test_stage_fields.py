"""A study's table and costs follow what its records say of stages, not what these are called."""

from dataclasses import replace

from made_study import MadeStudy, made_ablation

from analysis.study_cost import stage_costs
from analysis.study_scores import needed_stages
from analysis.study_table import study_table
from namd.ledger.reading import read_events
from namd.ledger.schema import STAGE, Event
from namd.ledger.view import StageExecution, TrialView, read_view, reduce_events
from namd.storage.stage_names import StageName


def with_fields(study: MadeStudy, **changed):
    """The study's view, had its stage records the fields that earlier versions did not write."""

    def rewritten(event: Event) -> Event:
        if event.identity.kind != STAGE:
            return event
        known = StageName.read({}, event.body["stage"]).to_mapping()
        return replace(event, body={**event.body, **known, **changed})

    return reduce_events(study.name, map(rewritten, read_events(study.storage, study.name)))


def test_records_with_fields_and_without_them_come_to_the_same(tmp_path):
    study = made_ablation(tmp_path, seeds=2, cases=60)
    before, now = read_view(study.storage, study.name), with_fields(study)
    assert study_table(study.storage, before).rows == study_table(study.storage, now).rows
    assert study_table(study.storage, now).context
    assert stage_costs(study.storage, before) == stage_costs(study.storage, now)
    # Called scores, and no scores by what the records say: then there are none.
    table = study_table(study.storage, with_fields(study, role="map"))
    assert any("no scores in the store" in note for note in table.notes)
    assert not table.context


def test_a_stage_of_two_attempts_is_one_whichever_version_recorded_them():
    first = StageExecution(StageName.read({}, "vae"), "k", False, 1.0, 1.0, 1)
    known = StageName("vae", None, "vae", "train")
    trial = TrialView("t", 0, stages=[first, StageExecution(known, "k", True, 0.0, 0.0, 2)])
    assert [done.attempt for done in needed_stages(trial)] == [2]
