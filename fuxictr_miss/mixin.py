"""Add a self-supervised method to a backbone: L = L_ll + α1 L_ssl + α2 L'_ssl (Eq. 17)."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from fuxictr.pytorch.models import BaseModel
from torch import Tensor

from fuxictr_miss import training
from fuxictr_miss.errors import InputError
from fuxictr_miss.fuxictr_fixes.zoo import Zoo, zoo_location
from fuxictr_miss.generated_classes import Generated
from fuxictr_miss.isolated_rng import isolated_rng
from fuxictr_miss.methods.base import SSLLosses, get_method
from fuxictr_miss.self_supervision import PART, SelfSupervision


class SSLMixin(BaseModel, metaclass=Generated):
    """The base class that `enhance` puts in front of a backbone; it is never used alone.

    The backbone is built first and with the same random state as without the mixin. The method's
    initial weights and random draws come from separate generators.
    """

    _ssl_backbone: ClassVar[type[BaseModel]]
    _ssl_method: ClassVar[str]

    def __init__(self, feature_map: Any, *args: Any, **params: Any) -> None:
        super().__init__(feature_map, *args, **params)
        self._self_supervision = SelfSupervision(
            self, self._ssl_backbone, self._ssl_method, args, params
        )

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        """Run the backbone; in training also compute the method's losses, for `add_loss`."""
        ssl = self._self_supervision
        if not (self.training and ssl.active and ssl.on):
            return super().forward(inputs)
        with ssl.scaled_label_gradient(self):
            return_dict = super().forward(inputs)
        if getattr(self, "_total_steps", 0) % ssl.settings.every == 0:  # FuxiCTR counts steps
            return_dict[PART] = ssl.losses(self, inputs)
        return return_dict

    def add_loss(self, return_dict: dict[str, Any], y_true: Any) -> Any:
        """Eq. 17; of a multi-task backbone's losses, the first gets the contrastive term."""
        ssl = self._self_supervision
        losses = return_dict.pop(PART, None)
        loss = super().add_loss(return_dict, y_true)
        if losses is None:
            ssl.last = None
            return loss
        term = ssl.weighted(losses) * ssl.settings.every  # the mean over steps is Eq. 17
        detached = {k: v.detach() for k, v in losses._asdict().items() if v is not None}
        ssl.last = SSLLosses(**detached)
        if isinstance(loss, list):
            return [loss[0] + term, *loss[1:]]
        return loss + term

    def fit(self, data_generator: Any, **kwargs: Any) -> None:
        """Train by the strategy in `ssl_training`; same arguments as FuxiCTR's `fit`."""
        training.fit(self, data_generator, **kwargs)

    def to_backbone(self) -> BaseModel:
        """A plain backbone with the trained weights, without the self-supervised part."""
        args, params = self._self_supervision.arguments
        with isolated_rng(self.device, 0):
            model = self._ssl_backbone(self.feature_map, *args, **params)
        own = self.state_dict()
        model.load_state_dict({k: v for k, v in own.items() if not k.startswith(f"{PART}.")})
        return model.train(self.training)


def backbone_of(model_class: type[BaseModel]) -> type[BaseModel]:
    """The backbone of an enhanced class; a plain class is returned as it is."""
    return model_class._ssl_backbone if issubclass(model_class, SSLMixin) else model_class


def enhance(backbone: type[BaseModel], method: str = "MISS") -> type[BaseModel]:
    """The class `<Backbone>_<METHOD>`: `backbone` plus a self-supervised method.

    Args:
        backbone: any subclass of FuxiCTR's `BaseModel`.
        method: one of `list_methods()`.

    Returns:
        A subclass of `backbone` that takes the same arguments plus the `ssl_` and method keys. The
        class and its instances can be pickled.

    Example:
        >>> import fuxictr_miss as fm
        >>> from model_zoo.DIN import DIN
        >>> fm.enhance(DIN).__name__
        'DIN_MISS'

    Raises:
        InputError: `backbone` is not a FuxiCTR model or already enhanced, or there is no such
            method.
    """
    if not (isinstance(backbone, type) and issubclass(backbone, BaseModel)):
        raise InputError(
            f"enhance() takes a class derived from FuxiCTR's BaseModel, got {backbone}."
        )
    if issubclass(backbone, SSLMixin):
        raise InputError(
            f"{backbone.__name__} is already enhanced: a model has one self-supervised method. "
            f"Enhance {backbone._ssl_backbone.__name__} instead."
        )
    get_method(method)
    return _enhanced(backbone, method)  # type: ignore[arg-type]


@functools.cache
def _enhanced(backbone: type[BaseModel], method: str) -> type[BaseModel]:
    place = zoo_location(backbone)
    body = {
        "_ssl_backbone": backbone,
        "_ssl_method": method,
        "_made_by": (_from_zoo, (*place, method)) if place else (enhance, (backbone, method)),
        "__doc__": f"{backbone.__name__} with {method}.",
    }
    return Generated(f"{backbone.__name__}_{method}", (SSLMixin, backbone), body)


def _from_zoo(root: str, name: str, method: str) -> type[BaseModel]:
    return enhance(Zoo(root).load(name), method)
