"""Run FuxiCTR's own configs, plain and with `_MISS`, and print docs/fuxictr_configs.md.

    python benchmarks/upstream_configs.py ../FuxiCTR > docs/fuxictr_configs.md

Every expid of its `model_zoo` that is called a test, and its demo. Each runs for one epoch in a
copy of the checkout, by `fuxictr-miss train`, from a working folder elsewhere, with nothing changed
in the config but one word.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fuxictr_miss.commands import train
from fuxictr_miss.errors import InputError, run_command

HEAD = """# FuxiCTR's own configs

<!-- Written by benchmarks/upstream_configs.py, from FuxiCTR's repository at 0245987. -->

`--config` takes any config folder of FuxiCTR 2.3. The table is of its own ones: every `X_test`
expid of its `model_zoo`, and its demo, run for one epoch as they are, from another working folder:

```
fuxictr-miss train --config ../FuxiCTR/model_zoo/DIN/config --zoo ../FuxiCTR --expid DIN_test
```

`_MISS` is that word behind the name of the model and nothing else: in the YAML, or by
`--set model=DIN_MISS`. It learns from behavior sequences; most of this data has none.

| config | expid | runs | runs with `_MISS` |
|---|---|---|---|
"""
TAIL = """
Example 1 of the demo only encodes; here the expid of example 4 runs on its data set. Example 7 has
preprocess functions of its own, in a class that FuxiCTR's script hands over. Here a key names it,
as `file.py:Class` or `package.module.Class`, in the data set's entry or by `--set`:

```
feature_processor: example7_DeepFM_with_customized_preprocess.py:CustomizedFeatureProcessor
```
"""
DEMO = "demo/config/example"
PROCESSOR = "demo/example7_DeepFM_with_customized_preprocess.py:CustomizedFeatureProcessor"
SHORT = {  # of our sentences
    "no behavior sequence": "no sequence in the data",
    "'tfrecord'": "upstream's model needs TensorFlow",
    "Unknown dataset_id": "broken upstream: its dataset_config has no {name}",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, help="of FuxiCTR's repository")
    parser.add_argument("--only", default="", help="expids that contain this text")
    arguments = parser.parse_args()
    print(HEAD, end="")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        checkout, start = Path(folder) / "FuxiCTR", Path(folder) / "elsewhere"
        copied(arguments.checkout, checkout)
        start.mkdir()
        before = content(checkout)
        for config, expid in expids(checkout):
            if arguments.only in expid:
                place = config.relative_to(checkout).as_posix()
                cells = (tried(config, expid, checkout, start, word) for word in ("", "_MISS"))
                print(f"| {place} | {expid} | {' | '.join(cells)} |", flush=True)
        changed = [name for name, data in before.items() if content(checkout).get(name) != data]
        if changed:
            raise InputError(f"These files of the checkout changed: {', '.join(changed)}.")
    print(TAIL, end="")


def copied(source: Path, target: Path) -> None:
    for name in ("model_zoo", "demo", "data"):
        if not (source / name).is_dir():
            raise InputError(f"{source} has no {name}/: name a checkout of FuxiCTR's repository.")
        shutil.copytree(source / name, target / name)
    first = target / f"{DEMO}1_config" / "model_config.yaml"
    if first.parent.exists():
        text = (target / f"{DEMO}4_config" / first.name).read_text(encoding="utf-8")
        first.write_text(text.replace("tiny_example4", "tiny_example1"), encoding="utf-8")


def content(checkout: Path) -> dict[str, bytes]:
    """What must stay as it is; the configs get their word."""
    files = (each for each in checkout.rglob("*") if each.is_file() and each.suffix != ".pyc")
    return {str(each): each.read_bytes() for each in files if each.name != "model_config.yaml"}


def expids(checkout: Path) -> Iterator[tuple[Path, str]]:
    for file in sorted(checkout.rglob("model_config.yaml")):
        for expid in re.findall(r"^(\w+):", file.read_text(encoding="utf-8"), re.MULTILINE):
            if re.search(r"_test", expid):
                yield file.parent, expid


def tried(config: Path, expid: str, checkout: Path, start: Path, word: str) -> str:
    """Run an expid with a word behind the name of its model; what happened."""
    file = config / "model_config.yaml"
    before = file.read_text(encoding="utf-8")
    file.write_text(re.sub(r"^( +model: *['\"]?\w+)", rf"\1{word}", before, flags=re.M), "utf-8")
    changes = ["epochs=1", "verbose=0"]
    if word:
        changes.append("ssl_pretrain_epochs=1")
    if f"{DEMO}7" in config.as_posix():
        changes.append(f"feature_processor={checkout / PROCESSOR}")
    command = ["fuxictr-miss", "--config", str(config), "--expid", expid, "--zoo", str(checkout)]
    for change in changes:
        command += ["--set", change]
    arguments, sys.argv = sys.argv, command
    try:
        os.chdir(start)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            train.main()
        return "yes"
    except InputError as error:
        return f"no: {shortened(str(error), checkout)}"
    finally:
        sys.argv = arguments
        file.write_text(before, encoding="utf-8")


def shortened(sentence: str, checkout: Path) -> str:
    for part, short in SHORT.items():
        if part in sentence:
            return short.format(name=sentence.partition(": '")[2].partition("'")[0])
    return sentence.replace(f"{checkout}/", "").replace("|", "\\|")


if __name__ == "__main__":
    run_command(main)
