"""`card.md`: what an artefact is, how good it was, and how to call it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import onnxscript
from fuxictr.pytorch.models import BaseModel

from fuxictr_miss.config.recipes import with_recipe
from fuxictr_miss.outputs.run_files import METRICS, read_run_file, versions
from fuxictr_miss.self_supervision import self_supervision_of

_CARD = """# {model} on {dataset}

Trained as {trained}. This is the plain backbone, all that scoring needs.

| | |
|---|---|
{facts}

{metrics}

## Call it

On raw rows, from the command line or in Python (`pip install fuxictr_miss[serving]`; no PyTorch):

    fuxictr-miss score --model {folder} --input new.csv --output scores.parquet

```python
from fuxictr_miss.serving import Scorer

scorer = Scorer("{folder}")
scorer.score({row})  # {score}
```

`sample.json` has {shown} raw rows and their scores. On encoded rows, any ONNX runtime runs
`model.onnx`, and PyTorch `torch.export.load("model.pt2").module()(columns)`; `vocab.json` says how
a raw row is encoded. A history is cut to its newest `max_len` items; an id that training did not
know is encoded as `oov`.

## Inputs

| column | type | ids | encoded as | missing value |
|---|---|---|---|---|
{inputs}

Outputs, (B, 1) each: {outputs}.
"""


def card(
    model: BaseModel,
    vocabulary: Mapping[str, Any],
    sample: Mapping[str, Any],
    notes: Mapping[str, str],
    folder: Path,
) -> str:
    """The page.

    Args:
        model: as it was trained.
        vocabulary: the content of `vocab.json`.
        sample: the content of `sample.json`.
        notes: more facts.
        folder: where it will be.
    """
    data = vocabulary["data"]
    packages = {
        **versions(),
        "onnx": onnx.__version__,
        "onnxscript": onnxscript.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    facts = {
        "experiment": model.model_id,
        "data digest": f"`{data}`",
        **notes,
        "versions": ", ".join(f"{name} {version}" for name, version in packages.items()),
    }
    scores = sample["scores"]
    first = {k: v[0] for k, v in scores.items()} if isinstance(scores, dict) else scores[0]
    return _CARD.format(
        model=vocabulary["model"],
        dataset=vocabulary["dataset_id"],
        trained=_trained(model),
        facts="\n".join(f"| {name} | {value} |" for name, value in facts.items()),
        metrics=_metrics(_record(model, data)),
        folder=folder,
        row=json.dumps(sample["rows"][:1], ensure_ascii=False).replace("null", "None"),
        score=first,
        shown=len(sample["rows"]),
        inputs="\n".join(_input(each, vocabulary["vocabularies"]) for each in vocabulary["inputs"]),
        outputs=", ".join(vocabulary["outputs"]),
    )


def _trained(model: BaseModel) -> str:
    """Its class, with the recipe of its self-supervised method if it has one."""
    ssl = self_supervision_of(model)
    recipe = ssl and with_recipe(ssl.arguments[1]).get("ssl_recipe")
    return type(model).__name__ + (f" by `ssl_recipe: {recipe}`" if recipe else "")


def _record(model: BaseModel, data: str) -> dict[str, Any]:
    """What the run wrote beside its checkpoint, if it was on the same data."""
    record = read_run_file(Path(model.checkpoint).with_suffix(METRICS)) or {}
    return record if record.get("data") == data else {}


def _metrics(record: Mapping[str, Any]) -> str:
    lines = [
        f"| {split} | {name} | {value} |"
        for split, values in record.get("metrics", {}).items()
        for name, value in values.items()
    ]
    if not lines:
        return "Metrics: unknown; no `metrics.json` of this data lies beside the checkpoint."
    head = (
        f"Of the run with seed {record.get('seed')}:\n\n| split | metric | value |\n|---|---|---|"
    )
    return "\n".join([head, *lines])


def _input(each: Mapping[str, Any], vocabularies: Mapping[str, Any]) -> str:
    kind, encoded, ids = each["type"], "float32 (B,)", ""
    if kind != "numeric":
        ids = f"{len(vocabularies[each['vocabulary']]['ids']):,} of {each['vocabulary']}"
        encoded = "int64 (B,)"
    if kind == "sequence":
        kind = f"sequence joined by `{each['splitter']}`"
        encoded = f"int64 (B, {each['max_len']}), padding {each['padding']}"
    fill = "an error" if each["fill_na"] is None else f"`{json.dumps(each['fill_na'])}`"
    return f"| `{each.get('column', each['name'])}` | {kind} | {ids} | {encoded} | {fill} |"
