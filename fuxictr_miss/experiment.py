"""One experiment: config -> encoded data -> model -> training -> metrics -> a row of results."""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from fuxictr.features import FeatureMap
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything
from tqdm.contrib.logging import logging_redirect_tqdm

from fuxictr_miss.adapt import Adapted, adapt
from fuxictr_miss.config import Config
from fuxictr_miss.config.recipes import read_recipe
from fuxictr_miss.data import TensorDataLoader, build_dataset
from fuxictr_miss.data.column_files import column_files
from fuxictr_miss.data.encoded import check_encoded, encoded_folder, is_encoded
from fuxictr_miss.data.folder import FEATURE_MAP
from fuxictr_miss.distributed import processes
from fuxictr_miss.distributed.sharded_tables import gather_tables, shard_tables
from fuxictr_miss.errors import InputError
from fuxictr_miss.export import check_embeddings_path, export_embeddings
from fuxictr_miss.files import remove_unfinished
from fuxictr_miss.fuxictr_fixes.few_histories import tolerate_few_histories
from fuxictr_miss.fuxictr_fixes.initial_weights import initialize_forgotten_tables
from fuxictr_miss.fuxictr_fixes.one_row import tolerate_one_row
from fuxictr_miss.fuxictr_fixes.root_logger import without_fuxictr_info
from fuxictr_miss.fuxictr_fixes.trial_step import error_summary
from fuxictr_miss.fuxictr_fixes.zoo_classes import is_of_fuxictr
from fuxictr_miss.methods.base import list_methods
from fuxictr_miss.mixin import backbone_of
from fuxictr_miss.outputs.curves import plot_history
from fuxictr_miss.outputs.logs import set_logger
from fuxictr_miss.outputs.run_files import METRICS, read_run_file, versions, write_run_file
from fuxictr_miss.outputs.trackers import check_tracker
from fuxictr_miss.registry import get_model
from fuxictr_miss.self_supervision import check_method_keys, method_defaults
from fuxictr_miss.serving.warm_start import read_artefact, start_from
from fuxictr_miss.training import fit
from fuxictr_miss.training.checkpoint import data_of, load
from fuxictr_miss.training.evaluation import check_defined, evaluate
from fuxictr_miss.training.mixed_precision import autocast
from fuxictr_miss.training.optimizers import set_optimizer
from fuxictr_miss.training.watch import watching

log = logging.getLogger(__name__)

_EVALUATION_BATCH = {"cpu": 1024, "cuda": 16_384}  # rows; see benchmarks/evaluation.py


def run(
    config: Config | Mapping[str, Any],
    resume: bool = False,
    embeddings: str | Path | None = None,
    extra_metrics: Sequence[str] = (),
    test: bool = True,
    init_from: str | Path | None = None,
) -> dict[str, Any]:
    """Run one experiment: build the data, train the model, and evaluate it.

    Args:
        config: from `load_config`, or FuxiCTR's plain dict of parameters.
        resume: continue an interrupted run of the same `model_id`.
        embeddings: FILE.h5; the trained tables are written to FILE_<feature>.h5.
        extra_metrics: evaluated at the end beside the config's.
        test: False for a trial of a search, which must not see the test split.
        init_from: the folder of an exported artefact, whose weights the training starts with.

    Returns:
        `expid`, `seed`, `valid_<metric>`, `test_<metric>`, `epochs`, `seconds`, and `history`, the
        rows that `fit` returns, one per epoch.

    Raises:
        InputError: the config, the data or the machine does not allow the run, or the same
            experiment is already running.

    Example:
        >>> from fuxictr_miss.config import load_config
        >>> params = load_config("config", "DIN_demo").params  # after the demo's preprocessing
        >>> result = run({**params, "epochs": 1, "verbose": 0})
        >>> 0 < result["test_AUC"] < 1
        True
    """
    started = time.perf_counter()
    config = Config.of_experiment(config)
    if embeddings is not None:
        check_embeddings_path(embeddings, config.feature_cols)
    with processes.session(config.gpu) as gpu:
        config = config if gpu == config.gpu else config.replace({"gpu": gpu}, "torchrun")
        result = _run(config, resume, embeddings, extra_metrics, test, init_from)
    result["seconds"] = round(time.perf_counter() - started, 1)
    return result


