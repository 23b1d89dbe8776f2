"""Export a trained experiment: an artefact that scores raw rows, or parts of it for FuxiCTR."""

from __future__ import annotations

import argparse
from pathlib import Path

from fuxictr_miss.commands.options import add_experiment_options, experiment_config
from fuxictr_miss.errors import InputError

EXAMPLES = """examples:
  fuxictr-miss export --expid DIN_MISS_demo --output served/
  fuxictr-miss export --expid DIN_MISS_demo --backbone exported/
  fuxictr-miss export --expid DIN_MISS_demo --embeddings embeddings/demo.h5

--output writes a folder with the plain backbone as model.onnx and model.pt2, and with all that
`fuxictr-miss score` needs to score raw rows (docs/serving.md). --backbone writes <model>.model, a
state_dict that loads strictly into FuxiCTR's own class, and the feature_map.json to build it with.
--embeddings writes FILE_<feature>.h5, which FuxiCTR reads as that feature's pretrained_emb. Train
the experiment first, with the same --seed and --set."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_experiment_options(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="a folder, new or empty")
    parser.add_argument("--quantize", action="store_true",
        help="with --output: hold the embedding tables of model.onnx as int8")  # fmt: skip
    parser.add_argument("--backbone", type=Path, metavar="DIR", help="a folder, new or empty")
    parser.add_argument("--embeddings", metavar="FILE.h5")
    arguments = parser.parse_args()
    if not (arguments.output or arguments.backbone or arguments.embeddings):
        raise InputError(
            "Nothing to export: give --output DIR, --backbone DIR or --embeddings FILE.h5."
        )
    if arguments.quantize and not arguments.output:
        raise InputError("--quantize is for the model.onnx of --output: give --output DIR.")
    if arguments.output and arguments.output == arguments.backbone:
        raise InputError("--output and --backbone must be two folders.")
    config = experiment_config(arguments)

    from fuxictr_miss import experiment, export, serving  # late: --help must not wait for torch

    if arguments.embeddings:
        export.check_embeddings_path(arguments.embeddings, config.feature_cols)
    for folder in filter(None, (arguments.output, arguments.backbone)):
        export.check_new(folder)
    write = serving.export if arguments.output else None  # a missing package is said before
    model = experiment.load_trained(config)
    if write:
        for file in sorted(write(model, arguments.output, config, arguments.quantize).iterdir()):
            print(file)
    if arguments.backbone:
        for file in export.export_backbone(model, arguments.backbone):
            print(file)
    if arguments.embeddings:
        for file in export.export_embeddings(model, arguments.embeddings):
            print(file)
