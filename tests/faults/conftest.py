"""Makes the toy run of tests/pipeline and its fixtures available."""

import sys
from pathlib import Path

TOYS = str(Path(__file__).resolve().parents[1] / "pipeline")
if TOYS not in sys.path:
    sys.path.insert(0, TOYS)

from toy_fixtures import diary, start  # noqa: E402 - found by the path above

__all__ = ["diary", "start"]