def _run(
    config: Config,
    resume: bool,
    embeddings: str | Path | None,
    extra_metrics: Sequence[str],
    test: bool,
    init_from: str | Path | None,
) -> dict[str, Any]:
    check_tracker(config.tracker)
    artefact = None if init_from is None else read_artefact(init_from)
    log_file = config.file(".log")
    read_run_file(config.file(METRICS))  # refuse a stranger's before the training
    writes = processes.rank() == 0
    with (
        _run_lock(config),
        logging_redirect_tqdm(),
        without_fuxictr_info(),
        watching(config) if writes else nullcontext() as watch,
    ):
        if writes:
            set_logger(log_file)
        else:
            logging.basicConfig(handlers=[logging.NullHandler()], force=True)
        if processes.world_size() > 1:
            log.info("%d processes share each batch of %d rows.", processes.world_size(),
                     config.batch_size)  # fmt: skip
        model, loaders = build(config, test)
        settings = dict(config.settings)
        if artefact is not None:
            start_from(model, artefact)
            settings["init_from"] = artefact.digest
        if config.table_sharding is not None:
            shard_tables(model)
        foreign = is_of_fuxictr(backbone_of(type(model)))
        with _as_input_error(config.model) if foreign else nullcontext():
            rows = fit(
                model,
                loaders["train"],
                epochs=config.epochs,
                validation_data=loaders["valid"],
                max_gradient_norm=config.max_gradient_norm,
                resume=resume,
                settings=settings,
                watch=watch,
            )
        record = _record(config, model, rows)
        record["init_from"] = artefact and artefact.digest
        record["metrics"] = _evaluated(model, loaders, (*config.metrics, *extra_metrics))
        if writes:
            _keep(record, config.file(METRICS))
        if watch is not None:
            watch.end(record)
        if embeddings is not None:
            gather_tables(model)
            for file in export_embeddings(model, embeddings) if writes else ():
                log.info("Embeddings: %s", file)
    if writes:
        plot_history(rows, log_file.with_suffix(".png"), title=config.model_id)
    metrics = {
        f"{split}_{name}": value
        for split, of_split in record["metrics"].items()
        for name, value in of_split.items()
    }
    own = {"expid": config.model_id, "seed": config.seed}
    return {**own, **metrics, "epochs": len(rows), "history": rows}


