"""The compiler: an ONNX model -> a Program on a chip. `compile` is the table of contents; each stage is
one file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcmc.accel.chip import ChipSpec
    from pcmc.runtime.program import Program


def compile(
    model: Any,
    chip: str | os.PathLike[str] | ChipSpec = "nature2018",
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    freeze: Mapping[str, Any] | None = None,
    digital: Sequence[str] = (),
    check: bool = False,
) -> Program:
    """Compile an ONNX model onto a chip.

    Args:
        model: a path, the bytes of a file, or an onnx.ModelProto.
        chip: name of a shipped chip, path of a chip file, or a ChipSpec.
        shapes: sizes of inputs with open dimensions, by input name; a leading batch dimension stays open all
            the same.
        freeze: values of inputs that become constants, by input name.
        digital: layers that stay off the tiles and run in onnxruntime, each named by an operation, one that
            its matrix would absorb, or an initializer of its weights; what is refused may be named too.
        check: run the checks of every stage's result (slow; for tests and for the curious).

    Raises:
        ModelError: the model can't be read, has what pcmc does not map, or no layer of a name in `digital`.
        ChipError: the chip file is wrong, or the board too small.
    """
    import numpy as np

    from pcmc.accel.chip import ChipSpec, load_chip
    from pcmc.compiler.emit import emit
    from pcmc.compiler.frontend import load
    from pcmc.compiler.graph import check_opgraph, operations
    from pcmc.compiler.lowering import lower
    from pcmc.compiler.packing import check_packing, pack
    from pcmc.compiler.partition import check_partition, partition
    from pcmc.compiler.placement import place
    from pcmc.compiler.routing import check_routing, route
    from pcmc.compiler.schedule import check_schedule, schedule
    from pcmc.compiler.sizes import sample_shapes
    from pcmc.compiler.tilegraph import build_tilegraph

    spec = chip if isinstance(chip, ChipSpec) else load_chip(chip)
    kept = (digital,) if isinstance(digital, str) else tuple(digital)
    clean = load(model, {name: tuple(sizes) for name, sizes in (shapes or {}).items()}, freeze)
    graph = lower(clean.graph, clean.computed_from, clean.origin, kept)
    matrices = {op.matrix.name: op.matrix for op in operations(graph) if op.matrix is not None}
    sizes = sample_shapes(clean, graph)
    blocks = partition(list(matrices.values()), spec.tile)
    packed = pack(blocks, [matrix.groups for matrix in matrices.values()], spec.tile)
    placed = dict(zip(matrices, place(packed, spec), strict=True))
    steps, regions = schedule(graph, placed)
    chips = max(int(table["chip"].max()) for table in placed.values()) + 1
    tilegraph = build_tilegraph(steps, placed, graph.graph["outputs"])
    flows, flow_tensors = route(tilegraph, spec, chips)
    if check:
        check_opgraph(graph)
        for matrix, table in zip(matrices.values(), blocks, strict=True):
            check_partition(table, matrix, spec.tile)
        check_packing(list(placed.values()), spec.tile)
        check_schedule(steps)
        check_routing(tilegraph, flows)
    options = {
        "shapes": {name: list(sizes) for name, sizes in (shapes or {}).items()},
        "freeze": {name: np.asarray(value).tolist() for name, value in (freeze or {}).items()},
        "digital": list(kept),
    }
    return emit(clean, graph, matrices, placed, steps, regions, flows, flow_tensors, spec, sizes, options)
