from pathlib import Path

import fuxictr_miss

MODEL_ZOO = Path(__file__).resolve().parents[2]


def with_miss(name):
    """Multi-interest self-supervised learning (MISS) on a model of this zoo.

    Args:
        name: `<Model>_MISS`. The model's class is found by its name in any folder of the zoo, and
            is not changed. Beside its own arguments the new class takes those that begin with
            `ssl_` and `miss_`.

    Returns:
        A subclass of the model's class. Its `fit` trains by the strategy in `ssl_training`, and its
        `to_backbone` gives the plain model back, with the trained weights.
    """
    return fuxictr_miss.get_model(name, zoo=MODEL_ZOO)


MISS = with_miss("MISS")  # the paper's MISS is DIN_MISS
