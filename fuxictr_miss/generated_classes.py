"""Make classes that are generated at run time picklable."""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any


class Generated(type):
    """Metaclass whose classes pickle as the call that made them, `_made_by`: (function, arguments).

    Unpickling calls the function again. A class without its own `_made_by` pickles by name, as
    usual.
    """

    _made_by: tuple[Callable[..., type], tuple[Any, ...]]


def _reduced(cls: Generated) -> Any:
    return vars(cls).get("_made_by", cls.__qualname__)


copyreg.pickle(Generated, _reduced)
