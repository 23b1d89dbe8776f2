"""How a self-supervised method joins a backbone: L = L_ll + α1 L_ssl + α2 L'_ssl (Eq. 17)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from fuxictr.pytorch.layers import FeatureEmbeddingDict
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from fuxictr_miss.behavior import BehaviorSource
from fuxictr_miss.errors import InputError
from fuxictr_miss.random_numbers import own_random_numbers
from fuxictr_miss.registry import SSLLosses, get_method, list_methods
from fuxictr_miss.settings import SSLSettings, check_keys, keys_of, read_settings

_SSL_MODULE = "ssl_method"  # the one attribute, and the prefix in state_dict, that we add


class Enhanced(BaseModel):
    """The mixin. `enhance` puts it in front of a backbone; it is never used alone.

    The backbone is built first and from the same random numbers as without the mixin; the method's
    modules and draws come from generators of their own.
    """

    backbone: ClassVar[type[BaseModel]]
    method: ClassVar[str]

    def __init__(self, feature_map: Any, *args: Any, **params: Any) -> None:
        super().__init__(feature_map, *args, **params)
        self._arguments = (args, params)
        check_method_keys(params)
        kind = get_method(self.method)
        self.ssl = read_settings(SSLSettings, "ssl_", params)
        settings = read_settings(kind.Settings, f"{self.method.lower()}_", params)
        self.behavior_source = BehaviorSource(self, self.ssl.sequences)
        self.ssl_active = True
        self.last_ssl: SSLLosses | None = None  # of the last step if it had any, for the log
        seed = int(params.get("seed") or 0)
        self.ssl_generator = torch.Generator(device=self.device).manual_seed(seed)
        with own_random_numbers(self.device, seed):
            module = kind(
                self.ssl,
                settings,
                len(self.behavior_source.sequences),
                self.behavior_source.dim,
                self.ssl_generator,
            )
        self.add_module(_SSL_MODULE, module.to(self.device))
        if any(self.ssl.alpha):
            self.optimizer.param_groups[0]["params"] += module.parameters()

    def ssl_losses(self, inputs: dict[str, Tensor], beside: bool = False) -> SSLLosses:
        """The method's losses for a batch that has at least the sequence columns.

        Args:
            inputs: (B, L) id columns, and what else the batch has.
            beside: whether the backbone's loss sends the tables a gradient in the same step, as in
                `BehaviorSource.read`.
        """
        return getattr(self, _SSL_MODULE)(self.behavior_source.read(self, inputs, beside))

    def weighted_ssl(self, losses: SSLLosses) -> Tensor:
        """α1 L_ssl + α2 L'_ssl."""
        first, second = self.ssl.alpha
        return first * losses.ssl + second * losses.feature

    def ssl_parameters(self) -> list[nn.Parameter]:
        """What the contrastive losses train: the method's parameters and the sequences' tables."""
        tables = self.behavior_source.tables(self)
        own = [p for module in tables for p in module.parameters()]
        own += getattr(self, _SSL_MODULE).parameters()
        return [p for p in dict.fromkeys(own) if p.requires_grad]

    def scale_embedding_rate(self) -> list[nn.Parameter]:
        """Train all embedding tables at `ssl_embedding_lr_scale` times their learning rate.

        Returns:
            The tables that now stand still, which they do at 0; they cost nothing any more.
        """
        scale = self.ssl.embedding_lr_scale
        if scale == 1:
            return []
        tables = {
            id(p)
            for module in self.modules()
            if isinstance(module, FeatureEmbeddingDict)
            for p in module.parameters()
        }
        frozen = []
        for group in list(self.optimizer.param_groups):
            moved = [p for p in group["params"] if id(p) in tables and p.requires_grad]
            stay = {id(p) for p in group["params"]} - {id(p) for p in moved}
            group["params"] = [p for p in group["params"] if id(p) in stay]
            if scale == 0:
                frozen += [p.requires_grad_(False) for p in moved]
            elif moved:
                self.optimizer.add_param_group(
                    {**group, "params": moved, "lr": group["lr"] * scale}
                )
        return frozen

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        """The backbone's forward; in training the method's losses ride along for `add_loss`."""
        return_dict = super().forward(inputs)
        turn = getattr(self, "_total_steps", 0) % self.ssl.every == 0  # FuxiCTR's count of steps
        if self.training and self.ssl_active and turn and any(self.ssl.alpha):
            return_dict[_SSL_MODULE] = self.ssl_losses(inputs, beside=True)
        return return_dict

    def add_loss(self, return_dict: dict[str, Any], y_true: Any) -> Any:
        """Eq. 17; a multi-task backbone's list of losses gets the contrastive term in its first."""
        losses = return_dict.pop(_SSL_MODULE, None)
        loss = super().add_loss(return_dict, y_true)
        if losses is None:
            self.last_ssl = None
            return loss
        term = self.weighted_ssl(losses) * self.ssl.every  # so that the mean step is Eq. 17
        self.last_ssl = SSLLosses(*(each.detach() for each in losses))
        if isinstance(loss, list):
            return [loss[0] + term, *loss[1:]]
        return loss + term

    def fit(self, data_generator: Any, **kwargs: Any) -> None:
        """Train by the strategy in `ssl_training`; arguments as FuxiCTR's `fit`."""
        from fuxictr_miss.training import fit

        fit(self, data_generator, **kwargs)

    def to_backbone(self) -> BaseModel:
        """A plain backbone with the trained weights and nothing self-supervised."""
        args, params = self._arguments
        with own_random_numbers(self.device, 0):
            model = self.backbone(self.feature_map, *args, **params)
        own = self.state_dict()
        model.load_state_dict({k: v for k, v in own.items() if not k.startswith(f"{_SSL_MODULE}.")})
        return model.train(self.training)


