"""docs/reproducing.md against the presets: what its table says of a value is what a run will do."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from namd.config.document import parse_yaml
from namd.config.flattening import flat
from namd.config.parsing import to_mapping
from namd.pipeline.run_configuration import resolve

PAGE = Path(__file__).parents[2] / "docs" / "reproducing.md"
COLUMNS = {3: "base", 4: "paper", 5: "paper-authors-code"}
STATED = re.compile(r"`([a-z_]+(?:\.[a-z_]+)*)=([^`]+)`")

KEEPING = re.compile(r"num_threads|.*\.(validate_every|checkpoint_every)")
"""How often something is looked at or saved, and threads."""

NO_EFFECT = {
    "vae.architecture.block_out_channels": "the weights bring their shape",
    "vae.architecture.pixel_unshuffle": "1 with weights",
    "unet.block_out_channels": "the weights bring their shape",
    "unet.layers_per_block": "the weights bring their shape",
    "unet.num_attention_heads": "the weights bring their shape",
    "perceptual.num_steps": "of the embedded encoder",
    "finetune.num_steps": "num_epochs replaces it",
}


def values(preset: str) -> dict[str, Any]:
    return flat(to_mapping(resolve(preset).config))


def cells(page: str) -> Iterator[tuple[str, int, str]]:
    """Yield point, column and text of every cell of a preset."""
    for line in page.splitlines():
        parts = [part.strip() for part in line.strip("|").split("|")]
        if line.startswith("|") and len(parts) == 6 and parts[0] != "point":
            yield from ((parts[0], column, parts[column]) for column in COLUMNS)


def stated(page: str) -> dict[str, dict[str, Any]]:
    """Return the values that the page states, by preset and dotted path."""
    found: dict[str, dict[str, Any]] = {preset: {} for preset in COLUMNS.values()}
    for _, column, text in cells(page):
        for path, value in STATED.findall(text):
            found[COLUMNS[column]][path] = parse_yaml(value, path)
    return found


def contradictions(page: str, presets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return where the page and a preset disagree, in words."""
    found = []
    for preset, shown in stated(page).items():
        for path, value in shown.items():
            real = presets[preset].get(path, "nothing")
            same = real == value if not isinstance(value, str) else str(real) == value
            if not (same or (isinstance(real, float) and real == float(value))):
                found.append(f"{preset}: {path} is {real}, not {value}")
    return found


def same_as(page: str) -> Iterator[tuple[str, str, str]]:
    """Yield (path, preset, other preset) where `=` says that both have one value."""
    rows: dict[str, dict[int, str]] = {}
    for point, column, text in cells(page):
        rows.setdefault(f"{point}{len(rows) if column == 3 else len(rows) - 1}", {})[column] = text
    for columns in rows.values():
        for column, own in columns.items():
            other = {"=": 3, "= `paper`": 4}.get(own.split(" (")[0])
            if column == 3 or other is None:
                continue
            source = 3 if other == 4 and columns[4] == "=" else other
            for path, _ in STATED.findall(columns[source]):
                yield path, COLUMNS[column], COLUMNS[source]


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def presets() -> dict[str, dict[str, Any]]:
    return {preset: values(preset) for preset in COLUMNS.values()}


def test_every_value_on_the_page_is_the_presets(page, presets):
    shown = stated(page)
    assert len({point for point, _, _ in cells(page)}) > 35
    assert {preset: len(found) > 10 for preset, found in shown.items()} == dict.fromkeys(
        shown, True
    )
    assert contradictions(page, presets) == []


def test_an_equals_sign_means_equal(page, presets):
    pairs = list(same_as(page))
    assert len(pairs) > 30
    wrong = [(path, a, b) for path, a, b in pairs if presets[a].get(path) != presets[b].get(path)]
    assert wrong == []


@pytest.mark.parametrize(("preset", "other"), [("paper", "base"), ("paper-authors-code", "paper")])
def test_every_value_in_which_presets_differ_stands_on_the_page(page, presets, preset, other):
    differ = {path for path, value in presets[preset].items() if presets[other].get(path) != value}
    assert differ
    silent = {
        path for path in differ - NO_EFFECT.keys() - stated(page)[preset].keys()
        if not KEEPING.fullmatch(path)
    }  # fmt: skip
    assert silent == set()


def test_a_page_that_says_otherwise_is_found(page, presets):
    wrong = page.replace("`finetune.num_epochs=60`", "`finetune.num_epochs=30`")
    assert contradictions(wrong, presets) == ["paper: finetune.num_epochs is 60, not 30"]
    unknown = page.replace("`finetune.epoch=copies`", "`finetune.epok=copies`")
    assert contradictions(unknown, presets) == ["paper: finetune.epok is nothing, not copies"]
    moved = presets | {"paper": presets["paper"] | {"vae.alignment.temperature": 1.0}}
    assert ("vae.alignment.temperature", "paper", "base") in [
        pair for pair in same_as(page) if moved[pair[1]].get(pair[0]) != moved[pair[2]].get(pair[0])
    ]
