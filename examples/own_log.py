"""Your own log in one line: CSV -> splits and a config -> DIN with and without MISS.

    python examples/own_log.py [FOLDER]

Everything goes into FOLDER (default: a temporary one), even the log, which is synthetic. For a log
of yours, change the names of the columns.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from made_up_log import write_log

COLUMNS = "--user user --item item --time time --attributes cate_id"
COMMANDS = (
    f"preprocess --input log.csv {COLUMNS} --name mylog",  # writes config_mylog/
    "train --config config_mylog --expid DIN_mylog",
    "train --config config_mylog --expid DIN_MISS_mylog",
)


def main(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"{folder} is not empty: name a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    write_log(folder / "log.csv")
    for command in COMMANDS:
        print(f"$ fuxictr-miss {command}", flush=True)
        python = [sys.executable, "-m", "fuxictr_miss"]
        subprocess.run([*python, *command.split()], cwd=folder, check=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else temporary))