def enhance(backbone: type[BaseModel], method: str = "MISS") -> type[BaseModel]:
    """The class `<Backbone>_<METHOD>`: `backbone` plus a self-supervised method.

    Works on any subclass of FuxiCTR's `BaseModel`; the result takes the same arguments, and the
    `ssl_` and method keys on top.

    Example:
        >>> import fuxictr_miss as fm
        >>> from model_zoo.DIN import DIN
        >>> fm.enhance(DIN).__name__
        'DIN_MISS'

    Raises:
        InputError: `backbone` is no FuxiCTR model, or the method does not exist.
    """
    if not (isinstance(backbone, type) and issubclass(backbone, BaseModel)):
        raise InputError(
            f"enhance() takes a class derived from FuxiCTR's BaseModel, got {backbone}."
        )
    get_method(method)
    name = f"{backbone.__name__}_{method}"
    body = {
        "backbone": backbone,
        "method": method,
        "__doc__": f"{backbone.__name__} with {method}.",
    }
    return type(name, (Enhanced, backbone), body)


def method_defaults() -> dict[str, Any]:
    """Every `ssl_` and method key with its default, as `config` must list them."""
    import dataclasses

    defaults: dict[str, Any] = {}
    kinds: list[tuple[type, str]] = [(SSLSettings, "ssl_")]
    kinds += [(get_method(name).Settings, f"{name.lower()}_") for name in list_methods()]
    for kind, prefix in kinds:
        values = dataclasses.asdict(kind())
        defaults.update({prefix + name: value for name, value in values.items()})
    return defaults


def check_method_keys(params: dict[str, Any]) -> None:
    """Refuse keys that look like ours and are not, and values that no method can use.

    Raises:
        InputError: names the key and the closest valid one, or what its value must be.
    """
    valid = keys_of(SSLSettings, "ssl_")
    prefixes = ["ssl_"]
    for name in list_methods():
        prefixes.append(f"{name.lower()}_")
        valid += keys_of(get_method(name).Settings, prefixes[-1])
    check_keys(params, prefixes, valid)
    for name in list_methods():
        read_settings(get_method(name).Settings, f"{name.lower()}_", params)
