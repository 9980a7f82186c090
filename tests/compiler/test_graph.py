"""OpGraph: tensors are edges, order follows the model, and a broken graph is found."""

import json

import builders
import networkx as nx
import pytest
from builders import node, weights
from onnx import TensorProto

from pcmc.compiler.frontend import load
from pcmc.compiler.graph import (
    Op,
    Tensor,
    build_opgraph,
    check_opgraph,
    consumers,
    operations,
    opgraph_as_dict,
    opgraph_as_dot,
    replace_ops,
    walk,
)
from pcmc.compiler.lowering import lower


def op(name, inputs, outputs):
    return Op(
        name, "Add", "", tuple(inputs), tuple(outputs), node("Add", list(inputs), list(outputs), name=name)
    )


def graph_of(*ops, inputs=("x",), outputs=("y",), constants=None):
    tensors = {"x": Tensor("x", ("N", 4), 1)}
    return build_opgraph(ops, inputs, outputs, tensors, constants or {}, "g")


DIAMOND = (op("a", ["x"], ["p"]), op("b", ["p"], ["q"]), op("c", ["p", "q", "p"], ["y"]))


def test_an_edge_is_a_tensor_with_its_shape():
    graph = graph_of(*DIAMOND)
    edges = {(start, end, data["tensor"].name) for start, end, data in graph.edges(data=True)}
    assert edges == {
        ("input:x", "a", "x"),
        ("a", "b", "p"),
        ("a", "c", "p"),
        ("b", "c", "q"),
        ("c", "output:y", "y"),
    }
    assert graph.edges["input:x", "a", 0]["tensor"].shape == ("N", 4)
    assert isinstance(graph, nx.MultiDiGraph)


def test_operations_come_in_an_order_that_can_run():
    assert [one.name for one in operations(graph_of(*DIAMOND[::-1]))] == ["a", "b", "c"]


def test_operations_keep_the_models_order_where_they_are_free():
    ops = [op(f"n{index}", ["x"], [f"t{index}"]) for index in range(12)]
    assert [one.name for one in operations(graph_of(*ops))] == [f"n{index}" for index in range(12)]


def test_consumers_of_a_tensor():
    graph = graph_of(*DIAMOND)
    assert consumers(graph, "p") == ["b", "c"]
    assert consumers(graph, "x") == ["a"]
    assert consumers(graph, "y") == ["output:y"]
    assert consumers(graph, "nothing") == []


def test_replacing_operations_keeps_the_rest():
    graph = graph_of(*DIAMOND)
    other = replace_ops(graph, [op("d", ["x"], ["y"])])
    assert [one.name for one in operations(other)] == ["d"]
    assert other.graph["inputs"] == graph.graph["inputs"]
    assert len(operations(graph)) == 3


def test_a_good_graph_passes_the_check():
    check_opgraph(graph_of(*DIAMOND))


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ((op("a", ["q"], ["p"]), op("b", ["p"], ["q", "y"])), "has a cycle"),
        ((op("a", ["x"], ["y"]), op("b", ["x"], ["y"])), "'y' is made by 'a' and by 'b'"),
        ((op("a", ["x"], ["p"]),), "nobody makes the output 'y'"),
    ],
)
def test_the_check_finds_a_broken_graph(ops, message):
    with pytest.raises(ValueError, match=message):
        check_opgraph(graph_of(*ops))


def nested():
    """A matrix, then an If that looks at its result from inside of its branches."""
    branch = node(
        "If",
        ["flag"],
        ["y"],
        name="if",
        then_branch=builders.body([node("Neg", ["h"], ["t"], name="minus")], {"t": ["N", 4]}, name="then"),
        else_branch=builders.body([node("Abs", ["h"], ["e"], name="plus")], {"e": ["N", 4]}, name="else"),
    )
    return builders.model(
        [node("MatMul", ["x", "w"], ["h"], name="product"), branch],
        {"x": ["N", 4], "flag": ([], TensorProto.BOOL)},
        {"y": ["N", 4]},
        {"w": weights(4, 4)},
    )


def lowered(proto):
    clean = load(proto)
    return lower(clean.graph, clean.computed_from, clean.origin)


def test_walk_goes_down_into_bodies_and_their_outer_tensors_are_edges():
    graph = load(nested()).graph
    assert {one.name for one in walk(graph)} == {"product", "if", "minus", "plus"}
    assert consumers(graph, "h") == ["if"]
    assert "h" in next(one for one in operations(graph) if one.name == "if").inputs


def test_a_graph_as_plain_data_holds_operations_matrices_and_bodies():
    data = json.loads(json.dumps(opgraph_as_dict(lowered(nested()))))
    product, branch = data["operations"]
    assert (
        product["matrix"] | {"name": "product", "rows": 4, "cols": 4, "initializer": "w"} == product["matrix"]
    )
    assert set(branch["bodies"]) == {"then_branch", "else_branch"}
    assert branch["bodies"]["then_branch"]["operations"][0]["name"] == "minus"
    assert data["inputs"][0] == {"name": "x", "shape": ["N", 4], "dtype": 1}


def test_a_graph_for_graphviz_quotes_names():
    proto = builders.model(
        [node("MatMul", ["x", "w"], ["y"], name='say "hi" \\ bye')],
        {"x": ["N", 4]},
        {"y": ["N", 4]},
        {"w": weights(4, 4)},
    )
    text = opgraph_as_dot(lowered(proto))
    assert '"say \\"hi\\" \\\\ bye"' in text
    assert text.count("{") == text.count("}")
    assert "subgraph" in opgraph_as_dot(lowered(nested()))


def test_labels_quote_name_and_operator():
    assert op("a", ["x"], ["y"]).label == "node 'a' (Add)"
    assert (
        Op("b", "Gelu", "com.microsoft", (), (), node("Gelu", [], [])).label
        == "node 'b' (com.microsoft:Gelu)"
    )
