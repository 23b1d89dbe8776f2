"""What the processes of test_processes.py do: `torchrun ranks.py TASK params.yaml out.json`.

Each task returns what its test looks at; rank 0 writes it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from fuxictr_miss import experiment
from fuxictr_miss.distributed import processes, sharded_tables
from fuxictr_miss.errors import InputError, run_command
from fuxictr_miss.self_supervision import self_supervision_of
from fuxictr_miss.training import evaluation, run
from fuxictr_miss.training.fuxictr_loop import FuxiCTRLoop
from fuxictr_miss.training.labels import Labels
from fuxictr_miss.training.training_data import inspect_training_data

Params = dict[str, Any]

SHARDED = {"table_sharding": "rowwise"}
GRADIENTS: dict[str, Params] = {
    "gathered": {"model": "DIN_MISS", "ssl_block_size": None},
    "blocks_across_processes": {"model": "DIN_MISS", "ssl_block_size": 12},  # two of 8 + 8 rows
    "whole_blocks": {"model": "DIN_MISS", "ssl_block_size": 8},
    "block_over_an_edge": {"model": "DIN_MISS", "batch_size": 17, "ssl_block_size": 17},
    "separate": {
        "model": "DIN_MISS",
        "miss_separate_features": True,
        "miss_num_pairs": 3,
        "miss_scale_temperature": True,
    },
    "nt_xent": {"model": "DIN_CL4SRec", "cl4srec_dropout": 0.0},
    "negatives_of_other_rows": {"model": "DIN_S3Rec", "s3rec_dropout": 0.0},
    "segments": {"model": "DIN_Rule", "rule_num_pairs": 3},
    "equal_targets": {"model": "DIN_DuoRec", "duorec_dropout": 0.0},
    "clusters": {"model": "DIN_ICSRec", "icsrec_dropout": 0.0, "icsrec_intents": 4},
    "skip_gram": {"model": "DIN_Item2Vec"},
    "next_item": {"model": "DIN_NextItem", "nextitem_dropout": 0.0},
    "alignment": {"model": "DIN_CL4CTR", "cl4ctr_dropout": 0.1},
    "masked_fields": {"model": "DIN_MAP"},
    "replaced_fields": {"model": "DIN_MAP", "map_task": "RFD"},
    "items": {"model": "DIN_IRSSL"},
    "batch_norm": {"model": "DNN", "batch_norm": True},
    "sharded": {"model": "DIN_MISS", "ssl_block_size": None, **SHARDED},
    "sharded, plain": {"model": "DIN", **SHARDED},
    "sharded, few_rows": {"model": "DIN_MISS", "batch_size": 3, **SHARDED},
    "sharded, uneven": {"model": "DIN_MISS", "batch_size": 17, "ssl_block_size": 17, **SHARDED},
    "sharded, next_item": {"model": "DIN_NextItem", "nextitem_dropout": 0.0, **SHARDED},
    "sharded, negatives": {"model": "DIN_S3Rec", "s3rec_dropout": 0.0, **SHARDED},
    "sharded, fields": {"model": "DIN_MAP", **SHARDED},
    "plain": {"model": "DIN"},
    "few_rows": {"model": "DIN_MISS", "batch_size": 3},
}
# Adam divides a gradient that is all rounding error by itself, and AUC ranks by rounding where a
# young model predicts nearly the same for all
RUN = {"model": "DIN_MISS", "optimizer": "SGD", "learning_rate": 0.2, "epochs": 3,
       "metrics": ["logloss"], "monitor": "logloss", "monitor_mode": "min",
       "early_stop_patience": 9, "ssl_pretrain_epochs": 2, "ssl_block_size": 8}  # fmt: skip
RUNS: dict[str, Params] = {
    "joint": {},
    "gathered": {"ssl_block_size": 128, "batch_size": 21, "ssl_every": 2},
    "pretrain": {"ssl_training": "pretrain", "ssl_label_gradient": 0, "ssl_other_gradient": 0,
                 "ssl_thaw": True},
    "alternating": {"ssl_label_gradient": 0, "ssl_pretrain_batch_size": 31},
    "adam": {"model": "DNN", "optimizer": "adam", "learning_rate": 1e-3},
    "sharded": {"ssl_training": "pretrain", "ssl_label_gradient": 0, "ssl_other_gradient": 0,
                "ssl_thaw": True, "ssl_row_norm": "log_count", "ssl_start": "svd", **SHARDED},
    "sharded, joint": {"embedding_regularizer": 1e-3, **SHARDED},
    "sharded, adam": {"model": "DNN", "optimizer": "adam", "learning_rate": 1e-3, **SHARDED},
}  # fmt: skip
RESUMED = ("joint", "pretrain", "alternating", "sharded", "sharded, adam")
ON_ONE, ON_TWO = "one", "two"  # model_roots


def experiment_of(params: Params, name: str, folder: str) -> Params:
    root = str(Path(params["model_root"]) / folder)
    return {**params, **RUN, **RUNS[name], "model_id": name, "model_root": root}


def digits(result: Params) -> Params:
    """A run's result without its times."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in result["history"]]
    return {**{k: v for k, v in result.items() if k != "seconds"}, "history": rows}


