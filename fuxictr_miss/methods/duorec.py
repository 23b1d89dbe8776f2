"""DuoRec: contrastive learning for representation degeneration (arXiv 2110.05730)."""

from __future__ import annotations

import dataclasses

from fuxictr_miss.behavior import Behavior
from fuxictr_miss.config.values import Rate, Switch
from fuxictr_miss.losses import nt_xent
from fuxictr_miss.methods.base import SSLLosses, register_method
from fuxictr_miss.methods.encoders import similarities
from fuxictr_miss.methods.same_target import SameTargetMethod
from fuxictr_miss.methods.transformer import TransformerSettings


@dataclasses.dataclass(frozen=True)
class DuoRecSettings(TransformerSettings):
    """The keys of DuoRec: `duorec_` and the field's name."""

    supervised: Switch = True  # whether view 2 is another history with the same target
    dropout: Rate = 0.1  # makes the views; published: 0.5 at a width of 64


@register_method("DuoRec")
class DuoRec(SameTargetMethod):
    """Dropout and the target make the views; a causal Transformer, NT-Xent.

    A random behavior of a history is the target, those before it are the input. View 1 is the
    Transformer's state of the input, under dropout. View 2 is that of another input with the same
    target (supervised augmentation), under a dropout of its own; where the training split has no
    other, it is the same input again (unsupervised augmentation). Negatives are the 2(B - 1) views
    of other rows but those of the same user; as in the code, a second view of theirs may stand
    before the same target or be this user's own input.

    This is the paper's L_Reg, `us_x` in its authors' code, which can also add the two augmentations
    as losses of their own. The code trains on all prefixes of all histories; here a step draws one
    prefix of each. States are compared by their cosine over `ssl_temperature`, there by the inner
    product. Beside it the paper predicts the next item; here that place is the label loss's.

    Before the first step, the training histories are indexed by item, in less than a second for
    20,000 users. A step costs two passes of the Transformer, as one of CL4SRec does.
    """

    Settings = DuoRecSettings
    settings: DuoRecSettings

    @property
    def prepares(self) -> bool:
        """Whether the training histories are indexed by their targets: if view 2 is another one."""
        return self.settings.supervised

    def forward(self, behavior: Behavior) -> SSLLosses:
        """Draw a target of each history, encode two inputs before it, and contrast."""
        first, second, _, exists = self.pairs(behavior)
        loss = nt_xent(first, second, self.temperature, behavior.group, exists)
        similar = similarities(first, second, exists, behavior.group, behavior.watched)
        return SSLLosses(loss, loss.new_zeros(()), *similar)