def _evaluated(
    model: BaseModel, loaders: Mapping[str, Any], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """The metrics of each split that is there, which are also logged."""
    metrics = {}
    for split in ("valid", "test"):
        if loaders[split] is not None:
            found = metrics[split] = evaluate(model, loaders[split], list(dict.fromkeys(names)))
            log.info("%s: %s", split, " | ".join(f"{k} {v:.6f}" for k, v in found.items()))
    return metrics


def _record(config: Config, model: BaseModel, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a run was, for its log and its `metrics.json`; the metrics are still missing."""
    return {
        "expid": config.model_id,
        "model": config.model,
        "dataset_id": config.dataset_id,
        "recipe": config.params.get("ssl_recipe"),
        "seed": config.seed,
        "data": data_of(model),
        "parameters": _size(model),
        "epochs": len(rows),
        "training_seconds": round(sum(row["seconds"] for row in rows), 3),
        "metrics": {},
        "versions": versions(),
    }


def _keep(record: Mapping[str, Any], path: Path) -> None:
    """Log what a run was and write its `metrics.json`; a full disk costs no metrics."""
    names = ("recipe", "seed", "data", "parameters")
    values = {**{name: record[name] for name in names}, **record["versions"]}
    log.info("%s: %s", record["expid"], " | ".join(f"{k} {v}" for k, v in values.items()))
    try:
        write_run_file(path, record)
    except InputError as error:
        log.warning("The metrics of this run are in its log only: %s", error)


def _size(model: BaseModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@contextmanager
def _run_lock(config: Config) -> Iterator[None]:
    """Refuse a second run of an experiment, which would overwrite the first one's files."""
    if processes.rank() > 0:
        yield
        return
    path = config.file(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(path.with_name(f".{path.name}"), blocking=False).acquire()
    except Timeout as error:
        raise InputError(
            f"{config.model_id} is already running with its checkpoint in {path.parent}: wait for "
            "it, or set another model_root."
        ) from error
    with lock:
        remove_unfinished(path)
        yield


def build(
    config: Config | Mapping[str, Any], test: bool = True
) -> tuple[BaseModel, dict[str, Any]]:
    """Build an experiment's untrained model and the loaders of its splits.

    Args:
        config: as for `run`.
        test: whether to open the test split.

    Returns:
        The model, and the loaders under "train", "valid" and "test"; None for a
        split that is missing or not opened.

    Raises:
        InputError: the config, the data or the machine does not allow the run.

    Example:
        >>> from fuxictr_miss.config import load_config
        >>> model, loaders = build(load_config("config", "DIN_MISS_demo"))
        >>> len(loaders["train"])  # batches of 128
        47
    """
    config = Config.of_experiment(config)
    check_device(config.gpu)
    torch.set_num_threads(config.num_threads)
    check_method_keys(config.params)
    model_class = get_model(config.model, config.model_zoo_path)
    _log_unread(config, model_class)
    built = processes.first(lambda: build_dataset(config))
    paths = dict(zip(("train", "valid", "test"), built, strict=True))
    log.info("Data: %s", os.path.abspath(config.train_data or config.data_root))
    adapted = adapt(model_class, _feature_map(config, paths), config.params)
    model = _model(config, model_class, adapted)
    _log_recipe(config.params)
    used_as_it_is = is_encoded(config)
    arrange = partial(adapted.pad, model_class=model_class) if adapted.traits.padding else None
    loaders: dict[str, Any] = dict.fromkeys(paths)
    for split, path in paths.items():
        if path is None or (split == "test" and not test):
            continue
        rows = config.batch_size
        if split != "train":
            rows = max(rows, _EVALUATION_BATCH.get(model.device.type, rows))
        loaders[split] = TensorDataLoader(
            adapted.feature_map,
            path,
            split=split,
            batch_size=rows,
            shuffle=config.shuffle,
            seed=config.seed,
            train_sample_rate=config.train_sample_rate,
            label_noise_rate=config.label_noise_rate,
            trim_history=adapted.traits.trim,
            memory_budget_gb=config.memory_budget_gb,
            device=model.device,
            arrange=arrange,
            mapped_file=str(config.file(f".{split}.columns")) if used_as_it_is else None,
        )
        if used_as_it_is:
            check_encoded(loaders[split].columns, adapted.feature_map, config.params, path)
        if split != "train":
            check_defined(model, loaders[split], config.metrics)
    with _as_input_error(config.model), torch.no_grad():
        model.eval().forward(next(loaders["train"].batches()))
    return model.train(), loaders


def _log_unread(config: Config, model_class: type[BaseModel]) -> None:
    """Log the keys that neither the class nor anything else reads."""
    arguments = _arguments(model_class)
    of_methods = ("ssl_", *(f"{name.lower()}_" for name in list_methods()))
    unread = config.unread_keys(arguments, of_methods)
    for key, meant in unread.items():
        if meant:
            log.warning("Key %r is ignored. Did you mean %r?", key, meant)
    if others := [key for key, meant in unread.items() if not meant]:
        log.info("%s does not read %s.", config.model, ", ".join(others))


def _arguments(model_class: type) -> set[str]:
    """The argument names of the constructors of a class and its parents."""
    return {
        name
        for each in model_class.__mro__
        if each is not object and "__init__" in vars(each)
        for name in inspect.signature(vars(each)["__init__"]).parameters
    }


def _feature_map(config: Config, paths: Mapping[str, str | None]) -> FeatureMap:
    """The feature map of the encoded data, whose splits are at these paths."""
    folder = encoded_folder(config)
    feature_map = FeatureMap(config.dataset_id, str(folder))
    feature_map.load(str(folder / FEATURE_MAP), config.params)
    if is_encoded(config):  # its files may be anywhere
        feature_map.files = {split: column_files(path) for split, path in paths.items() if path}
    return feature_map


def _model(config: Config, model_class: type[BaseModel], adapted: Adapted) -> BaseModel:
    """The untrained model, from the seed."""
    seed_everything(config.seed)
    kind = autocast(model_class, config.autocast)  # type: ignore[arg-type]
    with _as_input_error(config.model):
        model = kind(adapted.feature_map, **adapted.params)
    set_optimizer(model, config.optimizer)
    initialize_forgotten_tables(model, config.seed)
    tolerate_one_row(model)
    tolerate_few_histories(model)
    log.info("%s: %d parameters on %s", config.model_id, _size(model), model.device)
    return model


@contextmanager
def _as_input_error(name: str) -> Iterator[None]:
    """Turn an exception of a model's class, usually due to its keys, into an `InputError`.

    Raises:
        InputError: names the model, the error, and the line of the class that raised it.
    """
    try:
        yield
    except (InputError, OSError):  # OSError: a full disk is no fault of the class
        raise
    except Exception as error:  # a class may raise anything
        if processes.is_loss(error):
            raise
        raise InputError(
            f"{name} does not run with this config on this data: {error_summary(error)}. Check the "
            "keys of the model, and the embedding_dim of single features if any has its own."
        ) from error


def _log_recipe(params: Mapping[str, Any]) -> None:
    """Log which recipe a run uses, what it adds to the defaults, and what of it is overridden."""
    if params.get("ssl_recipe") is None:
        return
    recipe, defaults = read_recipe(params["ssl_recipe"]), method_defaults()
    prefixes = ("ssl_", f"{params['model'].rpartition('_')[2].lower()}_")
    own = [k for k in recipe if k.startswith(prefixes) and k != "ssl_recipe"]
    added = [k for k in own if params[k] == recipe[k] != defaults[k]]
    changed = [k for k in own if params[k] != recipe[k]]

    def listed(keys: list[str]) -> str:  # as a YAML file would have it
        return ", ".join(f"{k} {'null' if params[k] is None else params[k]}" for k in keys)

    says, instead = listed(added) or "the defaults", listed(changed)
    log.info("Recipe %s: %s%s.", recipe["ssl_recipe"], says, instead and f"; changed: {instead}")


def load_trained(config: Config | Mapping[str, Any]) -> BaseModel:
    """Load the model of a finished experiment with its best weights, in `eval()` mode.

    Args:
        config: as for `run`.

    Raises:
        InputError: there is no checkpoint, or it belongs to another model or other data.

    Example:
        >>> from fuxictr_miss.config import load_config
        >>> model = load_trained(load_config("config", "DIN_MISS_demo"))  # after `make demo`
        >>> type(model.to_backbone()).__name__
        'DIN'
    """
    config = Config.of_experiment(config)
    model, _ = build(config)
    path = Path(model.checkpoint)
    if not path.exists():
        raise InputError(f"{path} does not exist: train the model first with run_expid.py.")
    state = load(path, data_of(model))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise InputError(f"{path} is not a checkpoint of {config.model}: {reason}") from error
    return model.eval()


def check_device(gpu: int) -> None:
    """Refuse a GPU that this machine does not have.

    Raises:
        InputError: says how many there are.
    """
    count = torch.cuda.device_count()
    if gpu >= count:
        have = f"has {count} CUDA device(s)" if count else "has no CUDA device"
        raise InputError(f"GPU {gpu} does not exist: this machine {have}. --gpu -1 is the CPU.")
