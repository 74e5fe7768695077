"""What somebody set for other runs reaches none of ours: W&B's own run files are read back."""

import os
import subprocess
import sys

import pytest
from run_files import read_runs

from namd.config.errors import InputError
from namd.tracking.runs import RunContent, run_id
from namd.tracking.wandb_environment import SETTINGS, VARIABLES, require_project
from namd.tracking.wandb_writer import WandbWriter

PLANTED = "MRN-1"

WRITE = """
import os, sys
from pathlib import Path
from namd.tracking.wandb_tracker import WandbTracker
from namd.tracking.wandb_writer import WandbWriter
import wandb

QUEUED = {"arm": "b" * 84, "proposal": None, "seed": 0, "overrides": {}}
loaded = sys.argv[2] == "loaded before"
if loaded:
    wandb.setup()
for time in range(2):
    seen = {name for name in os.environ if name.startswith("WANDB_")}
    writer = WandbWriter(Path(sys.argv[1]))
    tracker = WandbTracker(writer)
    tracker.event(None, 1, "opened", {"specification": {"name": "toys"}})
    tracker.event("a" * 20, 0, "queued", QUEUED)
    tracker.event("a" * 20, 1, "started", {})
    tracker.event("a" * 20, 1, "completed", {"values": {"auroc": 0.5}})
    if loaded and time == 0:
        # Whoever uses W&B in this process beside namd finds it as it was.
        settings = wandb.setup().settings
        assert settings.run_notes == settings.sweep_id == "MRN-1", settings
    tracker.close()
    missing = seen - set(os.environ) - {"WANDB_SERVICE"}
    assert not missing, missing
"""


def wandb_variables():
    """Every variable that W&B reads, as its own sources name them."""
    import wandb
    from wandb import env

    special = {"app_url_override": "APP_URL", "root_dir": "DIR", "email": "USER_EMAIL"}
    special |= {f"run_{name.lower()}": name for name in ("NAME", "NOTES", "TAGS", "JOB_TYPE")}
    names = {value for value in vars(env).values() if isinstance(value, str)}
    names = {name for name in names if name.startswith("WANDB_")}
    for name in wandb.Settings.model_fields:
        ending = special.get(name, name.upper())
        names.add(f"WANDB_{ending}")
        if name.startswith("x_"):
            names.add(f"WANDB__{name[2:].upper()}")
    return names | {"WANDB_CONFIG", "WANDB_CONFIG_0", "WANDB_ARTIFACTS"}


# What W&B cannot parse it refuses when it loads its settings before namd does.
PARSED = (
    "NOTES",
    "RUN_GROUP",
    "NAME",
    "TAGS",
    "JOB_TYPE",
    "SWEEP_ID",
    "RUN_ID",
    "USERNAME",
    "HOST",
)


@pytest.fixture(scope="module", params=["all", "loaded before"])
def planted(request, tmp_path_factory):
    """The folder of runs that were written twice amid settings that would change every one."""
    folder = tmp_path_factory.mktemp("planted")
    home, out = folder / "home", folder / "out"
    settings = home / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"[default]\nrun_notes = {PLANTED}\nrun_group = {PLANTED}\n")
    values = home / "values.yaml"
    values.write_text(f"wandb_version: 1\nnote:\n  value: {PLANTED}\n")
    hidden = wandb_variables() - VARIABLES
    if request.param != "all":
        hidden = {f"WANDB_{name}" for name in PARSED}
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment = {**own, **dict.fromkeys(hidden, PLANTED), "HOME": str(home)}
    environment |= {"WANDB_CONFIG_PATHS": str(values), "WANDB_SWEEP_PARAM_PATH": str(values)}
    environment |= {"WANDB_ENTITY": "our-team", "WANDB_PROJECT": "ours", "WANDB_SILENT": "true"}
    if request.param != "all":
        # A list cannot be given as a variable.
        del environment["WANDB_CONFIG_PATHS"]
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(out), request.param],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


def test_nothing_that_was_set_for_other_runs_reaches_ours(planted):
    assert len(wandb_variables() - VARIABLES) > 100
    runs = read_runs(planted)
    assert len(runs) == 2
    (trial,) = [run for run in runs.values() if "trial" in run.config]
    assert set(runs) == {run_id("toys", "a" * 20, 1), run_id("toys", "study")}
    assert (trial.group, trial.notes, trial.sweep, trial.host) == ("toys", "", "", "namd")
    assert trial.config["arm"] == "b" * 84
    assert len(trial.job_type) == 64
    assert trial.tags == ("completed",)
    for path in planted.rglob("*"):
        if path.is_file():
            assert PLANTED.encode() not in path.read_bytes(), path


def test_the_account_and_the_project_are_the_users(planted):
    for run in read_runs(planted).values():
        assert (run.entity, run.project) == ("our-team", "ours")


def test_every_setting_that_is_kept_exists_and_says_nothing_of_a_run():
    import wandb

    assert wandb.Settings.model_fields.keys() >= SETTINGS
    about_runs = {"run_id", "run_name", "run_notes", "run_tags", "run_group", "run_job_type"}
    about_runs |= {"sweep_id", "resume", "launch", "program", "host", "username", "email"}
    assert about_runs <= wandb.Settings.model_fields.keys()
    assert not SETTINGS & about_runs


def test_a_project_that_wandb_would_refuse_is_refused_before_the_study(tmp_path, monkeypatch):
    assert require_project("a" * 128) == "a" * 128
    for wrong in ("a" * 129, "a/b", "what?"):
        monkeypatch.setenv("WANDB_PROJECT", wrong)
        with pytest.raises(InputError, match="WANDB_PROJECT"):
            WandbWriter(tmp_path)
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    assert WandbWriter(tmp_path).project == "ours"


def test_limits_are_no_wider_than_wandbs_own():
    import wandb
    from wandb.errors import UsageError
    from wandb.sdk.artifacts._validators import NAME_MAXLEN

    from namd.tracking.runs import TAG_LIMIT
    from namd.tracking.wandb_environment import PROJECT_LIMIT
    from namd.tracking.wandb_writer import ARTIFACT_LIMIT

    assert ARTIFACT_LIMIT <= NAME_MAXLEN
    wandb.Settings(project="p" * PROJECT_LIMIT, run_tags=("t" * TAG_LIMIT,))
    with pytest.raises(UsageError):
        wandb.Settings(project="p" * (PROJECT_LIMIT + 1))
    with pytest.raises(ValueError, match="64"):
        wandb.Settings(run_tags=("t" * (TAG_LIMIT + 1),))
    assert RunContent("i", "n", "g", "j", tags=("t" * 99,)).tags[0].startswith("ttt")
