"""Your own log: CSV -> splits -> a config of your own -> DIN with and without MISS.

    python examples/own_log.py [FOLDER]

Everything goes into FOLDER (default: a temporary one), even the log, which is synthetic. For a log
of yours, change the names of the columns in step 1; steps 2 and 3 stay.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from made_up_log import write_log

# What FuxiCTR calls dataset_config.yaml. A history shares the table of its ids.
DATASET = """
mylog:
  data_root: encoded/
  data_format: parquet
  train_data: splits/train.parquet
  valid_data: splits/valid.parquet
  test_data: splits/test.parquet
  feature_cols:
    - {name: [user_id, item_id, cate_id], active: True, dtype: str, type: categorical}
    - {name: item_history, active: True, dtype: str, type: sequence, splitter: ^, max_len: 50,
       share_embedding: item_id}
    - {name: cate_history, active: True, dtype: str, type: sequence, splitter: ^, max_len: 50,
       share_embedding: cate_id}
  label_col: {name: label, dtype: float}
"""
# And model_config.yaml. All keys: docs/configuration.md.
MODEL = """
Base:
  {model_root: checkpoints/, metrics: [AUC, logloss], optimizer: adam, loss: binary_crossentropy,
   learning_rate: 5.0e-3, batch_size: 128, embedding_dim: 10, epochs: 40, early_stop_patience: 8,
   seed: 1, verbose: 0}

DIN_mylog: &DIN
  model: DIN
  dataset_id: mylog
  din_use_softmax: True              # without it, training on so few rows is unstable
  dnn_hidden_units: [40, 40, 40]
  attention_hidden_units: [40]
  din_target_field: [[item_id, cate_id]]
  din_sequence_field: [[item_history, cate_history]]

DIN_MISS_mylog:
  <<: *DIN
  model: DIN_MISS                    # all that is needed; the log names the recipe
  ssl_pretrain_epochs: 10            # enough on a log as small as this
"""


def fuxictr_miss(command: str, folder: Path) -> None:
    print(f"$ fuxictr-miss {command}", flush=True)
    subprocess.run([sys.executable, "-m", "fuxictr_miss", *command.split()], cwd=folder, check=True)


def main(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"{folder} is not empty: name a new folder.")
    (folder / "config").mkdir(parents=True)
    write_log(folder / "log.csv")
    columns = "--user user --item item --time time --attributes cate_id"
    fuxictr_miss(f"preprocess interactions --input log.csv {columns} --output splits", folder)  # 1
    (folder / "config" / "dataset_config.yaml").write_text(DATASET)  # 2
    (folder / "config" / "model_config.yaml").write_text(MODEL)
    for expid in ("DIN_mylog", "DIN_MISS_mylog"):  # 3
        fuxictr_miss(f"train --config config --expid {expid}", folder)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else temporary))
