"""The input shapes that counts are given for: one sample, and every open dimension that matters with its
value.
"""

from __future__ import annotations

import networkx as nx

from pcmc.compiler.frontend import CleanModel
from pcmc.compiler.graph import operations
from pcmc.errors import ModelError
from pcmc.runtime.shapes import concrete_shapes


def sample_shapes(clean: CleanModel, graph: nx.MultiDiGraph) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs for a batch of one.

    An open leading dimension is the batch. Other open dimensions matter where the number of vectors of a
    matrix depends on
    them: the schedule needs that number.

    Raises:
        ModelError: an open dimension matters and has no value; the message says how to give it.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    open_dims: list[str] = []
    for name in graph.graph["inputs"]:
        tensor = graph.graph["tensors"].get(name)
        if tensor is None or tensor.shape is None:
            raise ModelError(
                f"{clean.origin}: input '{name}' has no shape: give it with --shape {name}=1,3,224,224 "
                "(for example)"
            )
        shapes[name] = tuple(dim if isinstance(dim, int) else 1 for dim in tensor.shape)
        if any(isinstance(dim, str) for dim in tensor.shape[1:]):
            example = ",".join(
                str(dim) if isinstance(dim, int) else ("1" if axis == 0 else "N")
                for axis, dim in enumerate(tensor.shape)
            )
            named = ", ".join(
                f"{axis} ('{dim}')" for axis, dim in enumerate(tensor.shape) if axis and isinstance(dim, str)
            )
            open_dims.append(
                f"input '{name}' has open dimensions {named}: give them with --shape {name}={example}"
            )
    if open_dims:
        _ask_where_it_matters(clean, graph, shapes, open_dims)
    return shapes


def _ask_where_it_matters(
    clean: CleanModel, graph: nx.MultiDiGraph, shapes: dict[str, tuple[int, ...]], open_dims: list[str]
) -> None:
    """Compare the vectors of every matrix for two sizes of the open dimensions; raise where they differ or
    can't be found.
    """
    reads = [op.inputs[0] for op in operations(graph) if op.matrix is not None]
    tensors = graph.graph["tensors"]
    larger = {
        name: tuple(
            size if isinstance(dim, int) or axis == 0 else 32
            for axis, (size, dim) in enumerate(zip(shape, tensors[name].shape, strict=True))
        )
        for name, shape in shapes.items()
    }
    small, large = (concrete_shapes(clean.model, sizes, reads) for sizes in (shapes, larger))
    if any(name not in small or small[name] != large.get(name) for name in reads):
        raise ModelError(f"{clean.origin}: {open_dims[0]}")
