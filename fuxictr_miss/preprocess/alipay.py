"""The Alipay log of the IJCAI-16 contest -> train, validation and test splits.

    python data_preprocess/alipay.py

Clicks are the interactions (VI.A). An item that a user bought without a click is no interaction,
but never a negative either.
"""

from __future__ import annotations

import argparse
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import polars as pl

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess.coded_log import INTERACTS
from fuxictr_miss.preprocess.csv_tables import CsvForm
from fuxictr_miss.preprocess.left_out import LeftOut
from fuxictr_miss.preprocess.options import add_common_options, option, protocol_of
from fuxictr_miss.preprocess.protocol import Statistics
from fuxictr_miss.preprocess.splits import make_splits, splits_folder
from fuxictr_miss.preprocess.table_files import read_tables

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
CLICK, PURCHASE = "0", "1"  # of `action`


def main() -> None:
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
    option(places, "--output", "DIR", Path("data/splits/alipay"), "where the splits go")
    add_common_options(parser, k_core=str(K_CORE), in_paper=True)
    options = parser.parse_args()
    protocol = protocol_of(options, K_CORE)
    path = _find(options.log)
    output = splits_folder(options.output, [path])
    left_out = LeftOut(options.skip_malformed)
    log = read_tables(
        [path],
        COLUMNS,
        form=CsvForm(encoding=options.encoding),
        member=TABLE,
        left_out=left_out,
        allow_truncated=options.allow_truncated,
    )
    make_splits(
        "alipay",
        _with_clicks(log),
        output,
        protocol,
        options,
        left_out,
        attributes=ATTRIBUTES,
        paper=PAPER,
    )


def _with_clicks(log: Generator[pl.DataFrame]) -> Generator[pl.DataFrame]:
    with closing(log):
        for frame in log:
            yield frame.with_columns(_is_click(frame["action"]).alias(INTERACTS))


def _is_click(action: pl.Series) -> pl.Series:
    """Whether each row is a click; a row without an action is none."""
    other = action.filter(~action.is_in([CLICK, PURCHASE, ""]).fill_null(True))
    if len(other):
        raise InputError(
            f"{COLUMNS['action']} is {other[0]!r} in {len(other):,} rows; it must be {CLICK} (a "
            f"click) or {PURCHASE} (a purchase). Is this {TABLE}?"
        )
    return (action == CLICK).fill_null(False)


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