# --------------------------------------------------------------------------- tasks


def everything(params: Params) -> Params:
    """All that needs two processes and no accident."""
    return {
        "gradients": {name: gradients(params, GRADIENTS[name]) for name in GRADIENTS},
        "without_gradient": without_gradient(params),
        "table": table(),
        "metrics": metrics(params),
        "runs": {
            name: digits(experiment.run(experiment_of(params, name, ON_TWO))) for name in RUNS
        },
        "killed": killed(params),
        "dropout": dropout(params),
        "refused": refused(params),
    }


def gradients(params: Params, changes: Params) -> dict[str, list[float]]:
    """Of a first step: the gradient of the shares against that of the whole batch on one process.

    Returns:
        (norm ratio, cosine) of the backbone's, the tables' and the method's gradient, and the
        two losses.
    """
    params = {**params, "embedding_regularizer": 1e-3, "attention_hidden_activations": "Dice"}
    model, loaders = experiment.build({**params, "model_id": "gradients", **changes})
    far_apart(model)
    train, loop = loaders["train"], FuxiCTRLoop(model, loaders["valid"], "")
    inspect_training_data(model, train)  # some methods count the training rows
    ssl = self_supervision_of(model)
    generators = [train.generator, *([ssl.generator] if ssl else [])]
    with loop.during_fit(10.0):
        loop.begin(1)
        before = [each.get_state() for each in generators]
        if ssl:
            ssl.begin_epoch()
        whole = next(iter(train))
        loss = model.compute_loss(model.forward(whole), model.get_labels(whole))
        loss.backward()
        wanted = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        model.zero_grad(set_to_none=True)
        for each, state in zip(generators, before, strict=True):
            each.set_state(state)
        if ssl:
            ssl.begin_epoch()
        if params.get("table_sharding") or changes.get("table_sharding"):
            sharded_tables.shard_tables(model)
        batch, share = next(train.shares(loop.share_of))
        trained = [each for each in model.parameters() if each.requires_grad]
        shared = processes.synchronised(loop._loss_of, sharded_tables.groups_of(trained)[0])
        with processes.sharing(share):
            own = shared(batch)
            own.backward()
    named = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    got = {n: g.full_tensor() if hasattr(g, "full_tensor") else g for n, g in named.items()}
    assert wanted.keys() == got.keys()
    parts: dict[str, list[float]] = {"losses": [float(loss), float(processes.mean(own.detach()))]}
    for part in ("embedding_layer", "_self_supervision", ""):
        names = [n for n in wanted if n.startswith(part)]
        if names:
            a, b = (torch.cat([g[n].flatten() for n in names]).double() for g in (wanted, got))
            parts[part] = [float(b.norm() / a.norm()), float(a @ b / (a.norm() * b.norm()))]
    return parts


def far_apart(model: Any) -> None:
    """Let views and predictions differ: at first they agree to 1e-4."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.3, generator=generator)


def without_gradient(params: Params) -> dict[str, list[float]]:
    """The same where a rank's rows get no gradient as negatives of the others."""
    gather = processes.gather
    processes.gather = lambda x, dim=0, gradient=True: with_own(x, dim, gather)
    try:
        return gradients(params, GRADIENTS["gathered"])
    finally:
        processes.gather = gather


def with_own(x: torch.Tensor, dim: int, gather: Any) -> torch.Tensor:
    """The rows of all ranks, of which only the own ones have a gradient, as often seen."""
    everyone, share = gather(x, dim, gradient=False), processes.share()
    start, stop = share.own.start, share.own.stop
    before, after = everyone.narrow(dim, 0, start), everyone.narrow(dim, stop, share.total - stop)
    return torch.cat([before, x, after], dim)


def table() -> list[Params]:
    """Of each rank: what a spread table with an odd number of rows does, and what a whole one."""
    torch.manual_seed(7)
    whole = torch.nn.Embedding(11, 3, padding_idx=0)
    torch.nn.init.normal_(whole.weight)  # the padding row has values, too
    shard = sharded_tables.ShardedEmbedding(whole)
    ids = torch.tensor([[0, 10, 3], [7, 0, 5], [10, 6, 1]])
    own = ids[:2] if processes.rank() == 0 else ids[2:]
    assert shard(own[:0]).shape == (0, 3, 3)  # no process asks for a row
    shard(own).pow(2).sum().backward()  # a step takes the ranks' mean
    (whole(ids).pow(2).sum() / processes.world_size()).backward()
    for each in (shard, whole):
        sharded_tables.clip_gradients(each.parameters(), 0.5)
    gradients = shard.weight.grad.full_tensor(), whole.weight.grad.clone()
    optimizer = torch.optim.Adam(shard.parameters(), fused=True)
    optimizer.step()
    kept = sharded_tables.gathered([shard.state_dict(), optimizer.state_dict()])
    kept = processes.first(lambda: kept)
    sharded_tables.load_optimizer(optimizer, kept[1])
    shard.load_state_dict(kept[0])
    torch.optim.Adam(whole.parameters(), fused=True).step()
    found = {
        "rows": sharded_tables.own_rows(shard.weight)[0].tolist(),
        "values": [shard(own).tolist(), whole(own).tolist()],
        "gradients": [each.tolist() for each in gradients],
        "weights": [shard.weight.full_tensor().tolist(), whole.weight.tolist()],
        "moments": len(optimizer.state[shard.weight]["exp_avg"].to_local()),
    }
    return processes.together(lambda: found)


