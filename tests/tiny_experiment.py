"""A data set and a network that are trained in a moment, in the place of MNIST."""

import numpy as np

from pcmc.workflows.reproduce.data import Arrays
from pcmc.workflows.reproduce.plan import Experiment, Extent

TINY = Experiment("mnist", "tiny", (12, 6, 3), 0.3)
EXTENT = Extent(seeds=2, epochs=2, tuned=False, arms=("A", "C", "two-tier"), experiments=("mnist",))


def arrays(train: int = 96, test: int = 30) -> Arrays:
    """Three classes around points of their own."""
    rng = np.random.Generator(np.random.Philox(5))
    centres = rng.uniform(0, 1, (3, TINY.sizes[0])).astype(np.float32)

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, 3, count)
        noise = rng.normal(0, 0.15, (count, TINY.sizes[0])).astype(np.float32)
        return centres[labels] + noise, labels

    return Arrays(*drawn(train), *drawn(test))
