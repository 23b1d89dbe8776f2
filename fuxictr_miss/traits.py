"""What a backbone class expects of its data."""

from __future__ import annotations

import dataclasses

from fuxictr_miss.fuxictr_fixes import zoo_classes


@dataclasses.dataclass(frozen=True)
class Traits:
    """How a backbone reads behavior sequences; a class declares it in its attribute `traits`.

    Args:
        pooled: it takes one vector per sequence (a pooling `feature_encoder`), not per behavior.
        trim: its batches may be trimmed to their longest history, as it does not use positions.
        padding: the side, "pre" or "post", on which it expects padding; None if it uses a mask.
        needs: keys that the config must set because the class's defaults do not work; for the
            error message.
    """

    pooled: bool = True
    trim: bool = False
    padding: str | None = None
    needs: str = ""


def possible_traits(backbone: type) -> list[Traits]:
    """The traits that a class declares; without a declaration, those that it may have.

    A class derived from a known one has its traits, but its histories are not trimmed.
    """
    declared: Traits | None = getattr(backbone, "traits", None)
    if declared is not None:
        own = "traits" in vars(backbone)
        return [declared if own else dataclasses.replace(declared, trim=False)]
    name = backbone.__name__
    padding = [zoo_classes.PADDING.get(each.__name__) for each in backbone.__mro__]
    known = Traits(
        trim=zoo_classes.is_of_fuxictr(backbone) and name in zoo_classes.TRIM,
        padding=next(filter(None, padding), None),
        needs=zoo_classes.NEEDS.get(name, ""),
    )
    return [dataclasses.replace(known, pooled=pooled) for pooled in (True, False)]
