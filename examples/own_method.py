"""A self-supervised method of your own, trained on DIN beside MISS.

    python examples/own_method.py

After one class and one registration, every model has a variant `_Halves`. Its keys are `halves_`
and the fields of `Settings`, and all training strategies work.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import torch
from made_up_log import parameters

import fuxictr_miss as fm
from fuxictr_miss.experiment import run
from fuxictr_miss.methods.base import SSLLosses


@fm.register_method("Halves")
class Halves(torch.nn.Module):
    """The older and the newer half of a history are two views of one user."""

    @dataclasses.dataclass
    class Settings:
        width: int = 16  # the key halves_width

    def __init__(self, ssl, settings, num_sequences, dim, generator):
        super().__init__()
        self.temperature = ssl.temperature
        self.encoder = torch.nn.Linear(num_sequences * dim, settings.width)

    def forward(self, behavior):
        x = behavior.tensor.flatten(2)  # (B, L, JK), oldest first, then zeros
        place = torch.arange(x.shape[1], device=x.device)
        older = (place < behavior.length[:, None] // 2).unsqueeze(-1)
        first, second = self.encoder((x * older).sum(1)), self.encoder((x * ~older).sum(1))
        exists = behavior.length >= 2  # rows without a pair are left out of the loss
        # rows of one group are instances of one user and never each other's negatives
        loss = fm.losses.info_nce(first, second, self.temperature, behavior.group, mask=exists)
        similarity = torch.cosine_similarity(first, second).detach().mean()
        return SSLLosses(ssl=loss, feature=loss.new_zeros(()), similarity=similarity)


def main(folder: Path) -> None:
    params = {**parameters(folder), "halves_width": 32}
    for model in ("DIN", "DIN_MISS", "DIN_Halves"):  # in a config: model: DIN_Halves
        result = run({**params, "model": model, "model_id": model})
        print(f"{model}: test AUC {result['test_AUC']:.4f}", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
