"""A small FuxiCTR model, which knows nothing of this package."""

import torch
from fuxictr.pytorch.layers import FeatureEmbeddingDict, MLP_Block
from fuxictr.pytorch.models import BaseModel


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
