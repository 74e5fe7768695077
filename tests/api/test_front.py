"""The names that `import namd` offers: documented, lazy, and one list of them."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import namd

FRONT = Path(namd.__file__)


def stubs() -> dict[str, str]:
    """Return the module of each name that type checkers see."""
    (block,) = (
        node
        for node in ast.parse(FRONT.read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_types_names_and_places_are_one_list():
    assert stubs() == namd._MODULES
    assert sorted(namd._MODULES) == sorted(namd.__all__)
    assert set(namd.__all__) <= set(dir(namd))


@pytest.mark.parametrize("name", namd.__all__)
def test_every_public_object_and_its_members_are_documented(name):
    public = getattr(namd, name)
    assert inspect.getdoc(public)
    members = inspect.getmembers(public) if inspect.isclass(public) else ()
    for label, member in members:
        mine = getattr(inspect.unwrap(getattr(member, "fget", member)), "__module__", "")
        if not label.startswith("_") and str(mine).startswith("namd.api"):
            assert inspect.getdoc(member), f"{name}.{label}"


def test_functions_name_their_errors():
    for name in ("build_crops", "build_phantom", "load_run", "plan", "run", "weights"):
        assert "Error" in str(inspect.getdoc(getattr(namd, name))), name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Cohrt'"):
        namd.Cohrt  # noqa: B018 - looking it up is the test
    assert namd.Cohort.__module__ == "namd.api.cohorts"


def test_loading_a_run_and_a_study_takes_neither_torch_nor_ray():
    code = (
        "import sys, namd; namd.run, namd.load_run, namd.Study, namd.Cohort;"
        "assert not {'torch', 'ray', 'wandb', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rooms_are_still_imported_by_their_own_names():
    code = (
        "import namd; from namd import data; import namd.study; namd.study.__doc__ + data.__doc__"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
