"""Amazon product data of 2014 -> train, validation and test splits."""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # also where nothing is installed

from fuxictr_miss.errors import run_command
from fuxictr_miss.preprocess import amazon

if __name__ == "__main__":
    run_command(amazon.main)
