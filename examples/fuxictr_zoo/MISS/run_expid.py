import argparse
import logging
import os
import sys
from datetime import datetime
from pathlib import Path

import fuxictr_version  # noqa: F401
import src
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.torch_utils import seed_everything
from fuxictr.utils import load_config, print_to_json, print_to_list, set_logger

from fuxictr_miss.data import TensorDataLoader, build_dataset
from fuxictr_miss.errors import run_command


def data_generators(feature_map, params):
    """The train, validation and test data generators (None where there is no such data)."""
    # held in memory, where pretraining needs them
    loaders = RankDataLoader(feature_map, stage="both", data_loader=TensorDataLoader, **params)
    if hasattr(loaders, "make_iterator"):  # of FuxiCTR's repository, not of its package
        loaders = loaders.make_iterator()
    return loaders


def main():
    """Usage: python run_expid.py --config {config_dir} --expid {experiment_id} --gpu {gpu_id}"""
    os.chdir(os.path.dirname(os.path.realpath(__file__)))
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=str, default="./config/", help="The config directory.")
    parser.add_argument("--expid", type=str, default="MISS_test", help="The experiment id to run.")
    parser.add_argument("--gpu", type=int, default=-1, help="The gpu index, -1 for cpu")
    args = vars(parser.parse_args())

    experiment_id = args["expid"]
    params = load_config(args["config"], experiment_id)
    params["gpu"] = args["gpu"]
    set_logger(params)
    logging.info("Params: " + print_to_json(params))
    seed_everything(seed=params["seed"])

    # Build feature_map and transform data, unless they are there
    paths = build_dataset(params)
    params["train_data"], params["valid_data"], params["test_data"] = paths
    data_dir = os.path.join(params["data_root"], params["dataset_id"])
    feature_map = FeatureMap(params["dataset_id"], data_dir)
    feature_map.load(os.path.join(data_dir, "feature_map.json"), params)
    logging.info("Feature specs: " + print_to_json(feature_map.features))

    model_class = getattr(src, params["model"])
    model = model_class(feature_map, **params)
    model.count_parameters()  # print number of parameters used in model

    train_gen, valid_gen, test_gen = data_generators(feature_map, params)
    model.fit(train_gen, validation_data=valid_gen, **params)

    logging.info("****** Validation evaluation ******")
    valid_result = model.evaluate(valid_gen)

    test_result = {}
    if test_gen:
        logging.info("******** Test evaluation ********")
        test_result = model.evaluate(test_gen)

    result_filename = Path(args["config"]).name.replace(".yaml", "") + ".csv"
    row = (
        f" {datetime.now():%Y%m%d-%H%M%S},[command] python {' '.join(sys.argv)},"
        f"[exp_id] {experiment_id},[dataset_id] {params['dataset_id']},[train] N.A.,"
        f"[val] {print_to_list(valid_result)},[test] {print_to_list(test_result)}\n"
    )
    with open(result_filename, "a+") as fw:
        fw.write(row)


if __name__ == "__main__":
    run_command(main)  # an error of the user is one sentence
