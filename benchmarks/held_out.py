"""How many items does a pretraining not see, because the users who have them are held out?

    python benchmarks/held_out.py --dataset amazonbeauty amazoncds_subset

Prints, for PNN_MISS with the keys of its config: training users, those of them whose loss stops a
pretraining at a constant rate, the items of the training histories that only these have, and the
share of the test rows that ask for one. Nothing is trained.
"""

from __future__ import annotations

import argparse
import tempfile

import torch

from fuxictr_miss.config import load_config
from fuxictr_miss.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", nargs="+", required=True, help="dataset_ids of config/")
    print("| data set | users | held out | items | only theirs | of the test rows |")
    print("|---|---:|---:|---:|---:|---:|")
    for dataset in parser.parse_args().dataset:
        with tempfile.TemporaryDirectory() as models:
            _measure(dataset, models)


def _measure(dataset: str, models: str) -> None:
    from fuxictr_miss import experiment
    from fuxictr_miss.self_supervision import contrast_of
    from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
    from fuxictr_miss.training.histories import Histories
    from fuxictr_miss.training.pretraining import Pretraining

    config = load_config("config", f"PNN_MISS_{dataset}")
    config = config.override([f"model_root={models}", "verbose=0"], None)
    model, loaders = experiment.build(config)
    ssl = contrast_of(model)
    assert ssl is not None
    behaviors = [source.features for source in ssl.sources]
    histories = Histories(loaders["train"], behaviors, ssl.user, ssl.unknown_user)
    phase = Pretraining(FuxiCTRLoop(model, loaders["valid"], ""), ssl, histories, loaders["train"])
    user_of_row = torch.repeat_interleave(torch.arange(len(histories)), histories.count)
    held_out = torch.isin(user_of_row, phase.held_out)
    name = behaviors[0][0]
    target = model.feature_map.features[name]["share_embedding"]
    ids, asked = histories.column(name), loaders["test"].column(target)
    drawn = ids[~held_out].unique()
    lost = ids[held_out].unique()
    lost = lost[~torch.isin(lost, drawn)]
    share = torch.isin(asked, lost).double().mean()
    print(
        f"| {dataset} | {len(histories):,} | {len(phase.held_out)} | {len(ids.unique()) - 1:,} "
        f"| {len(lost)} | {share:.2%} |",
        flush=True,
    )


if __name__ == "__main__":
    run_command(main)
