"""The whole compiler: any network of mapped layers, on any chip, computes what onnxruntime computes."""

import json
from dataclasses import replace

import builders
import numpy as np
import onnx
import onnxruntime
import pytest
from builders import node, weights
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pcmc
from pcmc.compiler.emit import emit
from pcmc.compiler.frontend import load
from pcmc.compiler.graph import operations, opgraph_as_dict
from pcmc.compiler.lowering import lower
from pcmc.compiler.packing import pack
from pcmc.compiler.partition import partition
from pcmc.compiler.placement import place
from pcmc.compiler.routing import route
from pcmc.compiler.schedule import schedule
from pcmc.compiler.sizes import sample_shapes
from pcmc.compiler.tilegraph import build_tilegraph


def newest_opset():
    """The newest opset that both onnx and onnxruntime know."""
    for opset in range(onnx.defs.onnx_opset_version(), 7, -1):
        proto = builders.model([node("Relu", ["x"], ["y"])], {"x": [1]}, {"y": [1]}, opset=opset)
        try:
            builders.reference(proto, {"x": np.ones(1, np.float32)})
        except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
            continue
        return opset
    return 7


NEWEST = newest_opset()
OPSETS = (7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 21, NEWEST)


class Net:
    """A random network in the making: nodes, constants, and the tensors that are there with their shapes."""

    def __init__(self, data, opset):
        self.data, self.opset = data, opset
        self.nodes, self.constants, self.tensors, self.count = [], {}, {}, 0

    def draw(self, *choices):
        return self.data.draw(st.sampled_from(choices))

    def name(self, stem):
        self.count += 1
        return f"{stem}{self.count}"

    def constant(self, *shape, scale=False):
        """A constant of this shape: one that is there already, where chance wills it, or a new one."""
        same = [
            key
            for key, array in self.constants.items()
            if array.shape == shape and (array.min() > 0) == scale
        ]
        if same and self.draw(False, False, True):
            return self.draw(*same)
        name = self.name("c")
        seed = self.count
        self.constants[name] = (
            builders.rng(seed).uniform(0.5, 1.5, shape).astype(np.float32)
            if scale
            else weights(*shape, seed=seed)
        )
        return name

    def add(self, op_type, inputs, shape, **attributes):
        name = self.name("t")
        self.nodes.append(node(op_type, inputs, [name], name=f"{op_type.lower()}_{name}", **attributes))
        self.tensors[name] = shape
        return name

    def grow(self):
        """One more layer on a tensor that is there."""
        source = self.draw(*self.tensors)
        shape = self.tensors[source]
        if len(shape) == 3:
            layers = [self.convolution, self.convolution, self.pool, self.flatten, self.concat]
        else:
            layers = [self.dense, self.dense]
        layers += [self.activation, self.normalization, self.affine, self.residual]
        self.draw(*layers)(source, shape)

    def activation(self, source, shape):
        self.add(self.draw("Relu", "Sigmoid", "Tanh", "LeakyRelu"), [source], shape)

    def normalization(self, source, shape):
        c = shape[0]
        constants = [
            self.constant(c, scale=True),
            self.constant(c),
            self.constant(c),
            self.constant(c, scale=True),
        ]
        self.add("BatchNormalization", [source, *constants], shape)

    def affine(self, source, shape):
        op_type = self.draw("Mul", "Add", "Sub", "Div")
        form = (1,) * len(shape) if self.draw(True, False) else (shape[0], *(1,) * (len(shape) - 1))
        operands = [source, self.constant(*form, scale=op_type in ("Mul", "Div"))]
        self.add(op_type, operands if op_type == "Div" or self.draw(True, False) else operands[::-1], shape)

    def residual(self, source, shape):
        others = [name for name, other in self.tensors.items() if other == shape]
        self.add("Add", [source, self.draw(*others)], shape)

    def concat(self, source, shape):
        others = [name for name, other in self.tensors.items() if len(other) == 3 and other[1:] == shape[1:]]
        other = self.draw(*others)
        if shape[0] + self.tensors[other][0] <= 16:
            self.add("Concat", [source, other], (shape[0] + self.tensors[other][0], *shape[1:]), axis=1)

    def convolution(self, source, shape):
        channels, height, width = shape
        group = self.draw(1, 1, *(g for g in (2, 3, channels) if channels % g == 0))
        out = group * self.draw(1, 2, 3) if group > 1 else self.draw(1, 2, 4, channels)
        if out > 16:
            return
        kernel = [self.draw(1, 2, 3), self.draw(1, 3)]
        attributes, size = self.padding(kernel, (height, width))
        if min(size) < 1:
            return
        inputs = [source, self.constant(out, channels // group, *kernel)]
        if self.draw(True, False):
            inputs.append(self.constant(out))
        self.add("Conv", inputs, (out, *size), group=group, **attributes)

    def padding(self, kernel, size):
        stride = [self.draw(1, 1, 2), self.draw(1, 2)]
        mode = self.draw("pads", "pads", "VALID", "SAME_UPPER", "SAME_LOWER")
        if mode.startswith("SAME"):
            return {"auto_pad": mode, "strides": stride}, tuple(
                -(-n // s) for n, s in zip(size, stride, strict=True)
            )
        dilation = [self.draw(1, 2), 1] if mode == "pads" else [1, 1]
        pads = (
            [self.draw(0, 1), self.draw(0, 1), self.draw(0, 1, 2), self.draw(0, 1)]
            if mode == "pads"
            else [0] * 4
        )
        out = tuple(
            (size[i] + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilation[i] - 1) // stride[i] + 1
            for i in (0, 1)
        )
        if mode == "VALID":
            return {"auto_pad": mode, "strides": stride}, out
        return {"pads": pads, "strides": stride, "dilations": dilation}, out

    def pool(self, source, shape):
        if min(shape[1:]) >= 2:
            size = tuple(n // 2 for n in shape[1:])
            self.add(
                self.draw("MaxPool", "AveragePool"),
                [source],
                (shape[0], *size),
                kernel_shape=[2, 2],
                strides=[2, 2],
            )

    def flatten(self, source, shape):
        if self.draw(True, False):
            source = self.add("GlobalAveragePool", [source], (shape[0], 1, 1))
        self.add("Flatten", [source], (int(np.prod(self.tensors[source])),), axis=1)

    def dense(self, source, shape):
        out = self.draw(1, 3, 5, shape[0])
        if self.draw(True, False):
            self.add("MatMul", [source, self.constant(shape[0], out)], (out,))
            return
        turned = self.draw(0, 1)
        inputs = [source, self.constant(*((out, shape[0]) if turned else (shape[0], out)))]
        if self.opset < 11 or self.draw(True, False):
            inputs.append(self.constant(*self.draw((out,), (1, out), (1,))))
        self.add("Gemm", inputs, (out,), transB=turned, alpha=self.draw(1.0, 0.5), beta=self.draw(1.0, 2.0))


def random_net(data, layers=8):
    """A network of mapped and digital layers with one or two inputs and some outputs."""
    opset = data.draw(st.sampled_from(OPSETS))
    net = Net(data, opset)
    inputs = {"x": net.draw((3, 6, 5), (2, 5, 5), (7,))}
    if net.draw(False, True):
        inputs["z"] = net.draw(inputs["x"], (4,))
    net.tensors.update(inputs)
    for _ in range(data.draw(st.integers(1, layers))):
        net.grow()
    if not any(one.op_type in ("Conv", "Gemm", "MatMul") for one in net.nodes):
        for name in list(inputs):
            (net.convolution if len(inputs[name]) == 3 else net.dense)(name, inputs[name])
    ir_version = net.draw(3, 4, 8)
    made = [name for name in net.tensors if name not in inputs]
    outputs = (
        {made[-1]: None, **{name: None for name in made if net.draw(False, False, False, True)}}
        if made
        else {}
    )
    return builders.model(
        net.nodes,
        {name: ["N", *shape] for name, shape in inputs.items()},
        {name: ["N", *net.tensors[name]] for name in outputs},
        net.constants,
        opset=opset,
        ir_version=ir_version,
        constants_are_inputs=ir_version == 3,
    )


def random_chip(data):
    return builders.chip(
        data.draw(st.integers(2, 40)),
        data.draw(st.integers(1, 20)),
        bias_row=data.draw(st.booleans()),
        sharing=data.draw(st.sampled_from(builders.SHARINGS)),
        mesh=(data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))),
    )


def needed_matrices(proto):
    """Whether some output depends on a product with a constant."""
    needed = {value.name for value in proto.graph.output}
    for one in reversed(proto.graph.node):
        if needed & set(one.output):
            needed |= set(one.input)
            if one.op_type in ("Conv", "Gemm", "MatMul"):
                return True
    return False


def check_random_net(data):
    proto, spec = random_net(data), random_chip(data)
    if not needed_matrices(proto):
        with pytest.raises(pcmc.ModelError, match="no constant matrix"):
            pcmc.compile(proto, spec)
        return
    program = builders.compiled_like_onnxruntime(proto, spec, inputs=builders.feeds(proto, batch=2))
    json.dumps(program.report())


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_some_random_networks_equal_onnxruntime(data):
    check_random_net(data)


@pytest.mark.slow
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.data())
def test_random_networks_equal_onnxruntime(data):
    check_random_net(data)


# --- stages


def small_net():
    """Two convolutions with BatchNormalization and a residual, a dense layer, and a shared matrix."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c1", "gamma", "beta", "mean", "var"], ["n1"], name="bn1"),
        node("Relu", ["n1"], ["r1"], name="relu1"),
        node("Conv", ["r1", "w2"], ["c2"], name="conv2", pads=[1, 1, 1, 1], group=2),
        node("Add", ["c2", "r1"], ["s"], name="residual"),
        node("GlobalAveragePool", ["s"], ["g"], name="pool"),
        node("Flatten", ["g"], ["f"], name="flatten"),
        node("Gemm", ["f", "w3", "b3"], ["d"], name="dense", alpha=0.5),
        node("MatMul", ["d", "w3"], ["y"], name="again"),
    ]
    constants = {
        "w1": weights(4, 2, 3, 3),
        "b1": weights(4),
        "gamma": np.ones(4, np.float32),
        "beta": weights(4, seed=1),
        "mean": weights(4, seed=2),
        "var": np.ones(4, np.float32),
        "w2": weights(4, 2, 3, 3, seed=3),
        "w3": weights(4, 4, seed=4),
        "b3": weights(4, seed=5),
    }
    return builders.model(nodes, {"x": ["N", 2, 6, 5]}, {"y": ["N", 4]}, constants)


SPEC = builders.chip(12, 3)


def after(stage):
    """The arguments of a stage in the pipeline of `compile`, and the stage."""
    proto = small_net()
    if stage == "frontend":
        return load, (proto, {"x": (1, 2, 6, 5)}, {})
    clean = load(proto)
    if stage == "lowering":
        return lower, (clean.graph, clean.computed_from, clean.origin)
    graph = lower(clean.graph, clean.computed_from, clean.origin)
    matrices = {op.matrix.name: op.matrix for op in operations(graph) if op.matrix is not None}
    if stage == "sizes":
        return sample_shapes, (clean, graph)
    if stage == "partition":
        return partition, (list(matrices.values()), SPEC.tile)
    blocks = partition(list(matrices.values()), SPEC.tile)
    groups = [matrix.groups for matrix in matrices.values()]
    if stage == "packing":
        return pack, (blocks, groups, SPEC.tile)
    packed = pack(blocks, groups, SPEC.tile)
    if stage == "placement":
        return place, (packed, SPEC)
    placed = dict(zip(matrices, place(packed, SPEC), strict=True))
    if stage == "schedule":
        return schedule, (graph, placed)
    steps, regions = schedule(graph, placed)
    chips = 1 + max(int(table["chip"].max()) for table in placed.values())
    if stage == "tilegraph":
        return build_tilegraph, (steps, placed, graph.graph["outputs"])
    tilegraph = build_tilegraph(steps, placed, graph.graph["outputs"])
    if stage == "routing":
        return route, (tilegraph, SPEC, chips)
    flows, names = route(tilegraph, SPEC, chips)
    sizes = sample_shapes(clean, graph)
    return emit, (clean, graph, matrices, placed, steps, regions, flows, names, SPEC, sizes, {})


def as_plain(value):
    """Anything that stages pass, as nested tuples that compare by value, at the time of the call."""
    if isinstance(value, onnx.ModelProto | onnx.NodeProto | onnx.TensorProto):
        return value.SerializeToString()
    if isinstance(value, np.ndarray):
        return (value.shape, str(value.dtype), value.tobytes())
    if hasattr(value, "nodes") and hasattr(value, "graph"):
        nodes = [(name, as_plain(data)) for name, data in value.nodes(data=True)]
        edges = [(start, end, as_plain(data)) for start, end, data in value.edges(data=True)]
        return (as_plain(dict(value.graph)), nodes, edges)
    if hasattr(value, "__dataclass_fields__"):
        return tuple((name, as_plain(getattr(value, name))) for name in value.__dataclass_fields__)
    if isinstance(value, dict):
        return [(key, as_plain(item)) for key, item in value.items()]
    if isinstance(value, list | tuple | range):
        return [as_plain(item) for item in value]
    return value


STAGES = (
    "frontend",
    "lowering",
    "sizes",
    "partition",
    "packing",
    "placement",
    "schedule",
    "tilegraph",
    "routing",
    "emit",
)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_leaves_its_input_alone(name):
    stage, arguments = after(name)
    before = as_plain(list(arguments))
    stage(*arguments)
    assert as_plain(list(arguments)) == before


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_gives_the_same_result_twice(name):
    stage, arguments = after(name)
    assert as_plain(stage(*arguments)) == as_plain(stage(*arguments))


def test_compiling_leaves_the_model_alone_and_keeps_it():
    proto = small_net()
    before = proto.SerializeToString()
    program = pcmc.compile(proto, SPEC, check=True)
    assert proto.SerializeToString() == before
    assert program.model.SerializeToString() == before
    assert program.model is not proto


def test_payloads_are_frozen():
    program = builders.compiled_like_onnxruntime(small_net(), SPEC)
    bank, step = program.banks["conv1"], program.steps[0]
    payloads = [
        (program, "chips"),
        (bank, "rows"),
        (step, "unit"),
        (bank.foldings[0], "node"),
        (SPEC.tile, "rows"),
        (program.inputs[0], "shape"),
        (step.read, "kind"),
        (step.read.window, "kernel"),
    ]
    for payload, field in payloads:
        with pytest.raises(AttributeError):
            setattr(payload, field, getattr(payload, field))
    for array in (bank.cells, bank.table, program.flows):
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[0]


def test_lowered_payloads_are_frozen():
    stage, arguments = after("lowering")
    (op, *_) = [op for op in operations(stage(*arguments)) if op.matrix is not None]
    for payload, field in ((op, "name"), (op.matrix, "name"), (op.matrix, "weights")):
        with pytest.raises(AttributeError):
            setattr(payload, field, None)


def test_the_small_net_computes_what_onnxruntime_does_on_every_chip():
    for sharing in builders.SHARINGS:
        for bias_row in (True, False):
            builders.compiled_like_onnxruntime(
                small_net(), builders.chip(12, 3, sharing=sharing, bias_row=bias_row)
            )


def test_one_changed_cell_changes_the_output():
    """The result comes from the blocks, not from the model."""
    program = pcmc.compile(small_net(), SPEC)
    inputs = builders.feeds(small_net())
    before = builders.run(program, inputs)[0]
    bank = program.banks["dense"]
    cells = bank.cells.copy()
    cells[0] += 1
    banks = {**program.banks, "dense": replace(bank, cells=cells)}
    assert np.abs(builders.run(replace(program, banks=banks), inputs)[0] - before).max() > 1e-3


def test_a_moved_block_changes_the_output():
    program = pcmc.compile(small_net(), builders.chip(12, 2))
    inputs = builders.feeds(small_net())
    before = builders.run(program, inputs)[0]
    table = program.banks["dense"].table.copy()
    table["col0"] = table["col0"][::-1].copy()
    banks = {**program.banks, "dense": replace(program.banks["dense"], table=table)}
    assert np.abs(builders.run(replace(program, banks=banks), inputs)[0] - before).max() > 1e-3


def test_the_graph_can_be_written_as_json():
    stage, arguments = after("lowering")
    text = json.dumps(opgraph_as_dict(stage(*arguments)))
    assert json.loads(text)["operations"][0]["matrix"]["foldings"] == ["bn1"]


def test_a_path_bytes_and_a_proto_compile_to_the_same_program(tmp_path):
    proto = small_net()
    path = tmp_path / "net.onnx"
    onnx.save(proto, path)
    programs = [pcmc.compile(source, SPEC) for source in (proto, path, str(path), path.read_bytes())]
    tables = [as_plain([bank.table for bank in program.banks.values()]) for program in programs]
    assert all(table == tables[0] for table in tables)
    assert [program.name for program in programs] == ["net", "net.onnx", "net.onnx", "model"]


def test_the_chip_may_be_a_name_or_a_description():
    proto = builders.mlp([6, 5])
    assert pcmc.compile(proto, "nature2018").chip == pcmc.compile(proto, builders.chip()).chip
    with pytest.raises(pcmc.ChipError, match="no_such_chip"):
        pcmc.compile(proto, "no_such_chip")


def test_the_program_says_what_it_was_asked_for():
    proto = builders.model([node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 6], "w": [6, 5]}, {"y": ["N", 5]})
    program = pcmc.compile(proto, freeze={"w": weights(6, 5)}, shapes={"x": (1, 6)})
    assert program.options["shapes"] == {"x": [1, 6]}
    np.testing.assert_allclose(program.options["freeze"]["w"], weights(6, 5))
