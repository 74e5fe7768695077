"""What stage `vae` says of an alignment that teaches nothing."""

from pathlib import Path

import numpy as np
import pytest

from namd.data.schema import FOLLOWUP_DIAMETERS
from namd.methods.shared import vae
from namd.pipeline.run_configuration import resolve
from namd.train.world import LocalWorld
from tests.contexts import open_context
from tests.data.conftest import make_cohort

TINY = (
    "image.size=16",
    "judge.architecture.image_size=16",
    "vae.perceptual.weight=0",
    "vae.num_steps=2",
    "perceptual.source=embedded",
)


def warnings(folder: Path, *overrides: str, known: int | None = None) -> list[str]:
    """Run the stage on a cohort with that many complete train crops (None: all) and listen."""
    cohort = make_cohort()
    cohort.table[list(FOLLOWUP_DIAMETERS)] = 7.0
    if known is not None:
        train = np.flatnonzero((cohort.table["split"] == "train").to_numpy())
        cohort.table.loc[train[known:], "SCT_MARGINS"] = np.nan
        cohort.has_followup[train[:known]] = False
    cohort.write(folder / "C")
    for name in ("out", "checkpoints"):
        (folder / name).mkdir()
    seen: list[str] = []
    context = open_context(
        settings=resolve("tiny", None, [*TINY, *overrides]).config,
        values={},
        cohort_path=folder / "C",
        inputs={},
        outputs={None: folder / "out"},
        checkpoints=folder / "checkpoints",
        world=LocalWorld(),
        warn=seen.append,
    )
    assert [step.index for step in vae.run(context)][-1] == 2
    return [line for line in seen if "taught nothing" in line]


def test_batches_without_enough_complete_crops_are_reported_once(tmp_path):
    (line,) = warnings(tmp_path, "vae.validate_every=1", known=2)
    assert line.startswith("vae.alignment.weight 1.0 taught nothing for a while: no batch had 3 ")


@pytest.mark.parametrize(
    ("overrides", "known"), [((), None), (("vae.alignment.weight=0",), 2)], ids=["whole", "off"]
)
def test_an_alignment_that_is_formed_or_switched_off_is_not(tmp_path, overrides, known):
    assert warnings(tmp_path, *overrides, known=known) == []
