"""What a self-supervised method is, and the registry of their names.

A method is an `nn.Module` with a dataclass `Settings`. Its config keys are the method's name in
lower case, "_", and the name of a field of `Settings`, whose annotation says what the key takes. It
is built once for each behavior of a model, as

    Method(ssl: SSLSettings, settings: Method.Settings, num_sequences, dim, generator)

and called in training as `method(behavior: Behavior) -> SSLLosses`. A method that needs no history
sets the class attribute `reads = "fields"`. It is built once for a model, with the number of fields
in the place of `num_sequences`, and called as `method(fields: Fields) -> SSLLosses`; a pretraining
then draws training rows instead of histories. All random draws of a method come from `generator`,
so that the backbone sees the same random numbers with and without it: use
`fuxictr_miss.methods.draws.drop`, not PyTorch's dropout, which draws from the global generator.

These attributes are optional:

    open_tables(sizes)       called once after the method is built, with the number of ids of each
                             of the J sequences, if it has parameters of that size
    prepare(columns)         called once before the first step with the training split: the J
                             sequences by name, (rows, L) ids each, or the F fields
    prepares                 whether `prepare` is called; True if not given
    begin_epoch()            called before each epoch in which the method's loss is trained
    behaviors_of_a_pair      how many behaviors a history needs to have a pair; 2 if not given
    closed_form(history, vocab_size, dim)
                             the (V, K) table of a feature from its (users, L) ids; then there is no
                             contrastive training, whatever the strategy (`PPMI`)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn

from fuxictr_miss.config.settings import read_settings
from fuxictr_miss.errors import InputError, unknown

ClassT = TypeVar("ClassT", bound=type)

_methods: dict[str, Any] = {}


class SSLLosses(NamedTuple):
    """What a method returns for a batch: scalar tensors.

    Example:
        >>> import torch
        >>> from fuxictr_miss.methods.base import SSLLosses
        >>> loss = torch.tensor(0.7)
        >>> SSLLosses(ssl=loss, feature=loss.new_zeros(()), similarity=torch.tensor(0.2)).ssl
        tensor(0.7000)
    """

    ssl: Tensor  # L_ssl, weighted by α1 in Eq. 17
    feature: Tensor  # L'_ssl, weighted by α2; zero for a method without a feature level
    similarity: Tensor  # mean cosine similarity of the positive pairs (Fig. 5), detached
    negative_similarity: Tensor | None = None  # and of the negatives, if `behavior.watched`


def register_method(name: str) -> Callable[[ClassT], ClassT]:
    """Class decorator: add a self-supervised method; models then have variants `<model>_<name>`.

    Args:
        name: letters and digits. In lower case it is the prefix of the method's config keys.

    Example:
        >>> import dataclasses, torch
        >>> import fuxictr_miss as fm
        >>> from fuxictr_miss.methods.base import SSLLosses
        >>> @fm.register_method("Centre")
        ... class Centre(torch.nn.Module):
        ...     Settings = dataclasses.make_dataclass("Settings", [])
        ...
        ...     def __init__(self, ssl, settings, num_sequences, dim, generator):
        ...         super().__init__()
        ...
        ...     def forward(self, behavior):
        ...         loss = behavior.tensor.square().mean()
        ...         return SSLLosses(loss, loss.new_zeros(()), loss.new_zeros(()))
        >>> fm.get_model("DIN_Centre").__name__
        'DIN_Centre'

    Raises:
        InputError: the class lacks what a method needs, no model's name could end in `name`, or
            another method has that name or its keys.
    """

    def register(method: ClassT) -> ClassT:
        if not name.isalnum() or not name.isascii() or name.lower() == "ssl":
            raise InputError(
                f"A method cannot be called {name!r}: its name follows the _ of a model's name and "
                "precedes the _ of its keys, so it must be letters and digits only, and not ssl."
            )
        is_module = isinstance(method, type) and issubclass(method, nn.Module)
        if not is_module or getattr(method, "forward", None) is nn.Module.forward:
            raise InputError(
                f"Method {name} must be a class derived from torch.nn.Module with a "
                "forward(behavior)."
            )
        try:
            read_settings(getattr(method, "Settings", dict), f"{name.lower()}_", {})
        except Exception as error:  # no dataclass, a missing default, a type that nothing can check
            raise InputError(
                f"Method {name} needs a dataclass Settings with a field and a default for each of "
                f"its keys; it may be empty ({' '.join(str(error).split())})."
            ) from error
        for other, known in _methods.items():
            if other.lower() == name.lower():
                refuse_another(f"method {other}", known, method)
        _methods[name] = method
        return method

    return register


def list_methods() -> list[str]:
    """Names of all self-supervised methods, sorted.

    Example:
        >>> import fuxictr_miss as fm
        >>> fm.list_methods()  # doctest: +ELLIPSIS
        ['CL4CTR', 'CL4SRec', 'DuoRec', 'ICSRec', 'IRSSL', 'Item2Vec', ..., 'PPMI', 'Rule', 'S3Rec']
    """
    return sorted(_methods)


def get_method(name: str) -> Any:
    """The class of a self-supervised method.

    Args:
        name: one of `list_methods()`.

    Raises:
        InputError: there is no method `name`; the message lists the valid names.

    Example:
        >>> from fuxictr_miss.methods.base import get_method
        >>> get_method("MISS").Settings().max_width  # M, the key miss_max_width
        3
    """
    if name not in _methods:
        raise unknown("method", name, _methods)
    return _methods[name]


def refuse_another(what: str, known: type | None, new: type) -> None:
    """Refuse a second class of one name; the code that defined the first may run again.

    Raises:
        InputError: `new` is defined elsewhere than `known`.
    """
    place = (new.__module__, new.__qualname__)
    if known is not None and (known.__module__, known.__qualname__) != place:
        raise InputError(
            f"There is a {what} already, {known.__module__}.{known.__qualname__}. Register yours "
            "under another name."
        )
