"""Bring Gemm into the one form that the lowering knows: `Y = A B + c` with a constant B and a constant row c.

Everything else that Gemm can say (transA, a constant A, a C that is computed or that differs from row to row)
becomes Transpose, MatMul, Mul and Add beside it. The original graph, which the Program keeps, is not touched.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def split_gemms(model: Any, computed_from: dict[str, tuple[str, ...]]) -> None:
    """Rewrite, in place, each Gemm that has a constant matrix but not in the simple form.

    Args:
        model: an onnx.ModelProto that the caller owns, constants folded.
        computed_from: gets an entry for each constant that is made here.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[Any] = []
    for node in model.graph.node:
        if node.op_type == "Gemm" and node.domain in ("", "ai.onnx"):
            nodes.extend(_split(node, model, constants, computed_from))
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _split(
    node: Any, model: Any, constants: dict[str, Any], computed_from: dict[str, tuple[str, ...]]
) -> list[Any]:
    from onnx import helper, numpy_helper

    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    a, b = node.input[:2]
    c = node.input[2] if len(node.input) > 2 else ""
    if (a in constants) == (b in constants):
        return [node]
    row_constant = not c or (c in constants and (len(constants[c].dims) < 2 or constants[c].dims[0] == 1))
    if b in constants and not attributes.get("transA") and row_constant:
        return [node]
    made: list[Any] = []
    operands = []
    for name, flag in ((a, "transA"), (b, "transB")):
        if name in constants:
            array = numpy_helper.to_array(constants[name])
            array = array.T if attributes.get(flag) else array
            scaled = (array.astype(np.float64) * attributes.get("alpha", 1.0)).astype(array.dtype)
            operand = f"{node.name}/{flag[-1]}"
            model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(scaled), operand))
            computed_from[operand] = computed_from.get(name, (name,))
        elif attributes.get(flag):
            operand = f"{node.name}/{flag[-1]}"
            made.append(
                helper.make_node("Transpose", [name], [operand], name=f"{operand}/Transpose", perm=[1, 0])
            )
        else:
            operand = name
        operands.append(operand)
    product = f"{node.name}/product" if c else node.output[0]
    made.append(helper.make_node("MatMul", operands, [product], name=node.name))
    if c:
        made.extend(_addend(node, c, float(attributes.get("beta", 1.0)), product, model))
    return made


def _addend(node: Any, c: str, beta: float, product: str, model: Any) -> list[Any]:
    from onnx import helper, numpy_helper

    made: list[Any] = []
    if beta != 1.0:
        constants = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        element = next(
            constants[name] for name in node.input if name in constants
        )  # all inputs are of one type
        dtype = helper.tensor_dtype_to_np_dtype(element)
        factor, scaled = f"{node.name}/beta", f"{node.name}/scaled"
        model.graph.initializer.append(numpy_helper.from_array(np.array(beta, dtype), factor))
        made.append(helper.make_node("Mul", [c, factor], [scaled], name=f"{node.name}/Mul"))
        c = scaled
    made.append(helper.make_node("Add", [product, c], [node.output[0]], name=f"{node.name}/Add"))
    return made
