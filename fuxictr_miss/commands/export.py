"""Export the plain backbone or the embeddings of a trained experiment, for use in FuxiCTR."""

from __future__ import annotations

import argparse
from pathlib import Path

from fuxictr_miss.commands.options import add_experiment_options, experiment_config
from fuxictr_miss.errors import InputError

EXAMPLES = """examples:
  fuxictr-miss export --expid DIN_MISS_demo --backbone exported/
  fuxictr-miss export --expid DIN_MISS_demo --embeddings embeddings/demo.h5

--backbone writes <model>.model, a state_dict that loads strictly into FuxiCTR's own class, and the
feature_map.json to build it with. --embeddings writes FILE_<feature>.h5, which FuxiCTR reads as
that feature's pretrained_emb. Train the experiment first, with the same --seed and --set."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_experiment_options(parser)
    parser.add_argument("--backbone", type=Path, metavar="DIR", help="a folder, new or empty")
    parser.add_argument("--embeddings", metavar="FILE.h5")
    arguments = parser.parse_args()
    if not (arguments.backbone or arguments.embeddings):
        raise InputError("Nothing to export: give --backbone DIR or --embeddings FILE.h5.")
    config = experiment_config(arguments)

    from fuxictr_miss import experiment, export  # late: --help must not wait for torch

    if arguments.embeddings:
        export.check_embeddings_path(arguments.embeddings, config.feature_cols)
    if arguments.backbone:
        export.check_new(arguments.backbone)
    model = experiment.load_trained(config)
    if arguments.backbone:
        for file in export.export_backbone(model, arguments.backbone):
            print(file)
    if arguments.embeddings:
        for file in export.export_embeddings(model, arguments.embeddings):
            print(file)
