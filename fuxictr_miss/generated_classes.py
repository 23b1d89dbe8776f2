"""Classes that are made while a program runs, and that pickle all the same."""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any


class Generated(type):
    """Metaclass: a class pickles as the call that made it, (function, arguments) in `_made_by`.

    Another process then makes the class again. A class without `_made_by` of its own pickles by its
    name, as any class does.
    """

    _made_by: tuple[Callable[..., type], tuple[Any, ...]]


def _reduced(cls: Generated) -> Any:
    return vars(cls).get("_made_by", cls.__qualname__)


copyreg.pickle(Generated, _reduced)
