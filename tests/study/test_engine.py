"""Resumed = uninterrupted, for every sampler; what Optuna gets is what happened."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import optuna
import pytest
import toy

from namd.config.errors import ConfigError
from namd.study.engine import Engine, Exhausted, NotReady, Outcome, WarmTrial, best_proposals
from namd.study.space import Space

SAMPLERS = ["random", "grid", "tpe", "nsga2"]


def spec(sampler: str, **more):
    search = {"sampler": sampler, "population": 4, **more}
    if sampler == "grid":
        space = {name: dict(entry) for name, entry in toy.SPACE.items()}
        for entry in space.values():
            if "choice" not in entry:
                entry["points"] = 2
        search["space"] = space
    return toy.search_spec(**search).search


def outcome(number: int, point) -> Outcome:
    if number % 7 == 3:
        return Outcome("pruned", (), (0.1,))
    if number % 7 == 5:
        return Outcome("failed")
    if number % 11 == 6:
        return Outcome("diverged")
    weight = point.get("encoder.align.weight", 0.0)
    return Outcome("completed", (weight - point["encoder.predict.weight"],), (0.5, 0.6))


def uninterrupted(search) -> list[dict]:
    engine = Engine(search)
    return [step(engine, number) for number in range(search.num_trials)]


def step(engine: Engine, number: int) -> dict:
    """Propose, and report a whole batch when it is complete, last first."""
    point = dict(engine.propose(number).point)
    if (number + 1) % engine.search.batch == 0:
        for found in reversed(range(engine.batch_start(number), number + 1)):
            engine.tell(found, outcome(found, engine.proposals[found].point))
    return point


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_resumed_is_uninterrupted(sampler):
    search = spec(sampler)
    whole = uninterrupted(search)
    engine = Engine(search)
    for number in range(search.num_trials):
        if number % 3 == 0:
            resumed = Engine(search)
            for proposal in engine.proposals:
                written = json.loads(json.dumps(proposal.to_mapping()))
                resumed.admit(type(proposal).from_mapping(proposal.number, written))
            for found, known in engine.outcomes.items():
                resumed.tell(found, known)
            engine = resumed
        assert step(engine, number) == whole[number]


def test_another_process_proposes_the_same():
    """Python's string hashing differs between processes; proposals must not."""
    program = (
        "import json, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_engine as t\n"
        "print(json.dumps({s: t.uninterrupted(t.spec(s)) for s in t.SAMPLERS}))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "77"}
    )
    assert json.loads(done.stdout) == {s: uninterrupted(spec(s)) for s in SAMPLERS}


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_another_search_seed_proposes_something_else(sampler):
    assert uninterrupted(spec(sampler)) != uninterrupted(spec(sampler, seed=1))


def test_one_sampler_for_all_proposals_would_not_resume():
    """The twin: Optuna's own way, one seeded sampler for the whole search."""
    search = spec("tpe")

    def run(numbers: list[range]) -> list[float]:
        study = optuna.create_study(direction="maximize")
        values = []
        for part in numbers:
            study.sampler = optuna.samplers.TPESampler(n_startup_trials=6, seed=0)
            for _ in part:
                trial = study.ask()
                values.append(search.parsed_space.suggest(trial)["encoder.predict.weight"])
                study.tell(trial, values[-1])
        return values

    assert run([range(12)]) != run([range(9), range(9, 12)])


def test_tpe_learns_from_what_it_is_given():
    assert uninterrupted(spec("tpe"))[8:] != uninterrupted(spec("random"))[8:]


def test_a_batch_waits_for_the_one_before_and_its_order_of_reporting_is_nothing():
    search = spec("tpe")
    engine = Engine(search)
    for number in range(4):
        engine.propose(number)
    with pytest.raises(NotReady, match="waits for the outcome of 0"):
        engine.propose(4)
    for number in range(4):
        engine.tell(number, outcome(number, engine.proposals[number].point))
    assert dict(engine.propose(4).point) == uninterrupted(search)[4]


def test_an_asynchronous_search_waits_for_nobody():
    engine = Engine(spec("tpe", order="asynchronous"))
    for number in range(10):
        engine.propose(number)
    assert len(engine.proposals) == 10


