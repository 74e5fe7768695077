"""Hold every stage to its code_version: changed source needs a new version or equal outputs.

`check` compares the source that each stage body can reach with tests/stage_versions.json;
`accept` records it, after showing on every method's tiny preset that the outputs of bodies
with an unchanged code_version are byte for byte those of the source recorded before.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from namd.config.parsing import parse
from namd.methods.base import Method, Stage
from namd.methods.source_hash import code_places, source_hash

REPOSITORY = Path(__file__).resolve().parents[1]
RECORD = REPOSITORY / "tests" / "stage_versions.json"
PRESET = "tiny"
Record = dict[str, dict[str, object]]
Outputs = dict[tuple[str, str, str], dict[str, str]]
"""Digests of payload files, by method, stage body and label."""


@dataclass(frozen=True)
class Comparison:
    """How the source at hand stands to the record, as sorted stage bodies."""

    added: list[str]
    removed: list[str]
    bumped: list[str]
    changed: list[str]

    def problems(self) -> list[str]:
        """One line per stage body that keeps `check` from passing."""
        accept = "run `make stages-unchanged`"
        return [
            *(f"{body}: not recorded; {accept}" for body in self.added),
            *(f"{body}: recorded, but no method has it; {accept}" for body in self.removed),
            *(f"{body}: a new code_version is not recorded; {accept}" for body in self.bumped),
            *(
                f"{body}: its source changed, its code_version did not; bump it where the output "
                f"changes, else {accept}"
                for body in self.changed
            ),
        ]


def current_record(methods: Iterable[Method]) -> Record:
    """Return code_version, source hash and stage names of every body that a method can run.

    Raises ValueError where two stages share a body and disagree on its version.
    """
    record: Record = {}
    for stage in (stage for method in methods for stage in stages_of(method)):
        code = " ".join(code_places(stage))
        entry = record.setdefault(
            code,
            {"code_version": stage.code_version, "source": source_hash(stage), "stages": []},
        )
        if entry["code_version"] != stage.code_version:
            raise ValueError(
                f"{code}: code_version {entry['code_version']} and {stage.code_version}"
            )
        names = entry["stages"]
        assert isinstance(names, list)
        if stage.name not in names:
            names.append(stage.name)
    return {
        body: record[body] | {"stages": sorted(record[body]["stages"])} for body in sorted(record)
    }


def stages_of(method: Method) -> list[Stage]:
    """Return the stages of a method's default configuration and of all its presets."""
    configurations = [method.config_class()]
    configurations += [parse(method.config_class, method.preset(name)) for name in method.presets]
    return [stage for config in configurations for stage in method.stages(config)]


def compare(recorded: Mapping[str, Mapping[str, object]], current: Record) -> Comparison:
    """Sort the stage bodies of both records by what happened to them."""
    shared = sorted(recorded.keys() & current.keys())
    bumped = [b for b in shared if recorded[b]["code_version"] != current[b]["code_version"]]
    return Comparison(
        added=sorted(current.keys() - recorded.keys()),
        removed=sorted(recorded.keys() - current.keys()),
        bumped=bumped,
        changed=[
            body
            for body in shared
            if body not in bumped and recorded[body]["source"] != current[body]["source"]
        ],
    )


def check(record: Path = RECORD) -> int:
    """Return 0 where the record is true, else 1 and a line per problem."""
    problems = compare(read(record), current_record(registered())).problems()
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


def accept(record: Path = RECORD) -> int:
    """Record the source at hand. Returns 1, recording nothing, where an output changed."""
    current = current_record(registered())
    changed = compare(read(record), current).changed
    if changed:
        differing = differing_outputs(base_commit(record), read(record), current)
        lines = verdict(changed, differing)
        if lines:
            sys.stderr.writelines(f"{line}\n" for line in lines)
            return 1
    record.write_text(json.dumps(current, indent=2) + "\n", encoding="utf-8")
    sys.stderr.write(
        f"{record.name}: {len(current)} stage bodies, {len(changed)} shown unchanged\n"
    )
    return 0


def verdict(changed: list[str], differing: Mapping[str, bool]) -> list[str]:
    """Return why changed bodies cannot be accepted.

    Args:
        changed: Bodies whose source changed under the same code_version.
        differing: For every body that the tiny runs had in common, whether its output differs.
    """
    lines = []
    for body in changed:
        if body not in differing:
            lines.append(f"{body}: preset {PRESET} does not run it; bump its code_version")
        elif differing[body]:
            lines.append(f"{body}: its tiny output changed; bump its code_version")
    return lines


