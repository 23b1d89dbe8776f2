"""The Alipay log of the IJCAI-16 contest -> train, validation and test splits.

    python data_preprocess/alipay.py

Clicks are the interactions (VI.A). An item that a user bought without a click is no interaction,
but never a negative either.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from coded_log import CodedLog
from fuxictr_miss.errors import InputError, run_command
from interactions import (
    Statistics,
    add_common_options,
    filter_log,
    protocol_of,
    report,
    spill_folder,
    write_splits,
)
from table_files import read_tables

FOLDER = Path("data/raw/alipay")
ARCHIVE = "IJCAI16_data.zip"
TABLE = "ijcai2016_taobao.csv"  # in the archive, or unpacked beside it
K_CORE = 10
PAPER = Statistics(326_577, 451_631, 653_154, 788_166, 7)
# ours -> the file's; `time` is a day, YYYYMMDD
COLUMNS = {
    "user_id": "use_ID",
    "item_id": "ite_ID",
    "cate_id": "cat_ID",
    "seller_id": "sel_ID",
    "action": "act_ID",
    "time": "time",
}
ATTRIBUTES = ("cate_id", "seller_id")
CLICK = "0"  # of `action`; anything else is a purchase


def _main() -> None:
    parser = argparse.ArgumentParser(
        description="The Alipay log (IJCAI-16) -> train, valid and test splits.",
        epilog="example: python data_preprocess/alipay.py\n"
        "The log needs a login, so no command can fetch it: data_preprocess/alipay.md says how.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    places = parser.add_argument_group("places")
    places.add_argument(
        "--log", type=Path, metavar="FILE", help=f"default {FOLDER}/{ARCHIVE}, or {TABLE} there"
    )
    places.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=Path("data/splits/alipay"),
        help="default data/splits/alipay",
    )
    add_common_options(parser, k_core=str(K_CORE))
    parser.add_argument(
        "--expect-paper",
        action="store_true",
        help="an error, and nothing written, if the statistics differ from Table II",
    )
    options = parser.parse_args()
    protocol = protocol_of(options, K_CORE)
    tables = read_tables(
        [_find(options.log)],
        COLUMNS,
        member=TABLE,
        skip_malformed=options.skip_malformed,
        allow_truncated=options.allow_truncated,
    )
    with spill_folder(options.output, options.shards) as folder:
        log, skipped, rows = CodedLog(ATTRIBUTES, options.shards, folder), 0, 0
        for frame, bad in tables:
            log.add(frame, (frame["action"] == CLICK).fill_null(False))
            rows += frame.height
            skipped += bad
        record = filter_log(log, protocol.k_core)
        report("alipay", record, protocol, PAPER, options.expect_paper)
        source = {"raw_rows": rows, "raw_interactions": log.interactions, "skipped_lines": skipped}
        write_splits(record, protocol, options.output, source, options.shards)
    print(f"written to {options.output}")


def _find(named: Path | None) -> Path:
    places = [named] if named else [FOLDER / ARCHIVE, FOLDER / TABLE]
    for path in places:
        if path.is_file():
            return path
    raise InputError(
        f"There is no {' or '.join(map(str, places))}. data_preprocess/alipay.md says what to "
        f"click to get it; put it there (or name it by --log) and run: "
        f"python data_preprocess/alipay.py"
    )


if __name__ == "__main__":
    run_command(_main)
