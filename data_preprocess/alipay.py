"""The Alipay log of the IJCAI-16 contest -> train, validation and test splits."""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # also where nothing is installed

from fuxictr_miss.errors import run_command
from fuxictr_miss.preprocess import alipay

if __name__ == "__main__":
    run_command(alipay.main)
