"""A small source of crops on disk, built by the front door as a user does."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from namd.cli.main import main
from namd.config.seeding import generator

COUNT, SIDE = 24, 24
OPTIONS = ("--size", "16", "--seed", "3")


class SmallSource:
    """An npz of 24 crops of 12 patients and its table; a test bends either, then builds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images, self.csv, self.out = folder / "c.npz", folder / "c.csv", folder / "C"
        rows, columns = np.indices((SIDE, SIDE)) - SIDE // 2
        self.inside = np.hypot(rows, columns) * 0.5 <= 3
        noise = generator("test-small-source").normal(0, 30, (COUNT, SIDE, SIDE))
        hu = (np.where(self.inside, 20, -850) + noise).round().astype(np.int16)
        self.arrays = {"hu": hu, "mask": np.tile(self.inside, (COUNT, 1, 1))}
        self.table = pd.DataFrame(
            {
                "nodule_id": [f"n{i}" for i in range(COUNT)],
                "patient_id": [f"p{i // 2}" for i in range(COUNT)],
                "pixel_spacing_mm": 0.5,
                "label": [0, 1] * (COUNT // 2),
                "SCT_LONG_DIA": 6,
                "SCT_PERP_DIA": 5,
                "SCT_PRE_ATT": 1,
                "SCT_MARGINS": 2,
            }
        ).astype(object)

    def write(self) -> None:
        np.savez(self.images, **self.arrays)
        self.table.to_csv(self.csv, index=False)

    def follow(self) -> None:
        """Give every case a follow-up of its own, a year later."""
        noise = generator("test-small-followups").normal(0, 30, self.arrays["hu"].shape)
        self.arrays["followup_hu"] = (self.arrays["hu"] + noise).round().astype(np.int16)
        self.table["months"] = 12

    def write_members(self, content: dict[str, bytes]) -> None:
        """Write an npz of raw members."""
        with zipfile.ZipFile(self.images, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in content.items():
                archive.writestr(name, data)

    def build(self, *words: str) -> int:
        files = ["--images", str(self.images), "--table", str(self.csv)]
        return main(["cohort", "build", "crops", *files, *OPTIONS, "--out", str(self.out), *words])
