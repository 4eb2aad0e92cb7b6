"""Where the project lies."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
QUICKSTART = CONFIGS / "quickstart.py"
GOLDENS = ROOT / "tests" / "goldens"
SHARED = ROOT.parent / "shared" / "data"  # the real data, where they lie beside the project
