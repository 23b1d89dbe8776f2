"""`fuxictr-miss preprocess [source]`: turn a raw log into train, validation and test splits."""

from __future__ import annotations

import sys

from fuxictr_miss.commands.main import dispatch

SOURCES = {
    "demo": "write the demo's raw files (then: amazon --dataset demo)",
    "amazon": "Amazon product data of 2014: demo, amazonbeauty, amazoncds, amazonbooks",
    "alipay": "the Alipay log of the IJCAI-16 contest",
    "interactions": "your own log, CSV or Parquet; also without this word",
    "bars": "the four sequence data sets of FuxiCTR's benchmark",
    "bars_sample": "made-up rows in their form (then: bars --sample --dataset NAME)",
}
HELP = "\n".join(
    [
        "usage: fuxictr-miss preprocess [source] [options]",
        "",
        *(f"  {name:<14}{about}" for name, about in SOURCES.items()),
        "",
        "See `fuxictr-miss preprocess <source> --help`. Your own log in one line:",
        "",
        "  fuxictr-miss preprocess --input log.csv --user user --item item --time time "
        "--name mylog",
    ]
)


def main() -> None:
    if sys.argv[1:] and sys.argv[1].startswith("-") and sys.argv[1] not in ("-h", "--help"):
        sys.argv.insert(1, "interactions")
    dispatch("fuxictr-miss preprocess", "fuxictr_miss.preprocess", SOURCES, HELP)
