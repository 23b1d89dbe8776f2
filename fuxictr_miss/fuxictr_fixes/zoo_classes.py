"""What the classes of FuxiCTR's zoo take for granted and a trial step cannot find.

Fault: `model_zoo/*/src/*.py` of FuxiCTR 2.3.10 read fixed positions of a history, or lack a default
that works, and do not say so.
Obsolete when the classes ask their masks, and their defaults run.
"""

from __future__ import annotations

# They read no fixed position, so their histories may be cut to a batch's longest.
TRIM = frozenset(
    """
    AFM AFN AOANet APG_DCNv2 APG_DeepFM AutoInt CCPM DCN DCNv2 DESTINE DIEN DIN DLRM DNN DSSM
    DeepCrossing DeepFM DeepIM DualMLP EDCN EulerNet FFM FFMv2 FGCNN FLEN FM FiBiNET FiGNN FinalMLP
    FinalNet FmFM FwFM GDCN GDCNP HFM HOFM InterHAt LR LorentzFM MMoE MaskNet NFM ONN ONNv2 PLE PNN
    PPNet QNN QNN_alpha SAM ShareBottom WideDeep WuKong xDeepFM
    """.split()  # noqa: SIM905
)

# The side on which they expect the padding of a history.
PADDING = {
    "DIEN": "post",  # packs its sequences
    "DMR": "pre",  # the last position is the newest behavior
    "TransAct": "pre",  # reads the last first_k_cols positions
}

_HYPERNET = (
    "hypernet_config, as {hidden_units: [64, 32], hidden_activations: relu, dropout_rates: 0}, and "
    "a rank_k of at most its narrowest layer"
)
_TASKS = "several labels in label_col, and their number in num_tasks"

# Keys without which they do not run, for the error message.
NEEDS = {
    "APG_DCNv2": f"parallel_dnn_hidden_units, {_HYPERNET}",
    "APG_DeepFM": _HYPERNET,
    "DCNv2": "parallel_dnn_hidden_units, as [40, 40, 40]",
    "DMIN": "an embedding_dim that num_heads divides",
    "DSSM": "features of source user and of source item (feature_specs)",
    "FLEN": "features of source user, item and context (feature_specs)",
    "GDCN": "dnn_hidden_units, as [40, 40, 40]",
    "GDCNP": "dnn_hidden_units, as [40, 40, 40]",
    "MMoE": _TASKS,
    "PLE": _TASKS,
    "PPNet": "gate_priors: fields without a history, as [user_id]",
    "ShareBottom": _TASKS,
}


def is_of_fuxictr(kind: type) -> bool:
    """Whether a class is from a checkout of FuxiCTR: model_zoo/DIN/src/DIN.py."""
    return ".src." in kind.__module__
