"""Run one experiment: encode the data, train the model, print its metrics."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from pathlib import Path

from fuxictr_miss.commands.options import add_experiment_options, experiment_config
from fuxictr_miss.config import list_expids
from fuxictr_miss.outputs.result_table import append_result, check_result_table

EXAMPLES = """examples:
  python run_expid.py --list                                 print all experiments
  python run_expid.py --expid DIN_MISS_demo                  train, and print test AUC and logloss
  python run_expid.py --expid DIN_MISS_demo --seed 2         the same with another seed
  python run_expid.py --expid DIN_MISS_demo --set epochs=3 --set ssl_weight=1
  python run_expid.py --expid DIN_MISS_demo --resume         continue an interrupted run
  python run_expid.py --expid DIN_MISS_demo --init-from served/last_week
  python run_expid.py --expid DIN_MISS_demo --tracker tensorboard
  python run_expid.py --expid MaskNet_MISS_mine --config ../my_config --zoo ../FuxiCTR
  python run_expid.py --expid DIN_MISS_demo --resume --export-embeddings embeddings/demo.h5

Checkpoint, log, training curves and final metrics go to
<model_root>/<dataset_id>/<expid>.{model,log,png,metrics.json}; a row with the metrics and every
parameter is added to the CSV named after the config folder."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_experiment_options(parser)
    parser.add_argument("--list", action="store_true", help="print all expids and stop")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_argument(
        "--export-embeddings",
        metavar="FILE.h5",
        help="after training, write each table to FILE_<feature>.h5, which FuxiCTR reads as that "
        "feature's pretrained_emb; with --resume a finished run is not trained again",
    )
    parser.add_argument(
        "--init-from",
        metavar="DIR",
        help="start with the weights of an exported artefact: ids that it knows keep their vectors",
    )
    parser.add_argument(
        "--tracker",
        metavar="NAME",
        help="show the curves of the training: tensorboard, wandb or mlflow (config key: tracker)",
    )
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(list_expids(arguments.config)))
        return
    config = experiment_config(arguments)
    if arguments.tracker:
        config = config.replace({"tracker": arguments.tracker}, "--tracker")
    folder = Path(arguments.config).resolve().name
    table = Path(f"{folder.removeprefix('shipped_')}.csv")
    check_result_table(table)

    # DistributedDataParallel warns if all parameters are used
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    gc.disable()  # the collector would scan all imported modules repeatedly: a fifth of the start
    from fuxictr_miss import experiment  # late: --help must not wait for torch
    from fuxictr_miss.distributed import processes  # late: --help must not wait for torch

    gc.freeze()
    gc.enable()
    result = experiment.run(
        config,
        arguments.resume,
        arguments.export_embeddings,
        init_from=arguments.init_from,
    )
    if processes.rank() > 0:
        return  # rank 0 reports
    del result["history"]  # is in the log and the plot
    try:
        for split in ("valid", "test"):
            metrics = [
                f"{k[len(split) + 1 :]}: {v:.6f}" for k, v in result.items() if k.startswith(split)
            ]
            if metrics:
                print(f"[{split}] {' - '.join(metrics)}", flush=True)
    finally:  # the row is written even if printing fails
        append_result({"command": " ".join(sys.argv), **result}, config.params, table)