def test_asking_twice_gives_the_same_and_reporting_twice_changes_nothing():
    engine = Engine(spec("tpe"))
    first = engine.propose(0)
    assert engine.propose(0) is first
    with pytest.raises(ValueError, match="comes before"):
        engine.propose(2)
    assert engine.tell(0, Outcome("completed", (0.5,)))
    assert not engine.tell(0, Outcome("completed", (0.5,)))
    with pytest.raises(ValueError, match="now"):
        engine.tell(0, Outcome("completed", (0.6,)))
    with pytest.raises(ValueError, match="never made"):
        engine.tell(5, Outcome("failed"))


def test_a_failure_may_be_replaced_by_its_retry():
    engine = Engine(spec("tpe", order="asynchronous"))
    engine.propose(0)
    engine.tell(0, Outcome("failed"))
    engine.propose(1)
    assert engine.tell(0, Outcome("completed", (0.5,)))
    engine.propose(2)


def test_optuna_gets_pruned_for_what_asha_stopped():
    engine = Engine(spec("tpe", order="asynchronous"))
    for number in range(4):
        engine.propose(number)
    for number, state in enumerate(("completed", "pruned", "failed", "diverged")):
        values = (0.5,) if state == "completed" else ()
        engine.tell(number, Outcome(state, values, (0.4,)))  # type: ignore[arg-type]
    engine.propose(4)
    trials = engine._view._study.get_trials()
    assert [t.state.name for t in trials] == ["COMPLETE", "PRUNED", "FAIL", "PRUNED", "RUNNING"]
    assert trials[1].intermediate_values == {0: 0.4}
    assert trials[3].intermediate_values == {}


def test_an_incremental_view_is_a_rebuilt_one():
    search = spec("tpe", order="asynchronous", num_trials=20)
    one, rebuilt = Engine(search), Engine(search)
    for number in range(20):
        rebuilt._view = None
        assert one.propose(number).point == rebuilt.propose(number).point
        if number >= 2:
            for engine in (one, rebuilt):
                engine.tell(number - 2, outcome(number - 2, engine.proposals[number - 2].point))


def test_a_grid_ends():
    search = spec("grid", num_trials=1000)
    engine = Engine(search)
    for number in range(engine.limit):
        engine.propose(number)
    with pytest.raises(Exhausted):
        engine.propose(engine.limit)


def test_a_grid_is_walked_only_as_far_as_it_is_tried(monkeypatch):
    walked = []
    whole = Space.grid
    monkeypatch.setattr(Space, "grid", lambda self: (walked.append(p) or p for p in whole(self)))
    space = {f"encoder.p{n}": {"int": [1, 40]} for n in range(3)}
    engine = Engine(toy.search_spec(sampler="grid", space=space, num_trials=5).search)
    assert (engine.limit, len(walked)) == (5, 5)
    assert engine.propose(0).point == dict.fromkeys(space, 1)
    space["encoder.p3"] = {"int": [0, 10**9]}
    with pytest.raises(ConfigError, match=r"search\.space: a grid of 64,000,000,064,000 points"):
        toy.search_spec(sampler="grid", space=space, num_trials=5)
    assert toy.search_spec(sampler="random", space=space, num_trials=5)


def test_a_search_that_is_extended_goes_on_as_if_it_had_been_longer():
    assert uninterrupted(spec("tpe", num_trials=12)) == uninterrupted(spec("tpe"))[:12]


@pytest.mark.parametrize("objectives", [1, 2])
def test_a_warm_start_changes_what_is_proposed(objectives):
    metrics = [{"metric": "auroc"}, {"metric": "lpips", "mode": "min"}][:objectives]
    search = spec("tpe", objective=metrics, startup_trials=2)
    point = {"align": False, "encoder.predict.weight": 0.3, "prompt.num_sets": 8}
    warm = [
        WarmTrial({**point, "encoder.predict.weight": n / 20}, (0.5,) * objectives)
        for n in range(8)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Engine(search, warm).propose(0) != Engine(search).propose(0)


def test_two_objectives_end_in_a_front():
    search = spec("tpe", objective=[{"metric": "auroc"}, {"metric": "lpips", "mode": "min"}])
    values = [(0.7, 0.3), (0.6, 0.2), (0.6, 0.4), (0.7, 0.3)]
    outcomes = {n: Outcome("completed", value) for n, value in enumerate(values)}
    assert best_proposals(outcomes, search) == [0, 1, 3]
    assert best_proposals({0: Outcome("failed")}, search) == []


def test_with_one_objective_the_first_of_equals_wins():
    values = {0: 0.5, 1: 0.7, 2: 0.7}
    outcomes = {n: Outcome("completed", (value,)) for n, value in values.items()}
    assert best_proposals(outcomes, spec("tpe")) == [1]
