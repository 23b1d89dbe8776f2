"""Your own FuxiCTR model in your own script, without MISS and with it.

    python examples/own_model.py

`MeanPool` (mean_pool.py) stands for any class derived from BaseModel: nothing in it knows
of this package.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.torch_utils import seed_everything
from made_up_log import parameters
from mean_pool import MeanPool

import fuxictr_miss as fm


def main(folder: Path) -> None:
    torch.set_num_threads(1)  # the fastest with small batches
    params = parameters(folder)  # in your script: FuxiCTR's load_config
    Path(params["model_root"], params["dataset_id"]).mkdir(parents=True)  # and its set_logger
    train, valid, test = fm.data.build_dataset(params)  # FuxiCTR's feature encoder and formats
    feature_map = FeatureMap(params["dataset_id"], str(Path(train).parent))
    feature_map.load(str(Path(train).parent / "feature_map.json"), params)
    for model_class in (MeanPool, fm.enhance(MeanPool)):  # the second is MeanPool_MISS
        seed_everything(params["seed"])
        train_rows, valid_rows, test_rows = (
            fm.data.TensorDataLoader(feature_map, path, split, params["batch_size"], shuffle=True)
            for split, path in (("train", train), ("valid", valid), ("test", test))
        )
        # The ssl_ and miss_ keys in `params` say how it is trained; the plain class ignores them.
        model = model_class(feature_map, **params, model_id=model_class.__name__)
        model.fit(train_rows, validation_data=valid_rows, epochs=params["epochs"])
        metrics = model.evaluate(test_rows)
        print(f"{model_class.__name__}: test AUC {metrics['AUC']:.4f}", flush=True)
    backbone = model.to_backbone()  # a plain MeanPool with the trained weights, to serve
    print(f"{type(backbone).__name__}: test AUC {backbone.evaluate(test_rows)['AUC']:.4f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
