"""The rules of the house that no tool checks, and proof that the import contracts can fail."""

import ast
import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("namd", "analysis", "experiments")
FRONT = REPOSITORY / "namd" / "__init__.py"
"""The one package that offers names; tests/api holds it to being light."""
HEAVY = ("numpy", "torch", "ray", "pandas", "transformers", "diffusers", "wandb")


def tracked() -> list[Path]:
    """Every file that git tracks, or would."""
    done = subprocess.run(
        ["git", "-C", str(REPOSITORY), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("needs the git repository to know which files belong to it")
    return [path for name in done.stdout.splitlines() if (path := REPOSITORY / name).is_file()]


def modules(*packages: str) -> list[Path]:
    return sorted(path for name in packages for path in (REPOSITORY / name).rglob("*.py"))


def dotted(path: Path) -> str:
    place = path.relative_to(REPOSITORY).with_suffix("")
    parts = place.parts[:-1] if place.name == "__init__" else place.parts
    return ".".join(parts)


def machine_paths(text: str) -> list[str]:
    """Places that exist on one machine only. Cluster files may speak of Ray's image."""
    own = [str(REPOSITORY), str(Path.home())]
    homes = re.findall(r"(?<![\w.$}])/(?:Users|home(?!/ray\b))/\w+", text)
    return [place for place in own if len(place) > 1 and f"{place}/" in text] + homes


def addresses(text: str) -> list[str]:
    return re.findall(r"\b[a-z][a-z0-9+]*://\S+", text)


def test_no_file_knows_the_machine_it_was_written_on():
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        assert machine_paths(text) == [], path.relative_to(REPOSITORY)


def test_a_path_of_this_machine_would_be_seen():
    assert machine_paths(f"open('{REPOSITORY / 'x'}')")
    assert machine_paths("data = '/home" + "/someone/data'")
    assert machine_paths("../shared/data and $HOME/data and https://a.b/home/page") == []


def test_no_address_where_an_index_may_be_replaced():
    for name in ("requirements.lock", "requirements-uv.lock", "Makefile", ".ci/run"):
        assert addresses((REPOSITORY / name).read_text(encoding="utf-8")) == [], name
    assert addresses("--index-url https://" + "pypi.org/simple")


def test_the_lock_pins_every_requirement_with_hashes_and_uv_keeps_none_of_its_own():
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    requirements = re.findall(r"^[a-zA-Z0-9].*(?:\n +--hash=.*)*", lock, re.MULTILINE)
    assert len(requirements) > 50
    for requirement in requirements:
        assert "==" in requirement.splitlines()[0]
        assert "--hash=sha256:" in requirement
    assert REPOSITORY / "uv.lock" not in tracked()


def loud_or_unpinned(makefile: str) -> list[str]:
    """Return the installs of a Makefile that print every package or take any version."""
    lines = makefile.replace("\\\n", " ").splitlines()
    installs = [line for line in lines if re.search(r"\bpip install\b", line)]
    assert installs
    return [
        line
        for line in installs
        if "--quiet" not in line or not ("--require-hashes" in line or "--no-deps -e ." in line)
    ]


def test_make_env_is_quiet_and_installs_what_is_pinned():
    assert loud_or_unpinned((REPOSITORY / "Makefile").read_text(encoding="utf-8")) == []
    assert loud_or_unpinned("\tpython -m pip install --quiet uv\n")
    assert loud_or_unpinned("\tuv pip install --require-hashes -r x\n")


MARKERS = ("slow", "ray", "serial")


def parts(makefile: str) -> dict[str, str]:
    """Return which marks the parts of the Makefile's tests select, by the part's name."""
    lines = makefile.replace("\\\n", " ")
    return dict(re.findall(r'^(\w+_PART) := .*-m "(.+)"$', lines, re.MULTILINE))


def times_selected(expressions: list[str], marked: frozenset[str]) -> int:
    """Return how many of the expressions select a test that has these marks alone."""
    names = {name: name in marked for name in MARKERS}
    return sum(eval(expression, {"__builtins__": {}}, names) for expression in expressions)


def missed_or_repeated(expressions: list[str]) -> list[set[str]]:
    """Return the sets of marks that are not selected once, or are slow and selected at all."""
    chosen = itertools.product((False, True), repeat=len(MARKERS))
    sets = [frozenset(itertools.compress(MARKERS, flags)) for flags in chosen]
    return [
        set(marked)
        for marked in sets
        if times_selected(expressions, marked) != ("slow" not in marked)
    ]


def test_every_test_that_is_not_slow_is_run_exactly_once():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    found = parts(makefile)
    assert missed_or_repeated(list(found.values())) == []
    (recipe,) = re.findall(r"^test: .*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert re.findall(r"\$\((\w+_PART)\)", recipe) == ["PARALLEL_PART", "SERIAL_PART"]
    assert set(found) == {"PARALLEL_PART", "SERIAL_PART"}
    assert not re.search(r"--(ignore|deselect)", makefile)


def test_a_test_that_is_missed_or_repeated_would_be_seen():
    assert missed_or_repeated(["not slow and not ray and not serial"])
    assert missed_or_repeated(["not slow and not ray", "not slow and (ray or serial)"])
    assert missed_or_repeated(["not ray and not serial", "not slow and (ray or serial)"])


def test_uv_is_pinned_with_hashes_and_the_image_takes_the_same():
    lock = (REPOSITORY / "requirements-uv.lock").read_text(encoding="utf-8")
    (pinned,) = re.findall(r"^uv==(\S+)", lock, re.MULTILINE)
    assert lock.count("--hash=sha256:") > 5
    image = (REPOSITORY / "cluster" / "Dockerfile").read_text(encoding="utf-8")
    assert set(re.findall(r"\buv==([0-9.]+)", image)) <= {pinned}


def only_a_docstring(source: str) -> bool:
    body = ast.parse(source).body
    return len(body) == 1 and ast.get_docstring(ast.parse(source)) is not None


@pytest.mark.parametrize("path", modules(*PACKAGES), ids=dotted)
def test_a_package_holds_its_docstring_and_nothing_else(path):
    if path.name != "__init__.py":
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), "no docstring"
        return
    if path != FRONT:
        assert only_a_docstring(path.read_text(encoding="utf-8"))


def test_a_package_with_an_import_would_be_seen():
    assert only_a_docstring('"""A room."""\n')
    assert not only_a_docstring('"""A room."""\nimport os\n')


def test_protocols_can_be_checked_at_runtime():
    """Under test beartype checks annotations, and it cannot check any other protocol."""
    for path in modules(*PACKAGES):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            bases = [ast.unparse(base).partition("[")[0] for base in getattr(node, "bases", ())]
            if "Protocol" in bases:
                decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
                assert "runtime_checkable" in decorators, f"{dotted(path)}.{node.name}"


def loaded_by(program: str) -> set[str]:
    """Return which heavy libraries a program has imported in a fresh interpreter."""
    report = f"; print('loaded', *sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", "import sys; " + program + report],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_rooms_and_settings_are_imported_without_torch():
    names = [
        dotted(path)
        for path in modules("namd", "analysis")
        if path.name == "__init__.py" or path.stem.endswith("settings")
    ]
    assert "namd.models" in names
    assert "namd.models.settings" in names
    assert "torch" not in loaded_by(f"import {', '.join(names)}")


def test_the_package_itself_loads_nothing_heavy():
    assert loaded_by("import namd") == set()
    assert "pandas" in loaded_by("import namd; namd.Cohort")


def imports_the_front(source: str) -> list[str]:
    """Return the imports of public names from `namd` itself, and of `namd` as a whole."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "namd":
            rooms = [alias.name for alias in node.names]
            found += [name for name in rooms if not (REPOSITORY / "namd" / name).is_dir()]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name == "namd"]
    return found


def test_no_room_imports_the_public_names():
    """Source hashes do not follow them, and they lead upwards from every room."""
    for path in modules(*PACKAGES):
        assert imports_the_front(path.read_text(encoding="utf-8")) == [], dotted(path)
    assert imports_the_front("from namd import run") == ["run"]
    assert imports_the_front("import namd") == ["namd"]
    assert imports_the_front("from namd import data\nimport namd.data.schema") == []


def test_plans_and_the_ledger_are_made_without_torch():
    names = ("namd.methods.registry", "namd.pipeline.graph", "namd.statistics.ranking")
    assert loaded_by(f"import {', '.join(names)}") & {"torch", "ray", "wandb"} == set()


def test_torch_would_be_seen():
    assert "torch" in loaded_by("import namd.models.vae")


def test_help_imports_nothing_heavy():
    program = """
sys.argv = ["namd", "--help"]
from namd.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code
"""
    assert loaded_by(f"exec({program!r})") == set()


FORBIDDEN = [
    ("A room imports rooms below", "namd/losses/kl.py", "import namd.train.loop"),
    ("A room imports rooms below", "namd/config/errors.py", "import namd.data.schema"),
    ("A room imports rooms below", "namd/diffusion/ddim.py", "import namd.losses.kl"),
    ("A room imports rooms below", "namd/storage/rogue.py", "import namd.ledger.schema"),
    ("A room imports rooms below", "namd/extra/__init__.py", ""),
    ("A room imports rooms below", "namd/api/rogue.py", "import namd.cli.output"),
    ("Only namd.distributed imports ray", "namd/api/rogue.py", "import ray"),
    ("Only namd.distributed imports ray", "namd/study/rogue.py", "import ray.tune"),
    ("Only namd.tracking imports wandb", "namd/train/rogue.py", "import wandb"),
    ("import no torch", "namd/statistics/rogue.py", "import torch"),
    ("import no torch", "namd/storage/rogue.py", "import torch"),
    ("import no torch", "namd/train/settings.py", "from torch import nn"),
    ("imports neither ray nor torch", "analysis/rogue.py", "import torchvision"),
    ("imports only the ledger", "analysis/rogue.py", "import namd.pipeline.store"),
    ("imports only the ledger", "analysis/rogue.py", "import namd.data.features"),
    ("Only namd.cli and namd.api import", "namd/study/rogue.py", "import analysis"),
    ("Experiments import the library", "namd/train/rogue.py", "import experiments.benchmarks"),
]

ALLOWED = [
    ("namd/train/rogue.py", "import namd.losses.kl"),
    ("namd/ledger/rogue.py", "import namd.storage.base"),
    ("namd/distributed/rogue.py", "import ray.tune"),
    ("namd/tracking/rogue.py", "import wandb"),
    ("namd/losses/rogue.py", "import torch"),
    ("analysis/rogue.py", "import namd.data.schema, namd.data.cohort, namd.statistics.ranking"),
    ("analysis/other.py", "import namd.storage.artifacts, namd.ledger.view"),
    ("namd/cli/rogue.py", "import analysis, namd.distributed, namd.api"),
    ("namd/api/rogue.py", "import analysis, namd.distributed"),
    ("experiments/rogue.py", "import namd.pipeline.store"),
]


@pytest.fixture(scope="module")
def source_copy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / package, folder / package, ignore=ignore)
    shutil.copy(REPOSITORY / ".importlinter", folder)
    broken_contracts(folder)  # leaves a cache of the imports, which every copy takes along
    return folder


def broken_contracts(folder: Path) -> tuple[int, str]:
    """Return lint-imports' exit status and the lines that name broken contracts."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.endswith("BROKEN")]
    return done.returncode, "\n".join(lines) or done.stdout + done.stderr


def add_line(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text(encoding="utf-8") if path.exists() else '"""Added."""\n'
    path.write_text(f"{before}\n{line}\n", encoding="utf-8")


@pytest.fixture
def scratch(source_copy, tmp_path) -> Path:
    return shutil.copytree(source_copy, tmp_path / "tree")


@pytest.mark.parametrize(("contract", "place", "line"), FORBIDDEN)
def test_a_forbidden_import_breaks_its_contract(scratch, contract, place, line):
    add_line(scratch / place, line)
    status, broken = broken_contracts(scratch)
    assert status != 0
    assert contract in broken


def test_allowed_imports_keep_every_contract(scratch):
    for place, line in ALLOWED:
        add_line(scratch / place, line)
    status, broken = broken_contracts(scratch)
    assert status == 0, broken


RETIRED = re.compile(
    r"\b(?:workshops?|builders?|hir(?:e|es|ed|ing)|dismiss(?:es|ed)?|seats?|conductors?|gangs?"
    r"|fewer_is_better|cannot_be_told\w*|weights of others|raises [a-z]\w+ where|for ever|whoever"
    r"|fold(?:s|ed)? (?:of |over )?(?:the |its )?(?:ledger|records?|events?))\b",
    re.IGNORECASE,
)
"""Words that readers from Ray, Optuna or diffusers do not know, or that are not idiomatic."""

THEIR_WORDS = re.compile(r"hatchling\.builders|buildx? \w*builder|docker\w* builder", re.IGNORECASE)
"""Names that other projects gave."""


def retired_words(text: str) -> list[str]:
    """The retired words of a text, also if a line break parts them."""
    return RETIRED.findall(re.sub(r"\s+", " ", THEIR_WORDS.sub("", text)))


def readable_files() -> list[Path]:
    folders = [REPOSITORY / name for name in ("namd", "analysis", "docs")]
    found = [path for folder in folders for path in folder.rglob("*")]
    found += [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
    return [path for path in found if path.suffix in {".py", ".md", ".yaml"}]


def test_no_retired_word_is_left():
    files = readable_files()
    assert len(files) > 250
    found = {str(path.relative_to(REPOSITORY)): retired_words(path.read_text()) for path in files}
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize(
    "planted",
    [
        "Hire a builder.",
        "the workshop keeps its seats for\n    ever",
        "fewer_is_better: bool",
        "Raises InputError where the file is missing.",
        "the gang's conductor",
        "whoever asks, dismissed",
        "weights of others",
        "cannot_be_told_from",
        "A view folds the records.",
    ],
)
def test_a_retired_word_would_be_seen(planted):
    assert retired_words(planted)
    assert retired_words("2 x 2 pixels are folded; from hatchling.builders import Hook") == []
