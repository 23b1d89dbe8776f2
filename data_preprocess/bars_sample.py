"""Write made-up rows in the form of the data sets of FuxiCTR's benchmark."""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # also where nothing is installed

from fuxictr_miss.errors import run_command
from fuxictr_miss.preprocess import bars_sample

if __name__ == "__main__":
    run_command(bars_sample.main)
