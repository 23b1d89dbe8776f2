"""A model as `model.pt2`, by torch.export, and as `model.onnx`."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from fuxictr.pytorch.models import BaseModel
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass
from onnxscript import opset18 as op
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fuxictr_miss.errors import InputError
from fuxictr_miss.fuxictr_fixes.trial_step import error_summary

_ROWS = Dim("rows", max=2**31)
_INT8 = 127
_LARGEST = 2**31 - 2**20  # bytes of an ONNX file, less its graph


def predictions(model: BaseModel, columns: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The outputs of a model that are predictions, (B,) each; of several tasks one each."""
    names = ("y_pred", *(f"{label}_pred" for label in model.feature_map.labels))
    with _as_input_error(f"{type(model).__name__} fails on rows of its data"):
        outputs = model(dict(columns))
    return {name: outputs[name].flatten().numpy() for name in outputs if name in names}


def traced(model: nn.Module, batch: Mapping[str, Tensor], trim: bool) -> ExportedProgram:
    """The program of a model in eval() for any number of rows.

    Args:
        model: a plain backbone on the CPU, called with a dict of columns.
        batch: {column: (B,) or (B, L)}, B > 1.
        trim: whether histories may be shorter than L; where the model's program depends on L, they
            may not.

    Raises:
        InputError: torch.export cannot take the model.
    """
    length = Dim.AUTO if trim else Dim.STATIC
    shapes = {n: {0: _ROWS, 1: length} if x.ndim == 2 else {0: _ROWS} for n, x in batch.items()}
    with _as_input_error(f"torch.export cannot take {type(model).__name__}"):
        program = torch.export.export(model, (dict(batch),), dynamic_shapes=(shapes,))
    program.example_inputs = None  # or these rows, and paths on this machine, would be in the file
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def lengths_are_fixed(program: ExportedProgram) -> bool:
    """Whether a program takes histories of one length only."""
    shapes = [
        node.meta["val"].shape
        for node in program.graph.find_nodes(op="placeholder")
        if node.name in program.graph_signature.user_inputs
    ]
    return all(isinstance(length, int) for shape in shapes for length in shape[1:])


def onnx_model(model: BaseModel, batch: Mapping[str, Tensor]) -> Any:
    """A model as an `onnx_ir.Model`; its inputs are the columns that the predictions depend on.

    Args:
        model: a plain backbone on the CPU, in eval().
        batch: {column: (B,) or (B, L)}, B > 1; L is fixed.

    Raises:
        InputError: an operation has no ONNX form.
    """
    names = list(predictions(model, batch))
    program = traced(_Predictions(model, names).eval(), batch, trim=False)
    with _as_input_error(f"{type(model).__name__} has no ONNX form"):
        # its optimizer takes x + 1e-12 for x
        exported = torch.onnx.export(
            program, (), verbose=False, optimize=False, custom_translation_table=_TRANSLATIONS
        )
    assert exported is not None
    graph: Any = exported.model.graph
    for values, their_names in ((graph.inputs, batch), (graph.outputs, names)):
        for value, name in zip(values, their_names, strict=True):
            value.name = name
    RemoveUnusedNodesPass()(exported.model)
    ClearMetadataAndDocStringPass()(exported.model)
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)
    return exported.model


class _Predictions(nn.Module):
    """A model without its other outputs, which need not be tensors."""

    def __init__(self, model: BaseModel, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, columns: dict[str, Tensor]) -> tuple[Tensor, ...]:
        outputs = self.model(columns)
        return tuple(outputs[name] for name in self.names)


def _masked_select(values: Any, mask: Any) -> Any:
    """FuxiCTR's inner products select pairs of fields so; torch 2.13 has no ONNX form for it."""
    flat: Any = op.Constant(value_ints=[-1])
    everywhere: Any = op.Expand(mask, op.Shape(values))
    return op.Compress(op.Reshape(values, flat), op.Reshape(everywhere, flat))


_TRANSLATIONS: dict[Any, Any] = {torch.ops.aten.masked_select.default: _masked_select}


def quantize_tables(model: Any) -> None:
    """Hold each embedding table as int8 with one scale a row: Gather, Cast, Mul.

    Args:
        model: of `onnx_model`; it is changed.
    """
    graph = model.graph
    for table in list(graph.initializers.values()):
        gathers = [use.node for use in table.uses()]
        if not _is_table(table, gathers):
            continue
        weight = torch.from_numpy(table.const_value.numpy())
        scale = weight.abs().amax(dim=1, keepdim=True) / _INT8
        rounded = (weight / scale.where(scale > 0, 1)).round().to(torch.int8)
        parts = []
        for name, part in (("int8", rounded), ("scale", scale)):
            value = ir.val(f"{table.name}.{name}", const_value=ir.tensor(part.numpy()))
            graph.register_initializer(value)
            parts.append(value)
        for gather in gathers:
            rows = [ir.node("Gather", [part, gather.inputs[1]]) for part in parts]
            cast = ir.node("Cast", [rows[0].outputs[0]], {"to": ir.DataType.FLOAT})
            product = ir.node("Mul", [cast.outputs[0], rows[1].outputs[0]])
            found = gather.outputs[0]
            product.outputs[0].shape, product.outputs[0].type = found.shape, found.type
            graph.insert_before(gather, [*rows, cast, product])
            found.replace_all_uses_with(product.outputs[0])
            graph.remove(gather, safe=True)
        del graph.initializers[table.name]


def save_onnx(model: Any, path: Path) -> None:
    """Write one file.

    Raises:
        InputError: it would be too large for one.
    """
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    if size > _LARGEST:
        raise InputError(
            f"The tables take {size / 1e9:.1f} GB, and an ONNX file holds 2 GB: use --quantize, or "
            "train with a smaller embedding_dim or a higher min_categr_count."
        )
    ir.save(model, path)


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write one file; on a full disk, torch would end the process."""
    content = io.BytesIO()
    torch.export.save(program, content)
    path.write_bytes(content.getbuffer())


def _is_table(value: Any, users: list[Any]) -> bool:
    shape = value.const_value.shape
    return (
        len(shape) == 2
        and shape[1] > 1  # a scale a row would take more than the row
        and bool(users)
        and all(n.op_type == "Gather" and n.inputs[0] is value for n in users)
        and all("axis" not in n.attributes or not n.attributes["axis"].as_int() for n in users)
    )


@contextmanager
def _as_input_error(what: str) -> Iterator[None]:
    """Make one sentence of what torch or a class raises, and silence what torch logs on the way."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # there are many kinds
        cause = error
        while isinstance(cause.__cause__, Exception):  # the first one says what it is
            cause = cause.__cause__
        says = f"{what} ({error_summary(cause)}): serve it by --backbone and FuxiCTR."
        raise InputError(says) from error
    finally:
        logging.disable(disabled)
