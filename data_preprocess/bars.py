"""The data sets of FuxiCTR's benchmark -> train, held-out and test splits."""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # also where nothing is installed

from fuxictr_miss.errors import run_command
from fuxictr_miss.preprocess import bars

if __name__ == "__main__":
    run_command(bars.main)