def differing_outputs(commit: str, recorded: Record, current: Record) -> dict[str, bool]:
    """Run every method's tiny preset with the source of a commit and with the source at hand.

    Both run here and now, on one cohort and with one thread: floating point sums differ between
    machines, so digests stored in the repository could not be compared.
    """
    with tempfile.TemporaryDirectory(prefix="namd-stages-") as name:
        folder = Path(name)
        before = folder / "source"
        git("worktree", "add", "--detach", str(before), commit)
        try:
            cohort = folder / "cohort"
            namd(REPOSITORY, "cohort", "build", "phantom", *TINY_COHORT, "--out", str(cohort))
            methods = [name for name in methods_of(before) if name in methods_of(REPOSITORY)]
            old, new = (
                tiny_outputs(before, methods, recorded, cohort, folder / "before"),
                tiny_outputs(REPOSITORY, methods, current, cohort, folder / "after"),
            )
        finally:
            git("worktree", "remove", "--force", str(before))
    result: dict[str, bool] = {}
    for place in old.keys() & new.keys():
        _, body, _ = place
        differs = old[place] != new[place]
        result[body] = result.get(body, False) or differs
    return result


TINY_COHORT = ("--cases", "200", "--seed", "23")


def methods_of(source: Path) -> list[str]:
    """Return the methods that a source tree registers."""
    return python(source, "from namd.methods.registry import METHODS; print(*METHODS)").split()


def tiny_outputs(
    source: Path, methods: Iterable[str], record: Record, cohort: Path, store: Path
) -> Outputs:
    """Run methods of a source tree at the tiny preset, and return what their stages made.

    Args:
        source: The tree.
        methods: Those to run.
        record: What the tree's stage bodies are.
        cohort: The cohort of the runs.
        store: Their store.
    """
    # Bodies of one module have one source: the stage's name says which it is.
    bodies = {
        (str(entry["source"]), name): body
        for body, entry in record.items()
        for name in entry["stages"]
    }
    outputs: Outputs = {}
    for method in methods:
        chosen = ("--preset", PRESET, "--method", method)
        ran = namd(source, "run", *chosen, "--cohort", str(cohort), "--store", str(store), "--json")
        for stage in json.loads(ran)["stages"]:
            (commit,) = store.glob(f"*/{stage['key']}/COMMIT")
            digests, source_of = payload_digests(commit)
            outputs[method, bodies[source_of, stage["name"]], stage["label"]] = digests
    return outputs


def payload_digests(commit: Path) -> tuple[dict[str, str], str]:
    """Return the digests of an artifact's payload files, and the hash of the source it is of."""
    published = json.loads(commit.read_text(encoding="utf-8"))
    attempt = commit.parent / "attempts" / published["attempt"]
    manifest = json.loads((attempt / "manifest.json").read_text(encoding="utf-8"))
    digests = {
        place: entry["sha256"]
        for place, entry in published["files"].items()
        if place.startswith("payload/")
    }
    return digests, manifest["source_hash"]


def namd(source: Path, *arguments: str) -> str:
    """Run the command line of a source tree and return its stdout."""
    return python(
        source, "import sys; from namd.cli.main import main; sys.exit(main())", *arguments
    )


def python(source: Path, program: str, *arguments: str) -> str:
    """Run a program on a source tree, which stands before the installed one; return its stdout."""
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=source,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def base_commit(record: Path) -> str:
    """Return the commit at which the record was last changed: there it was true.

    Raises SystemExit where it was never committed, so that there is nothing to compare with.
    """
    commit = git("log", "-1", "--format=%H", "--", str(record))
    if not commit:
        raise SystemExit(f"{record.name} was never committed: delete it to record afresh")
    return commit


def git(*arguments: str) -> str:
    """Return what git says, in the repository."""
    done = subprocess.run(
        ["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def read(record: Path) -> Record:
    """Return the recorded stage bodies; none where nothing was recorded yet."""
    return dict(json.loads(record.read_text(encoding="utf-8"))) if record.is_file() else {}


def registered() -> list[Method]:
    """Return every method of the registry."""
    from namd.methods.registry import METHODS

    return list(METHODS.values())


def main() -> int:
    """Check or accept."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("action", choices=("check", "accept"))
    return {"check": check, "accept": accept}[parser.parse_args().action]()


if __name__ == "__main__":
    sys.exit(main())
