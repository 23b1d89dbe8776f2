"""Write the demo's raw files under data/raw/demo/."""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # also where nothing is installed

from fuxictr_miss.errors import run_command
from fuxictr_miss.preprocess import demo

if __name__ == "__main__":
    run_command(demo.main)
