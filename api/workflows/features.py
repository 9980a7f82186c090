"""Features for transfer learning: the last maps of a network of CIFAR images, made into vectors."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.errors import DataError, ModelError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

#: Mean and standard deviation of ImageNet's red, green and blue, 0..1: the preprocessing that the CIFAR
#: ResNets of github.com/akamaster/pytorch_resnet_cifar10 were trained with (its trainer.py).
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGE = (3, 32, 32)
#: Rows and columns of the maps that one feature is the mean of.
POOL = (2, 1)
BATCH = 100


def cifar_features(
    model: str | os.PathLike[str],
    images: npt.NDArray[np.uint8],
    folder: str | os.PathLike[str] | None = None,
    threads: int = 1,
) -> Floats:
    """The features of CIFAR images that a new classifier is trained on.

    A network of 32 x 32 images is run, in onnxruntime, up to the last maps before they are pooled to a
    vector, with pixels scaled as ImageNet's mean and deviation ask for. The maps are averaged over pairs of
    rows: 64 maps of 8 x 8 become 64 x 4 x 8 = 2,048 numbers, in the order of maps, rows, columns.

    Args:
        model: path of a network whose input is [N, 3, 32, 32]; a fixed N is opened where that gives the same
            results.
        images: uint8 [n, 3, 32, 32].
        folder: where the features are kept for the next time, in a file named after a hash of model and
            images; it is made where it does not exist. A file that can't be read is replaced.
        threads: of onnxruntime.

    Returns:
        float32 [n, features].

    Raises:
        ModelError: the model can't be read, has another input or no maps.
        DataError: images of another shape or type, or none.
        OutputError: the folder can't be written.
    """
    if images.shape[1:] != IMAGE or images.dtype != np.uint8 or not len(images):
        raise DataError(
            f"images are {images.dtype} {list(images.shape)}; should be uint8 [N, 3, 32, 32], one or more"
        )
    network, maps = _up_to_the_maps(model)
    if folder is None:
        return _computed(network, maps, images, threads)
    name = hashlib.blake2b(network.SerializeToString(deterministic=True), digest_size=16)
    name.update(repr((MEAN, DEVIATION, POOL, images.shape)).encode())
    name.update(np.ascontiguousarray(images).data)
    target = Path(folder) / f"features-{name.hexdigest()}.npz"
    stored = _stored(target, len(images))
    if stored is not None:
        return stored
    features = _computed(network, maps, images, threads)
    _store(features, target)
    return features


def _up_to_the_maps(model: str | os.PathLike[str]) -> tuple[Any, str]:
    """A model with an open batch that ends with its last maps, and their name."""
    import onnx

    from pcmc.compiler.frontend import load
    from pcmc.compiler.head import keep_before
    from pcmc.compiler.onnx_file import read_model
    from pcmc.runtime.shapes import infer

    proto, origin = read_model(model)
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in constants]
    dims = inputs[0].type.tensor_type.shape.dim if len(inputs) == 1 else ()
    if [dim.dim_value for dim in dims][1:] != list(IMAGE):
        raise ModelError(f"{origin}: its input should be images [N, 3, 32, 32]")
    clean = load(proto).model
    shapes = {name: shape for name, (_, shape) in infer(clean).items()}
    maps = [
        name
        for node in clean.graph.node
        for name in node.output
        if len(shape := shapes.get(name) or ()) == 4 and all(_wide(size) for size in shape[2:])
    ]
    if not maps:
        raise ModelError(f"{origin}: has no tensor of maps [N, channels, height, width]")
    keep_before(clean, maps[-1])
    clean.graph.output.append(onnx.ValueInfoProto(name=maps[-1]))
    return clean, maps[-1]


def _wide(size: int | str) -> bool:
    return isinstance(size, int) and size > 1


def _computed(network: Any, maps: str, images: npt.NDArray[np.uint8], threads: int) -> Floats:
    session, batch = _session(network, maps, threads)
    parts = [
        _pooled(_run(session, maps, _scaled(images[start : start + batch])))
        for start in range(0, len(images), batch)
    ]
    return np.concatenate(parts)


def _session(network: Any, maps: str, threads: int) -> tuple[Any, int]:
    """A session with an open batch where it does what the network does with one image, and the batch to use;
    else one for single images.
    """
    import onnx

    single = _loaded(network, threads)
    opened = onnx.ModelProto()
    opened.CopyFrom(network)
    opened.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    probe = np.random.Generator(np.random.Philox(0)).standard_normal((2, *IMAGE), np.float32)
    want = np.concatenate([_run(single, maps, probe[i : i + 1]) for i in range(2)])
    try:
        session = _loaded(opened, threads)
        got = _run(session, maps, probe)
    except Exception:  # onnxruntime raises its own, undocumented classes
        return single, 1
    same = got.shape == want.shape and np.allclose(
        got, want, rtol=1e-3, atol=1e-4 * float(np.abs(want).max())
    )
    return (session, BATCH) if same else (single, 1)


def _loaded(network: Any, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        network.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _run(session: Any, maps: str, x: Floats) -> Floats:
    result: Floats = session.run([maps], {session.get_inputs()[0].name: x})[0]
    return result


def _scaled(images: npt.NDArray[np.uint8]) -> Floats:
    mean, deviation = (np.array(three, np.float32).reshape(3, 1, 1) for three in (MEAN, DEVIATION))
    scaled = images.astype(np.float32)
    scaled /= 255
    scaled -= mean
    scaled /= deviation
    return scaled


def _pooled(maps: Floats) -> Floats:
    n, channels, height, width = maps.shape
    rows, columns = height // POOL[0], width // POOL[1]
    whole = maps[:, :, : rows * POOL[0], : columns * POOL[1]]
    windows = whole.reshape(n, channels, rows, POOL[0], columns, POOL[1])
    return np.ascontiguousarray(windows.mean(axis=(3, 5)).reshape(n, -1), np.float32)


def _stored(path: Path, count: int) -> Floats | None:
    """Features of an earlier time; None where there are none, or none that can be used."""
    from pcmc.commands.inputs import read_arrays

    if not path.is_file():
        return None
    try:
        features = read_arrays(path).get("features")
    except DataError:
        return None
    usable = features is not None and features.ndim == 2 and len(features) == count
    return features.astype(np.float32, copy=False) if usable and features is not None else None


def _store(features: Floats, path: Path) -> None:
    from pcmc.errors import OutputError
    from pcmc.runtime.files import replacing

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path.parent}: can't be made: {error.strerror or error}") from None
    with replacing(path) as file:
        np.savez(file, features=features)
