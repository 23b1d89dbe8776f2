"""What a self-supervised method adds to a model: its modules, sources and random generator."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss.config.recipes import with_recipe
from fuxictr_miss.config.settings import SSLSettings, keys_of, read_settings
from fuxictr_miss.data.encoded import unknown_id
from fuxictr_miss.distributed import processes
from fuxictr_miss.distributed.sharded_tables import is_plain_table
from fuxictr_miss.embeddings import BehaviorSource, FieldSource
from fuxictr_miss.errors import InputError, unknown
from fuxictr_miss.isolated_rng import isolated_rng
from fuxictr_miss.methods.base import SSLLosses, get_method, list_methods
from fuxictr_miss.sequence_groups import behavior_groups, check_names

_USER_COLUMNS = ("user_id", "userid", "user")  # names of the user in FuxiCTR's data sets
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
        InputError: a key is wrong, or the data has nothing that the method could learn from.
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
        self.arguments = (args, params)
        params = with_recipe(params)
        check_method_keys(params)
        self.settings = read_settings(SSLSettings, "ssl_", params)
        self.active = True  # whether the loss includes the contrastive terms
        self.reads_fields = False  # whether the method needs no history
        self.warm = False  # whether the tables hold the vectors of an earlier training
        self.watched = False  # whether a tracker shows the similarity of the negatives
        self.last: SSLLosses | None = None  # of the last step, for the log
        self.sources: list[BehaviorSource | FieldSource] = []  # one per behavior, or one
        self.methods = nn.ModuleList()  # one per source
        seed = int(params.get("seed") or 0)
        self.generator = torch.Generator(device=model.device).manual_seed(seed)
        self.user = _user_column(self.settings.user, model.feature_map)
        self.unknown_user = -1  # the id of users out of the vocabulary
        if self.user is not None:
            self.unknown_user = unknown_id(model.feature_map.features[self.user])
        if not self.on:
            return
        kind = get_method(method)
        settings = read_settings(kind.Settings, f"{method.lower()}_", params)
        self.reads_fields = getattr(kind, "reads", "behavior") == "fields"
        if self.reads_fields:
            self._check_fields(method)
            self.sources = [FieldSource(model)]
        else:
            groups = self._behaviors(model, backbone, params)
            self.sources = [BehaviorSource(model, group) for group in groups]
        with isolated_rng(model.device, seed):
            for source in self.sources:
                width = len(source.features), source.dim
                ssl = self.settings.of_width(source.dim)
                module = kind(ssl, settings, *width, self.generator)
                if hasattr(module, "open_tables"):
                    features = model.feature_map.features
                    module.open_tables([features[n]["vocab_size"] for n in source.features])
                self.methods.append(module.to(model.device))
        model.optimizer.param_groups[0]["params"] += self.methods.parameters()

    def _check_fields(self, method: str) -> None:
        """Refuse a key that only makes sense for histories."""
        if self.settings.behaviors:
            raise InputError(
                f"{method} reads all features of the model and no history by itself, so "
                "ssl_sequences would do nothing: set it to null."
            )

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
                "it in ssl_sequences. "
                f"Without a history there are {_without_history()}."
            )
        return groups

    @property
    def on(self) -> bool:
        """Whether there are contrastive losses at all."""
        return any(self.settings.alpha)

    def losses(self, model: BaseModel, inputs: dict[str, Tensor]) -> SSLLosses:
        """The method's losses for a batch, each the mean over the behaviors, if it has several.

        They are computed in float32 even if the model runs in bfloat16: cosines divided by a
        temperature of 0.1 need more than its 8 bits.

        Args:
            model: the model that this object belongs to.
            inputs: the batch, with the behaviors' id columns (B, L) and the user's (B,).

        Returns:
            Scalars.
        """
        users = None
        if self.user is not None and not self.reads_fields:
            users = inputs[self.user].to(model.device).long()
            share = processes.share()
            start = share.own.start if share else 0
            nobody = -1 - torch.arange(start, start + len(users), device=users.device)
            users = users.where(users != self.unknown_user, nobody)
        with torch.autocast(model.device.type, enabled=False):
            each = [
                method(source.read(model, inputs, users, self.watched))
                for source, method in zip(self.sources, self.methods, strict=True)
            ]
        values = zip(*(losses[:3] for losses in each), strict=True)
        ssl, feature, similarity = (torch.stack(of_behaviors).mean() for of_behaviors in values)
        others = [o for o in (losses.negative_similarity for losses in each) if o is not None]
        negative = torch.stack(others).mean() if others else None
        return SSLLosses(ssl, feature, similarity, negative)

    def begin_epoch(self) -> None:
        """Tell the methods that want to know."""
        for method in self.methods:
            if hasattr(method, "begin_epoch"):
                method.begin_epoch()  # type: ignore[operator]

    def weighted(self, losses: SSLLosses) -> Tensor:
        """α1 L_ssl + α2 L'_ssl."""
        first, second = self.settings.alpha
        return first * losses.ssl + second * losses.feature

    @contextmanager
    def scaled_label_gradient(self, model: BaseModel) -> Iterator[None]:
        """Let a share of the gradient of what the backbone looks up reach the behaviors' tables.

        Of a projection only the weights get a share: the table before it is scaled by itself.
        """
        share = self.settings.label_gradient
        sources = self.sources if share < 1 else []
        tables = [table for source in sources for table in source.modules(model)]
        scaled = partial(_output_with_scaled_gradient, share=share)
        hooks = [table.register_forward_hook(scaled) for table in dict.fromkeys(tables)]
        for first, *rest in (steps for source in sources for steps in source.projections(model)):
            unscaled = partial(_input_with_scaled_gradient, share=1 / share if share else 0)
            hooks.append(first.register_forward_pre_hook(unscaled))
            hooks.append([first, *rest][-1].register_forward_hook(scaled))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def table_parameters(self, model: BaseModel) -> list[nn.Parameter]:
        """The trainable parameters of the behaviors' tables, each once."""
        own = (p for source in self.sources for p in source.parameters(model))
        return list(dict.fromkeys(own))

    def trained(self, model: BaseModel) -> list[nn.Parameter]:
        """What the contrastive losses train: the behaviors' tables and the method's parameters."""
        return [*self.table_parameters(model), *self.methods.parameters()]

    def plain_tables(self, model: BaseModel) -> list[tuple[list[nn.Embedding], list[str]]]:
        """The tables of the behaviors that are trainable `nn.Embedding`s, each once.

        Returns:
            For each table, its parts side by side (one, but for FFM's kind), and its features.
        """
        found: dict[int, tuple[list[nn.Embedding], list[str]]] = {}
        for source in self.sources:
            for name in source.id_features:
                modules = source.parts(model, name)
                parts = [m for m in modules if is_plain_table(m)]
                if len(parts) == len(modules) and all(p.weight.requires_grad for p in parts):
                    found.setdefault(id(parts[0]), (parts, []))[1].append(name)
        return list(found.values())

    def not_in(self, tables: list[tuple[list[nn.Embedding], list[str]]]) -> list[str]:
        """The features that none of these tables embeds."""
        named = {name for _, names in tables for name in names}
        return [n for source in self.sources for n in source.id_features if n not in named]


