"""What a training step costs with Alipay's tables, and what `optimizer` makes of it.

    python benchmarks/large_tables.py

788,166 features of 10 dimensions (Table II), batches of 128 rows with three histories of 1 to 50
behaviors, all drawn evenly: no batch of real clicks touches more rows. The optimizers take turns
on the same batches in one process, so that only ratios count: dense is what FuxiCTR makes of
`optimizer: adam`, fused and sparse_adam are ours. The limit is the time in which this machine's
memory can move what Adam must: 28 bytes a weight, as it reads weight, gradient and both moments
and writes all but the gradient.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything
from torch import Tensor

import fuxictr_miss as fm
from fuxictr_miss.optimizers import set_optimizer

USERS, ITEMS, FEATURES = 326_577, 451_631, 788_166  # Table II
CATEGORIES = 72  # as in the raw log; the rest are sellers
VOCABULARY = {
    "user_id": USERS,
    "item_id": ITEMS,
    "cate_id": CATEGORIES,
    "seller_id": FEATURES - USERS - ITEMS - CATEGORIES,
}
SHARES = {"item_history": "item_id", "cate_history": "cate_id", "seller_history": "seller_id"}
DIM, ROWS, LENGTH = 10, 128, 50
OPTIMIZERS = ("dense", "fused", "sparse_adam")
WARM_UP = 3  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    draw = torch.Generator().manual_seed(1)
    batches = [_batch(draw) for _ in range(options.steps + WARM_UP)]
    distinct = [sum(len(torch.cat(each).unique()) for each in _lookups(b)) for b in batches]
    print(f"{median(distinct):.0f} of {FEATURES:,} rows in a batch, {options.threads} thread(s)\n")
    print("| model | optimizer | ms a step | dense / it | of it in the optimizer |")
    print("|---|---|---|---|---|")
    in_adam = {}
    for name in ("DIN", "DIN_MISS"):
        step, update = _times(name, batches)
        in_adam[name] = update
        for each in OPTIMIZERS:
            ratio = step["dense"] / step[each]
            print(f"| {name} | {each} | {step[each]:.1f} | {ratio:.1f} | {update[each]:.1f} |")
    speed = _bandwidth()
    limit = 28 * FEATURES * DIM / speed * 1e3
    print(f"\nmemory moves {speed / 1e9:.1f} GB/s, so that Adam takes {limit:.1f} ms at least: ")
    for each in OPTIMIZERS:
        print(f"  {each} takes {in_adam['DIN'][each] / limit:.2f} times as long")


def _times(name: str, batches: list[dict[str, Tensor]]) -> tuple[dict[str, float], ...]:
    """Median milliseconds of a training step and of the optimizer's part, by optimizer."""
    models = {each: _model(name, each) for each in OPTIMIZERS}
    steps: dict[str, list[float]] = {each: [] for each in OPTIMIZERS}
    updates: dict[str, list[float]] = {each: [] for each in OPTIMIZERS}
    for each, model in models.items():
        _watch(model, updates[each])
    for batch in batches:
        for each, model in models.items():
            started = time.perf_counter()
            model.train_step(batch)
            steps[each].append(time.perf_counter() - started)
    return tuple(
        {each: 1e3 * median(values[WARM_UP:]) for each, values in times.items()}
        for times in (steps, updates)
    )


def _watch(model: BaseModel, seconds: list[float]) -> None:
    """Append the duration of every step of the model's optimizer to `seconds`."""
    begin: list[float] = []
    model.optimizer.register_step_pre_hook(lambda *_: begin.append(time.perf_counter()))
    model.optimizer.register_step_post_hook(
        lambda *_: seconds.append(time.perf_counter() - begin.pop())
    )


def _model(name: str, optimizer: str) -> BaseModel:
    folder = tempfile.gettempdir()
    feature_map = FeatureMap("made_up", folder)
    feature_map.features = OrderedDict(
        (feature, _spec("categorical", size + 1)) for feature, size in VOCABULARY.items()
    )
    for history, target in SHARES.items():
        spec = _spec("sequence", VOCABULARY[target] + 1)
        feature_map.features[history] = {**spec, "share_embedding": target, "max_len": LENGTH}
    feature_map.labels = ["label"]
    feature_map.default_emb_dim = DIM
    seed_everything(1)
    model = fm.get_model(name)(
        feature_map,
        embedding_dim=DIM,
        dnn_hidden_units=[40, 40, 40],
        attention_hidden_units=[40],
        din_target_field=[tuple(SHARES.values())],
        din_sequence_field=[tuple(SHARES)],
        optimizer="adam",
        loss="binary_crossentropy",
        metrics=["AUC"],
        model_root=folder,
        verbose=0,
    )
    if optimizer != "dense":
        set_optimizer(model, {"fused": "adam"}.get(optimizer, optimizer))
    model._max_gradient_norm = 10.0  # set by fit() before it calls train_step()
    return model.train()


def _spec(kind: str, vocabulary: int) -> dict[str, Any]:
    return {"source": "", "type": kind, "vocab_size": vocabulary, "padding_idx": 0}


def _batch(draw: torch.Generator) -> dict[str, Tensor]:
    def ids(feature: str, *shape: int) -> Tensor:
        return torch.randint(1, VOCABULARY[feature] + 1, shape, generator=draw)

    lengths = torch.randint(1, LENGTH + 1, (ROWS, 1), generator=draw)
    real = torch.arange(LENGTH) < lengths
    batch = {feature: ids(feature, ROWS) for feature in VOCABULARY}
    batch |= {name: ids(target, ROWS, LENGTH) * real for name, target in SHARES.items()}
    return {**batch, "label": (torch.arange(ROWS) % 2).float()}


def _lookups(batch: dict[str, Tensor]) -> list[list[Tensor]]:
    """The ids that each table is asked for."""
    return [
        [batch[feature], *(batch[h].flatten() for h, target in SHARES.items() if target == feature)]
        for feature in VOCABULARY
    ]


def _bandwidth() -> float:
    """Bytes a second that the memory moves at its best, adding to 128 MiB in place."""
    total, term = torch.zeros(2**25), torch.ones(2**25)
    return 3 * total.nbytes / min(_seconds(lambda: total.add_(term)) for _ in range(30))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
