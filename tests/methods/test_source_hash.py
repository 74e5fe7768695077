"""A stage's source hash follows what its body can reach, and nothing that has no meaning."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from namd.methods.base import Method, Stage
from namd.methods.source_hash import code_places, meaning, module_hash, reachable, source_hash

BODY = '''"""A body."""

import os
from namd.losses import kl
from namd.models.vae import build


def run(context):
    """Run."""
    from namd.late import thing  # imported late, reached all the same
    return build(kl.WEIGHT, thing, os.sep)
'''
FILES = {
    "namd/__init__.py": '"""Root."""',
    "namd/body.py": BODY,
    "namd/losses/__init__.py": '"""Losses."""',
    "namd/losses/kl.py": "WEIGHT = 1e-6\n",
    "namd/models/__init__.py": '"""Models."""',
    "namd/models/vae.py": "from namd.models import deep\n\n\ndef build(*a):\n    return deep.x\n",
    "namd/models/deep.py": "x = 1\n",
    "namd/late.py": "thing = 2\n",
    "namd/unrelated.py": "from namd import body\n",
}


def tree(folder: Path, **changes: str) -> Path:
    """Write the small project, with changed files named by their module's last word."""
    for place, text in FILES.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(changes.get(path.stem, text))
    return folder


def hashed(folder: Path, **changes: str) -> str:
    return module_hash("namd.body", tree(folder, **changes))


def test_reach_follows_imports_everywhere_but_not_backwards(tmp_path):
    assert reachable("namd.body", tree(tmp_path)) == {
        "namd",
        "namd.body",
        "namd.losses",
        "namd.losses.kl",
        "namd.models",
        "namd.models.vae",
        "namd.models.deep",
        "namd.late",
    }


def test_where_the_project_lies_does_not_matter(tmp_path):
    assert hashed(tmp_path / "one") == hashed(tmp_path / "two")


@pytest.mark.parametrize(
    "changes",
    [
        {"kl": "WEIGHT = 1e-5\n"},
        {"deep": "x = True\n"},
        {"deep": "x = 1.0\n"},
        {"late": "thing = 3\n"},
        {"body": BODY.replace("os.sep", "os.pathsep")},
    ],
)
def test_changed_code_anywhere_in_reach_changes_the_hash(tmp_path, changes):
    assert hashed(tmp_path / "before") != hashed(tmp_path / "after", **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"unrelated": "y = 5\n"},
        {"kl": '"""Says what it is."""\n\nWEIGHT = (\n    1e-6  # a reason\n)\n'},
        {"body": BODY.replace('"""Run."""', '"""Run it,\n\n    slowly."""')},
        {"body": BODY.replace('    """Run."""\n', "")},
    ],
)
def test_documentation_format_and_other_modules_do_not(tmp_path, changes):
    assert hashed(tmp_path / "before") == hashed(tmp_path / "after", **changes)


def test_the_public_names_of_the_package_are_neither_hashed_nor_followed(tmp_path):
    offers = FILES | {"namd/__init__.py": "from namd.unrelated import body\n\nNAMES = 1\n"}
    for place, text in offers.items():
        path = tmp_path / "after" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert "namd.unrelated" not in reachable("namd.body", tmp_path / "after")
    assert hashed(tmp_path / "before") == module_hash("namd.body", tmp_path / "after")


def test_a_text_that_is_no_docstring_counts():
    assert meaning("x = 'a'") != meaning("x = 'b'")
    assert meaning("'a'\nx = 1") == meaning("'b'\nx = 1")
    assert meaning("x = 1\n'a'") != meaning("x = 1\n'b'")


def test_fields_that_only_newer_pythons_have_do_not_enter():
    assert "type_params" not in meaning("def f(x: int) -> int: return x\nclass C: y = 1")
    assert "decorator_list" not in meaning("def f(): return 1")
    assert meaning("x = None") != meaning("x = ...")


def test_a_missing_module_is_said_and_an_existing_one_is_hashed():
    stage = Stage("s", 1, "map", "namd.methods.base:run")
    assert len(source_hash(stage)) == 64
    with pytest.raises(ModuleNotFoundError, match=r"namd\.no_such"):
        source_hash(replace(stage, body="namd.no_such:run"))


def test_code_that_a_value_names_is_reached_too():
    stage = Stage("draws", 1, "map", "namd.methods.base:run", values={"split": "test"})
    drawn = replace(stage, values={"split": "test", "drawer": "namd.losses.kl:kl_loss"})
    assert code_places(drawn) == ("namd.methods.base:run", "namd.losses.kl:kl_loss")
    assert source_hash(drawn) != source_hash(stage)
    assert source_hash(stage) == module_hash("namd.methods.base")
    with pytest.raises(ModuleNotFoundError, match=r"namd\.losses\.no"):
        source_hash(replace(stage, values={"drawer": "namd.losses.no:Drawer"}))


def test_a_body_outside_the_project_is_followed_too():
    assert len(module_hash(__name__)) == 64


def test_hashing_imports_neither_the_body_nor_torch():
    program = (
        "import sys; from namd.methods.source_hash import module_hash;"
        "module_hash('namd.methods.shared.vae'); "
        "assert not {'torch', 'namd.methods.shared.vae'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.fixture(scope="module")
def stage_versions() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "stage_versions.py"
    spec = importlib.util.spec_from_file_location("stage_versions", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def record(version: int = 1, source: str = "a") -> dict:
    return {"m:run": {"code_version": version, "source": source, "stages": ["m"]}}


@pytest.mark.parametrize(
    ("current", "word"),
    [
        (record(source="b"), "did not"),
        (record(version=2, source="b"), "new code_version"),
        ({}, "no method has it"),
        (record() | {"n:run": record()["m:run"]}, "not recorded"),
    ],
)
def test_a_record_that_no_longer_holds_is_a_problem(stage_versions, current, word):
    (problem,) = stage_versions.compare(record(), current).problems()
    assert word in problem
    assert stage_versions.compare(current, current).problems() == []


def test_only_equal_outputs_are_accepted(stage_versions):
    assert stage_versions.verdict(["m:run"], {"m:run": False}) == []
    assert "changed" in stage_versions.verdict(["m:run"], {"m:run": True})[0]
    assert "does not run" in stage_versions.verdict(["m:run"], {"other:run": False})[0]


def test_stages_that_share_a_body_share_its_version(stage_versions):
    def method(*versions: int) -> Method:
        stages = tuple(
            Stage(f"s{number}", version, "map", "namd.methods.base:run")
            for number, version in enumerate(versions)
        )
        return Method("m", "M", "", False, dict, lambda config: stages, ())

    found = stage_versions.current_record([method(3, 3)])
    assert found["namd.methods.base:run"]["stages"] == ["s0", "s1"]
    with pytest.raises(ValueError, match="code_version 3 and 4"):
        stage_versions.current_record([method(3, 4)])
