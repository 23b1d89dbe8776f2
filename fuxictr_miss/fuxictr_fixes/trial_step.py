"""Find out by a training step on synthetic rows whether a class runs with its config.

Fault: no class of FuxiCTR's `model_zoo/*/src/*.py` says whether it takes sequences pooled or not,
or which keys it cannot do without; a wrong config ends in a traceback from inside its `forward`.
Obsolete when the classes declare what they take.
"""

from __future__ import annotations

import copy
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fuxictr
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.models import BaseModel
from torch import Tensor

from fuxictr_miss.errors import InputError
from fuxictr_miss.fuxictr_fixes.root_logger import without_fuxictr_info
from fuxictr_miss.isolated_rng import isolated_rng

_ROWS, _IDS = 4, 4


def trial_step(
    backbone: type[BaseModel], feature_map: FeatureMap, params: Mapping[str, Any]
) -> str | None:
    """Build the class with tiny tables and train one step on the CPU.

    Returns:
        The error in one line; None if the class runs.

    Raises:
        InputError: raised by the class itself.
    """
    tiny = copy.deepcopy(feature_map)
    for spec in tiny.features.values():
        spec.pop("pretrained_emb", None)
        if "vocab_size" in spec:
            spec["vocab_size"] = _IDS
    with isolated_rng(torch.device("cpu"), 0), without_fuxictr_info(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are shown when the real model is built
        try:
            model = backbone(tiny, **{**params, "gpu": -1})
            model._max_gradient_norm = 10.0  # set by fit() before it calls train_step()
            model.train().train_step(_rows(tiny))
            with torch.no_grad():
                model.eval().forward(_rows(tiny))
        except InputError:
            raise
        except Exception as error:  # a foreign class may raise anything
            return error_summary(error)
    return None


def _rows(feature_map: FeatureMap) -> dict[str, Tensor]:
    """A random batch that fits the feature map."""
    lengths = {"sequence": "max_len", "embedding": "pretrain_dim"}
    batch: dict[str, Tensor] = {}
    for name, spec in feature_map.features.items():
        kind = spec["type"]
        shape = (_ROWS, spec[lengths[kind]]) if kind in lengths else (_ROWS,)
        if kind in ("categorical", "sequence"):
            batch[name] = torch.randint(1, _IDS, shape)
        elif kind != "meta":
            batch[name] = torch.rand(shape)
    for label in feature_map.labels:
        batch[label] = (torch.arange(_ROWS) % 2).float()
    return batch


def error_summary(error: Exception) -> str:
    """The error in one line, with the last line of code outside the libraries in its traceback."""
    text = str(error).strip().splitlines()
    libraries = (torch.__path__[0], fuxictr.__path__[0])
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames[1:] if not each.filename.startswith(libraries)] or frames
    place = f"{Path(own[-1].filename).name}, line {own[-1].lineno}"
    return f"{type(error).__name__}{': ' if text else ''}{text[0] if text else ''} in {place}"
