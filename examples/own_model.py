"""Your own FuxiCTR model in your own script, without MISS and with it.

    python examples/own_model.py

`MeanPool` is any class derived from FuxiCTR's BaseModel: nothing in it knows of this package.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import FeatureEmbeddingDict, MLP_Block
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything
from made_up_log import parameters

import fuxictr_miss as fm


class MeanPool(BaseModel):
    """The mean of the history, its product with the candidate item, and the candidate."""

    def __init__(self, feature_map, model_id="MeanPool", gpu=-1, embedding_dim=10, **params):
        super().__init__(feature_map, model_id=model_id, gpu=gpu, **params)
        self.embedding_layer = FeatureEmbeddingDict(feature_map, embedding_dim)
        self.mlp = MLP_Block(
            input_dim=6 * embedding_dim,
            output_dim=1,
            hidden_units=[40, 40, 40],
            output_activation=self.output_activation,
        )
        self.compile(params["optimizer"], params["loss"], params["learning_rate"])
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs):
        x = self.get_inputs(inputs)
        fields = self.embedding_layer(x)
        mask = (x["item_history"] > 0).float().unsqueeze(-1)
        item = torch.cat([fields["item_id"], fields["cate_id"]], dim=-1)
        history = torch.cat([fields["item_history"], fields["cate_history"]], dim=-1)
        mean = (history * mask).sum(1) / mask.sum(1).clamp(min=1)
        return {"y_pred": self.mlp(torch.cat([mean, mean * item, item], dim=-1))}


def main(folder: Path) -> None:
    torch.set_num_threads(1)  # the fastest with small batches
    params = parameters(folder)  # in your script: FuxiCTR's load_config
    Path(params["model_root"], params["dataset_id"]).mkdir(parents=True)  # and its set_logger
    train, valid, test = fm.data.build_dataset(params)  # FuxiCTR's feature encoder and formats
    feature_map = FeatureMap(params["dataset_id"], str(Path(train).parent))
    feature_map.load(str(Path(train).parent / "feature_map.json"), params)
    for model_class in (MeanPool, fm.enhance(MeanPool)):  # the second is MeanPool_MISS
        seed_everything(params["seed"])
        train_rows, valid_rows, test_rows = RankDataLoader(
            feature_map,
            train_data=train,
            valid_data=valid,
            test_data=test,
            batch_size=params["batch_size"],
            data_loader=fm.data.TensorDataLoader,
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