def _with_scaled_gradient(values: Tensor, share: float) -> Tensor:
    """The same values; `share` of the gradient."""
    constant = values.detach()
    return constant if share == 0 else constant + share * (values - constant)


def _output_with_scaled_gradient(_: Any, inputs: Any, output: Tensor, share: float) -> Tensor:
    return _with_scaled_gradient(output, share)


def _input_with_scaled_gradient(_: Any, inputs: tuple[Tensor], share: float) -> Tensor:
    return _with_scaled_gradient(inputs[0], share)


def _user_column(name: str | None, feature_map: Any) -> str | None:
    """The feature that tells users apart: the given one, the group of gAUC, or one of its names.

    Raises:
        InputError: the given one is no id.
    """
    features = feature_map.features
    ids = [each for each, spec in features.items() if spec["type"] in ("categorical", "meta")]
    if name is not None and name not in ids:
        raise unknown("ssl_user", name, ids)
    usual = (name, getattr(feature_map, "group_id", None), *_USER_COLUMNS)
    return next((each for each in usual if each in ids), None)


def _without_history() -> str:
    """The methods that need no history, as endings of names."""
    names = [n for n in list_methods() if getattr(get_method(n), "reads", "") == "fields"]
    return " and ".join(f"_{name}" for name in names)


def self_supervision_of(model: BaseModel) -> SelfSupervision | None:
    """The `SelfSupervision` of an enhanced model; None for a plain backbone."""
    return getattr(model, PART, None)


def contrast_of(model: BaseModel) -> SelfSupervision | None:
    """The same, but None also for an enhanced model without contrastive losses."""
    ssl = self_supervision_of(model)
    return ssl if ssl is not None and ssl.on else None


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
