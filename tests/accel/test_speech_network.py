"""The speech network that IBM 2023 put on five chips: what its layers fill of them.

Ambrogio et al., Nature 620 (2023), abstract and Fig. 1: the RNNT of MLPerf, "more than 45 million weights
mapped onto more than 140 million" devices on five chips of 34 tiles of 512 x 2,048; four devices a weight, or
two. Which layer has how many is not known here, so that the paper's own mapping is not repeated: this is what
the sizes alone ask for. Sizes: MLPerf Inference, speech_recognition/rnnt, its configuration (80 features, 3
spliced, LSTMs of 1,024 x (2 + 3) with 2 time steps stacked between, 320 x 2, joint layer of 512, 29 symbols)
and model_separable_rnnt.py. Its Extended Data Fig. 7 has the decoder's 320 x 1,280 and 28 symbols, too.
"""

import builders
import numpy as np
import pytest
from builders import node

import pcmc
from pcmc.accel.chip import chip_from_dict, chip_to_dict, load_chip
from pcmc.errors import ChipError


def lstm(inputs, hidden):
    """The matrices of a layer: of its inputs and of its own last outputs, to four gates."""
    return [(inputs, 4 * hidden), (hidden, 4 * hidden)]


ENCODER = [matrix for inputs in (240, 1024, 2 * 1024, 1024, 1024) for matrix in lstm(inputs, 1024)]
REST = [*lstm(320, 320), *lstm(320, 320), (1024 + 320, 512), (512, 29)]
EMBEDDING = 28 * 320  # a table that is looked up
DEVICES = 5 * 34 * 512 * 2048


def weights(matrices):
    return sum(rows * cols for rows, cols in matrices)


def compiled(matrices, **changes):
    """The matrices side by side on `ibm2023`: recurrent layers take the same cells as their products do."""
    tables = chip_to_dict(load_chip("ibm2023"))
    for section, fields in changes.items():
        tables[section] = fields if section == "cell" else {**tables[section], **fields}
    nodes = [node("MatMul", [f"x{k}", f"w{k}"], [f"y{k}"], name=f"m{k}") for k in range(len(matrices))]
    model = builders.model(
        nodes,
        {f"x{k}": ["N", rows] for k, (rows, _) in enumerate(matrices)},
        {f"y{k}": ["N", cols] for k, (_, cols) in enumerate(matrices)},
        {f"w{k}": np.zeros(size, np.float32) for k, size in enumerate(matrices)},
    )
    return pcmc.compile(model, chip_from_dict(tables, "ibm2023, changed"))


def test_the_layers_have_the_published_number_of_weights():
    total = weights([*ENCODER, *REST]) + EMBEDDING
    assert total == 45_276_416
    assert 45e6 < total < 46e6


def test_the_published_number_of_devices_is_between_two_and_four_a_weight():
    """All of them with four would be more than five chips have."""
    total = weights([*ENCODER, *REST]) + EMBEDDING
    assert 2 * total < 140e6 < 4 * total
    assert 4 * total > DEVICES > 140e6


@pytest.mark.slow
@pytest.mark.parametrize(("sharing", "tiles"), [("exclusive", 168), ("stacked", 164)])
def test_the_encoder_alone_takes_five_chips_with_four_devices_a_weight(sharing, tiles):
    """Blocks of 512 x 512: 8 across the gates; 1 for 240 inputs, 2 for 1,024, 4 for 2,048. Half-full ones may
    share a tile.
    """
    blocks = sum(-(-rows // 512) * (cols // 512) for rows, cols in ENCODER)
    assert blocks == 168 <= 5 * 34
    program = compiled(ENCODER, tile={"sharing": sharing})
    assert (program.tiles, program.chips) == (tiles, 5)


@pytest.mark.slow
def test_the_whole_network_takes_a_sixth_chip_with_four_devices_a_weight_and_three_with_two():
    with pytest.raises(
        ChipError, match=r"needs 6 chips of ibm2023 \(178 tiles, 34 on a chip\); the board has 5"
    ):
        compiled([*ENCODER, *REST])
    two = chip_to_dict(load_chip("hermes64"))["cell"]  # pairs of conductors, one each way
    assert compiled([*ENCODER, *REST], cell=two, tile={"cols": 1024}).chips == 3
