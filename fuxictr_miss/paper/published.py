"""The paper's results (arXiv 2111.15068, Tables II to X), for comparison with ours."""

from __future__ import annotations

from fuxictr_miss.preprocess import alipay, amazon

DATASETS = {"amazoncds": "Amazon-Cds", "amazonbooks": "Amazon-Books", "alipay": "Alipay"}

# Table II, against which preprocessing checks its splits
STATISTICS = {
    **{name: raw.paper for name, raw in amazon.DATASETS.items() if raw.paper},
    "alipay": alipay.PAPER,
}

# Tables III to X: AUC and logloss per data set, in the order of DATASETS; IX, X have only the AUC
_TABLES = """
LR                  0.6918 0.6308  0.7350 0.5968  0.7848 0.5578
FM                  0.7585 0.5851  0.7653 0.5745  0.8470 0.4859
DeepFM              0.8039 0.5369  0.8056 0.5310  0.8718 0.4464
IPNN                0.8053 0.5364  0.8051 0.5308  0.8823 0.4299
DCN                 0.7994 0.5412  0.7982 0.5390  0.8700 0.4494
DCN-M               0.8050 0.5363  0.8070 0.5293  0.8757 0.4403
xDeepFM             0.8034 0.5370  0.8028 0.5336  0.8777 0.4382
DIN                 0.8055 0.5357  0.8074 0.5289  0.9098 0.3734
DIEN                0.7928 0.5479  0.8016 0.5352  0.9004 0.3950
SIM(soft)           0.7977 0.5437  0.7951 0.5430  0.9101 0.3729
DMR                 0.8115 0.5289  0.8082 0.5282  0.9148 0.3642
AutoInt+            0.8008 0.5398  0.8045 0.5317  0.8705 0.4479
FiGNN               0.8012 0.5391  0.8006 0.5366  0.8716 0.4467
MISS                0.8867 0.4357  0.9180 0.3730  0.9327 0.3295
DIN-MISS            0.8867 0.4357  0.9180 0.3730  0.9327 0.3295
IPNN-MISS           0.8858 0.4368  0.9146 0.3778  0.9004 0.4006
FiGNN-MISS          0.8828 0.4410  0.9170 0.3746  0.8947 0.4160
IPNN-Rule           0.8101 0.5303  0.8497 0.4788  0.8818 0.4321
IPNN-IRSSL          0.8050 0.5371  0.8065 0.5295  0.8821 0.4314
IPNN-S3Rec          0.8065 0.5343  0.8073 0.5286  0.8826 0.4299
IPNN-CL4SRec        0.8372 0.5057  0.8759 0.4553  0.8865 0.4250
DIN-Rule            0.8068 0.5349  0.8397 0.4925  0.9113 0.3719
DIN-IRSSL           0.8058 0.5352  0.8064 0.5295  0.9098 0.3744
DIN-S3Rec           0.8073 0.5348  0.8076 0.5286  0.9100 0.3728
DIN-CL4SRec         0.8364 0.5082  0.8756 0.4563  0.9141 0.3686
IPNN-MISS/F         0.8741 0.4506  0.9122 0.3880  0.8973 0.4044
IPNN-MISS/F/U       0.8620 0.4649  0.8946 0.4116  0.8937 0.4120
IPNN-MISS/F/L       0.8549 0.4769  0.8931 0.4209  0.8885 0.4214
IPNN-MISS/F/U/L     0.8480 0.4829  0.8739 0.4625  0.8871 0.4220
IPNN-MISS/M/F/U/L   0.8393 0.4953  0.8449 0.4933  0.8838 0.4265
DIN-MISS/F          0.8813 0.4419  0.9136 0.3823  0.9300 0.3357
DIN-MISS/F/U        0.8636 0.4642  0.8978 0.4100  0.9260 0.3446
DIN-MISS/F/L        0.8568 0.4807  0.8937 0.4188  0.9236 0.3499
DIN-MISS/F/U/L      0.8514 0.4869  0.8717 0.4642  0.9222 0.3509
DIN-MISS/M/F/U/L    0.8429 0.4978  0.8425 0.4948  0.9188 0.3579
MISS-SA             0.8042 0.5385  0.8128 0.5225  0.9092 0.3758
MISS-LSTM           0.8106 0.5299  0.8172 0.5178  0.9096 0.3753
MISS-CNN            0.8867 0.4357  0.9180 0.3730  0.9327 0.3295
MISS-Joint          0.8867 0.4357  0.9180 0.3730  0.9327 0.3295
MISS-Pre            0.8848 0.4381  0.9170 0.3746  0.9313 0.3328
DIN, SR 80%         0.7913 -       0.7932 -       -      -
DIN-MISS, SR 80%    0.8779 -       0.9107 -       -      -
DIN, SR 90%         0.7988 -       0.7998 -       -      -
DIN-MISS, SR 90%    0.8814 -       0.9152 -       -      -
DIN, SR 100%        0.8055 -       0.8074 -       -      -
DIN-MISS, SR 100%   0.8867 -       0.9180 -       -      -
DIN, NR 0%          0.8055 -       0.8074 -       -      -
DIN-MISS, NR 0%     0.8867 -       0.9180 -       -      -
DIN, NR 10%         0.7768 -       0.7775 -       -      -
DIN-MISS, NR 10%    0.8652 -       0.8877 -       -      -
DIN, NR 20%         0.7413 -       0.7384 -       -      -
DIN-MISS, NR 20%    0.8331 -       0.8678 -       -      -
"""


def metrics(dataset: str, row: str) -> dict[str, float]:
    """`test_AUC` and `test_logloss` of a row of Tables III to X, as far as the paper has them."""
    return _ROWS.get((dataset, row), {})


def _read() -> dict[tuple[str, str], dict[str, float]]:
    names = ("test_AUC", "test_logloss")
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for line in _TABLES.strip().splitlines():
        row, *values = line.rsplit(maxsplit=2 * len(DATASETS))
        for i, dataset in enumerate(DATASETS):
            both = zip(names, values[2 * i : 2 * i + 2], strict=True)
            rows[dataset, row.strip()] = {name: float(x) for name, x in both if x != "-"}
    return rows


_ROWS = _read()
