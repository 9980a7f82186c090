"""Wired arrays by nodal analysis: a circuit drawn resistor by resistor and solved by Kirchhoff's current law.

The reference for `pcmc.accel.wires`, with which it shares nothing: that eliminates line by line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

from pcmc.accel.wires import Wires

Array = NDArray[Any]
# ("w", layer, row, col) and ("b", row, col) at the cells, ("in", layer, row) and ("out", col) behind ports.
Node = tuple[Any, ...]
Resistor = tuple[Node, Node, float]


def netlist(
    layers: Sequence[Array], wires: Wires, active: Array | None = None, backward: bool = False
) -> list[Resistor]:
    """The resistors of an array, in ohm; ports are nodes, too, and each layer has word lines of its own."""
    resistors: list[Resistor] = []
    rows, cols = layers[0].shape
    active = np.ones(rows, bool) if active is None else active
    driver, sense = wires.driver_ohm, wires.sense_ohm
    if backward:
        driver, sense = wires.backward_sense_ohm, wires.backward_driver_ohm
    for l, g in enumerate(layers):
        for i in range(rows):
            if not active[i] and wires.idle_row == "cut":
                continue  # connected to nothing
            held = backward or active[i] or wires.idle_row == "grounded"
            if not held and not g[i].any():
                continue  # an island
            if held:
                resistors.append((("in", l, i), ("w", l, i, 0), driver + wires.row_ohm))
            if held and not backward and wires.drive == "two":
                resistors.append((("in", l, i), ("w", l, i, cols - 1), driver + wires.row_ohm))
            resistors += [(("w", l, i, j), ("w", l, i, j + 1), wires.row_ohm) for j in range(cols - 1)]
            cells = [j for j in range(cols) if g[i, j] > 0]
            resistors += [(("w", l, i, j), ("b", i, j), 1e6 / g[i, j]) for j in cells]
    for j in range(cols):
        resistors += [(("b", i, j), ("b", i + 1, j), wires.column_ohm) for i in range(rows - 1)]
        resistors.append((("b", rows - 1, j), ("out", j), sense + wires.column_ohm))
        if backward and wires.backward_drive == "two":
            resistors.append((("b", 0, j), ("out", j), sense + wires.column_ohm))
    return resistors


def nodal(resistors: Sequence[Resistor], driven: Sequence[Node], read: Sequence[Node]) -> Array:
    """Currents `[driven, read]` in uA into the nodes `read`, at 0 V like all ports, per volt at `driven`."""
    same: dict[Node, Node] = {}

    def name(node: Node) -> Node:
        while node in same:
            node = same[node]
        return node

    for a, b, ohm in resistors:
        # Wires without resistance join their ends; a port keeps its own name.
        first, second = sorted((name(a), name(b)), key=lambda node: node[0] in ("in", "out"))
        if ohm == 0 and first != second:
            same[first] = second
    kept = [(name(a), name(b), 1e6 / ohm) for a, b, ohm in resistors if ohm > 0]
    nodes = {node: k for k, node in enumerate(dict.fromkeys(n for a, b, _ in kept for n in (a, b)))}
    starts, ends = np.array([(nodes[a], nodes[b]) for a, b, _ in kept]).T
    g = np.array([resistor[2] for resistor in kept])
    n = len(nodes)
    at = np.concatenate([starts, ends, starts, ends]), np.concatenate([starts, ends, ends, starts])
    y = sparse.coo_array((np.concatenate([g, g, -g, -g]), at), shape=(n, n)).tocsc()
    ports = {node for node in nodes if node[0] in ("in", "out")}
    inner = np.array([k for node, k in nodes.items() if node not in ports and y[[k], [k]] > 0], int)
    lu = scipy.sparse.linalg.splu(y[inner][:, inner]) if len(inner) else None
    currents = np.zeros((len(driven), len(read)))
    for row, node in enumerate(driven):
        v = np.zeros(n, np.longdouble)
        if node in nodes:
            v[nodes[node]] = 1
        for _ in range(6 if lu else 0):  # refined, the current balance taken in higher precision
            balance = _balance(g, v, starts, ends)
            assert lu is not None
            v[inner] -= lu.solve(balance[inner].astype(float))
        balance = _balance(g, v, starts, ends)
        currents[row] = [-balance[nodes[one]] if one in nodes else 0 for one in read]
    return currents


def _balance(g: Array, v: Array, starts: Array, ends: Array) -> Array:
    """Currents that leave each node through resistors."""
    flow, balance = g * (v[starts] - v[ends]), np.zeros_like(v)
    np.add.at(balance, starts, flow)
    np.add.at(balance, ends, -flow)
    return balance


def reference(layers: Sequence[Array], wires: Wires, active: Array | None = None) -> Array:
    """The matrix `[rows, cols]` in uS by nodal analysis; a second layer is driven the other way round."""
    rows, cols = layers[0].shape
    resistors = netlist(layers, wires, active)
    read = [("out", j) for j in range(cols)]
    each = [nodal(resistors, [("in", l, i) for i in range(rows)], read) for l in range(len(layers))]
    return each[0] if len(layers) == 1 else each[0] - each[1]


def deviation(found: Array, expected: Array) -> float:
    """The largest difference, over the largest value."""
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-300))
