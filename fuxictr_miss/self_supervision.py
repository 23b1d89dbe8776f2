"""What a self-supervised method adds to a model: its modules, behaviors and random generator."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss.config.settings import SSLSettings, keys_of, read_settings
from fuxictr_miss.embeddings import BehaviorSource
from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.isolated_rng import isolated_rng
from fuxictr_miss.methods.base import SSLLosses, get_method, list_methods
from fuxictr_miss.sequence_groups import behavior_groups, check_names

PART = "_self_supervision"  # the one attribute, and the prefix in state_dict, that we add


class SelfSupervision(nn.Module):
    """Everything that a method adds to a model, in one attribute to avoid name clashes.

    It is empty if both weights of Eq. 17 are 0.

    Args:
        model: the model, its backbone already built.
        backbone: the class that was enhanced.
        method: the method's name.
        args: the model's positional arguments after the feature map.
        params: its keyword arguments.

    Raises:
        InputError: a key is wrong, or the data has no behavior sequence to learn from.
    """

    def __init__(
        self,
        model: BaseModel,
        backbone: type[BaseModel],
        method: str,
        args: tuple[Any, ...],
        params: dict[str, Any],
    ) -> None:
        super().__init__()
        check_method_keys(params)
        self.arguments = (args, params)
        self.settings = read_settings(SSLSettings, "ssl_", params)
        self.active = True  # whether the loss includes the contrastive terms
        self.last: SSLLosses | None = None  # of the last step, for the log
        self.sources: list[BehaviorSource] = []  # one per behavior
        self.methods = nn.ModuleList()  # one per behavior
        seed = int(params.get("seed") or 0)
        self.generator = torch.Generator(device=model.device).manual_seed(seed)
        if not self.on:
            return
        kind = get_method(method)
        settings = read_settings(kind.Settings, f"{method.lower()}_", params)
        groups = self._behaviors(model, backbone, params)
        self.sources = [BehaviorSource(model, group) for group in groups]
        with isolated_rng(model.device, seed):
            for source in self.sources:
                width = len(source.sequences), source.dim
                module = kind(self.settings, settings, *width, self.generator)
                self.methods.append(module.to(model.device))
        model.optimizer.param_groups[0]["params"] += self.methods.parameters()

    def _behaviors(
        self, model: BaseModel, backbone: type[BaseModel], params: dict[str, Any]
    ) -> list[list[str]]:
        if self.settings.behaviors:
            check_names((n for group in self.settings.behaviors for n in group), model.feature_map)
            return self.settings.behaviors
        groups = behavior_groups(backbone, model.feature_map, params)
        if not groups:
            raise InputError(
                f"{type(model).__name__}: the feature map has no behavior sequence to learn from. "
                "Add a feature of type 'sequence' (the behavior history) to feature_cols, or name "
                "it in ssl_sequences."
            )
        return groups

    @property
    def on(self) -> bool:
        """Whether there are contrastive losses at all."""
        return any(self.settings.alpha)

    def losses(self, model: BaseModel, inputs: dict[str, Tensor]) -> SSLLosses:
        """The method's losses for a batch, each the mean over the behaviors.

        They are computed in float32 even if the model runs in bfloat16: cosines divided by a
        temperature of 0.1 need more than its 8 bits.

        Args:
            model: the model that this object belongs to.
            inputs: the batch, with the behaviors' id columns (B, L).

        Returns:
            Scalars.
        """
        with torch.autocast(model.device.type, enabled=False):
            each = [
                method(source.read(model, inputs))
                for source, method in zip(self.sources, self.methods, strict=True)
            ]
        return SSLLosses(*(torch.stack(part).mean() for part in zip(*each, strict=True)))

    def weighted(self, losses: SSLLosses) -> Tensor:
        """α1 L_ssl + α2 L'_ssl."""
        first, second = self.settings.alpha
        return first * losses.ssl + second * losses.feature

    def trained(self, model: BaseModel) -> list[nn.Parameter]:
        """What the contrastive losses train: the behaviors' tables and the method's parameters."""
        own = [p for source in self.sources for p in source.parameters(model)]
        return list(dict.fromkeys([*own, *self.methods.parameters()]))


def self_supervision_of(model: BaseModel) -> SelfSupervision | None:
    """The `SelfSupervision` of an enhanced model; None for a plain backbone."""
    return getattr(model, PART, None)


def method_defaults() -> dict[str, Any]:
    """Every `ssl_` and method key with its default."""
    return {
        prefix + name: value
        for prefix, kind in _kinds_of_settings().items()
        for name, value in dataclasses.asdict(kind()).items()
    }


def check_method_keys(params: Mapping[str, Any]) -> None:
    """Refuse unknown `ssl_` and method keys, and invalid values of known ones.

    Raises:
        InputError: names the key and the closest valid one, or the allowed values.
    """
    kinds = _kinds_of_settings()
    valid = [key for prefix, kind in kinds.items() for key in keys_of(kind, prefix).model_fields]
    for key in params:
        if key.startswith(tuple(kinds)) and key not in valid:
            raise unknown("key", key, valid)
    for prefix, kind in kinds.items():
        read_settings(kind, prefix, params)


def _kinds_of_settings() -> dict[str, Any]:
    """The settings classes by the prefix of their keys."""
    methods = {f"{name.lower()}_": get_method(name).Settings for name in list_methods()}
    return {"ssl_": SSLSettings, **methods}
