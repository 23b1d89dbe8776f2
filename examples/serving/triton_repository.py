"""Lay an exported model out as a model repository of NVIDIA Triton.

    python examples/serving/triton_repository.py exported repository

writes repository/<model>/config.pbtxt and repository/<model>/1/model.onnx.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from fuxictr_miss.errors import InputError, run_command
from fuxictr_miss.serving import Scorer

CONFIG = """name: "{name}"
backend: "onnxruntime"
max_batch_size: 4096
dynamic_batching {{ max_queue_delay_microseconds: 1000 }}
input [
{inputs}
]
output [
{outputs}
]
"""


def main() -> None:
    if len(sys.argv) != 3:
        raise InputError("usage: python triton_repository.py EXPORTED REPOSITORY")
    artefact, repository = map(Path, sys.argv[1:])
    print(write(artefact, repository))


def write(artefact: Path, repository: Path) -> Path:
    """The folder of the model in the repository."""
    scorer = Scorer(artefact)  # it checks the files
    content = json.loads((artefact / "vocab.json").read_text(encoding="utf-8"))
    inputs = [_input(each) for each in content["inputs"] if each["name"] in scorer.inputs]
    outputs = [_tensor(name, "TYPE_FP32", "dims: [ 1 ]") for name in scorer.outputs]
    config = CONFIG.format(
        name=content["model"], inputs=",\n".join(inputs), outputs=",\n".join(outputs)
    )
    folder = repository / content["model"]
    if folder.exists():
        raise InputError(f"{folder} exists: name another repository, or remove it.")
    (folder / "1").mkdir(parents=True)
    shutil.copy(artefact / "model.onnx", folder / "1" / "model.onnx")
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    return folder


def _input(spec: dict) -> str:
    """A history is (B, max_len); of (B,) Triton makes (B, 1) for the client."""
    kind = "TYPE_FP32" if spec["type"] == "numeric" else "TYPE_INT64"
    if spec["type"] == "sequence":
        return _tensor(spec["name"], kind, f"dims: [ {spec['max_len']} ]")
    return _tensor(spec["name"], kind, "dims: [ 1 ] reshape: { shape: [ ] }")


def _tensor(name: str, kind: str, dims: str) -> str:
    return f'  {{ name: "{name}" data_type: {kind} {dims} }}'


if __name__ == "__main__":
    run_command(main)