def metrics(params: Params) -> list[dict[str, float]]:
    """Of predictions by all ranks, and of those by one."""
    names = ["AUC", "logloss", "gAUC", "MRR", "ECE"]
    changes = {"group_id": "user_id", "model": "DIN", "model_id": "metrics"}
    model, loaders = experiment.build({**params, **changes})
    loaders["valid"].batch_size, loaders["valid"].num_batches = 7, -(-180 // 7)
    far_apart(model)
    together = evaluation.evaluate(model, loaders["valid"], names)
    with alone():
        single = evaluation.evaluate(model, loaders["valid"], names)
    sharded_tables.shard_tables(model)
    sharded = evaluation.evaluate(model, loaders["valid"], names)
    sharded_tables.gather_tables(model)
    with alone():
        return [single, together, sharded, evaluation.evaluate(model, loaders["valid"], names)]


@contextmanager
def alone() -> Iterator[None]:
    """As if there were one process."""
    world, processes._world = processes._world, None
    try:
        yield
    finally:
        processes._world = world


class Killed(Exception):
    pass


def killed(params: Params) -> None:
    """Leave the state of a run after two of its epochs."""
    save = run.Run._save

    def save_and_die(self: Any) -> None:
        save(self)
        if len(self.rows) == 2:
            raise Killed

    run.Run._save = save_and_die
    try:
        for name in RESUMED:
            try:
                experiment.run(experiment_of(params, name, "killed"))
            except Killed:
                processes.barrier()
    finally:
        run.Run._save = save


def dropout(params: Params) -> Params:
    """What holds of a model's own dropout, which differs from one process's."""
    changes = {"model_id": "dropout", "model": "DNN", "net_dropout": 0.5, "epochs": 2}
    results = []
    for folder in ("first", "second"):
        root = str(Path(params["model_root"]) / folder)
        results.append(digits(experiment.run({**params, **changes, "model_root": root})))
    processes.seed_epoch(1, 1)
    draws = processes.together(lambda: torch.rand(3).tolist())
    model, loaders = experiment.build({**params, **changes})
    run.fit(model, loaders["train"], validation_data=loaders["valid"])
    sums = processes.together(lambda: [float(p.double().sum()) for p in model.parameters()])
    return {"results": results, "draws": draws, "weights": sums}


def refused(params: Params) -> list[str]:
    """What rank 1 hears of an error of rank 0, and what both hear of a foreign loader."""
    said = []
    try:
        processes.first(fails)
    except InputError as error:
        said.append(str(error))
    model, loaders = experiment.build({**params, "model": "DNN", "model_id": "refused"})
    try:
        run.fit(model, [next(iter(loaders["train"]))], validation_data=loaders["valid"])
    except InputError as error:
        said.append(str(error))
    return processes.together(lambda: said)[1]


def fails() -> None:
    raise InputError("Only rank 0 looked.")


def one_ends(params: Params, how: str) -> None:
    """Train, until rank 1 is killed or has an error in the middle of an epoch."""
    step = Labels._step

    def end(self: Any, batch: Any, number: int, index: int) -> Any:
        if processes.rank() == 1 and index == 3:
            Path(params["model_root"]).with_name(f"{how}_at").write_text(str(time.time()))
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise InputError("Rank 1 has had enough.")
        return step(self, batch, number, index)

    Labels._step = end
    experiment.run(experiment_of(params, "gathered", how))


def main() -> None:
    task, source, target = sys.argv[1:]
    params = yaml.safe_load(Path(source).read_text())
    if task in ("killed", "fails"):
        one_ends(params, task)
    sharded_tables.MIN_ROWS = 1
    with processes.session():
        found = {"everything": everything, "runs": runs}[task](params)
        if processes.rank() == 0:
            Path(target).write_text(json.dumps(found))


def runs(params: Params) -> Params:
    """Every run on this number of processes, and those that were killed on two."""
    size = processes.world_size()
    found = {
        name: digits(experiment.run(experiment_of(params, name, f"of_{size}"))) for name in RUNS
    }
    for name in RESUMED:
        settings = experiment_of(params, name, "killed")
        found[f"{name}, resumed"] = digits(experiment.run(settings, resume=True))
    return found


if __name__ == "__main__":
    run_command(main)
