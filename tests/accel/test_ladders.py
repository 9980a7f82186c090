"""Products in parts: BLAS is never given so much at once that it would take a second thread."""

import dataclasses

import numpy as np
import pytest

from pcmc.accel.ladders import ONE_THREAD, _product
from pcmc.accel.wires import Wires, transfer_matrix

TYPICAL = Wires(row_ohm=1.0, column_ohm=2.0, driver_ohm=100.0, sense_ohm=50.0)
TWO_SIDED = dataclasses.replace(TYPICAL, drive="two")
PRODUCTS = [(1, 3, 5), (7, 64, 64), (2, 300, 700), (131, 257, 100), (513, 100, 99), (65, 700, 131)]


@pytest.mark.parametrize("shape", PRODUCTS, ids=str)
def test_products_in_parts_are_products(shape):
    rows, inner, cols = shape
    rng = np.random.default_rng(34)
    a, b = rng.normal(size=(2, rows, inner)), rng.normal(size=(2, inner, cols))
    np.testing.assert_allclose(_product(a, b), a @ b, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(_product(a, b.transpose(0, 2, 1).copy().transpose(0, 2, 1)), a @ b, atol=1e-12)


def test_blas_never_gets_enough_work_for_two_threads(monkeypatch):
    sizes, multiply = [], np.matmul

    def seen(a, b, **options):
        sizes.append((a.shape[-2], a.shape[-1], b.shape[-1]))
        return multiply(a, b, **options)

    monkeypatch.setattr(np, "matmul", seen)
    g = np.random.default_rng(35).uniform(0, 25, (120, 300))
    for rows, cols, wires in ((6, 300, TWO_SIDED), (103, 100, TYPICAL), (120, 1, TYPICAL)):
        transfer_matrix(g[:rows, :cols], wires)
    assert 0.9 * ONE_THREAD < max(rows * inner * cols for rows, inner, cols in sizes) <= ONE_THREAD
    # Products with a vector go to another routine, which takes two threads from 96 x 96 on.
    vectors = [rows * inner * cols for rows, inner, cols in sizes if 1 in (rows, cols)]
    assert vectors
    assert max(vectors) <= 96 * 96
