"""Features of CIFAR images: the maps of the network, pooled, and kept for the next time."""

import builders
import numpy as np
import onnx
import onnxruntime
import pytest
from builders import node, weights

import real
from pcmc.errors import DataError, ModelError, OutputError
from pcmc.workflows import features
from pcmc.workflows.features import cifar_features


def network(folder, batch=1, inner_batch=0):
    """Conv to 4 maps of 16 x 16, Relu, mean over all, Gemm; with `inner_batch` the maps pass a Reshape that
    fixes the batch.
    """
    nodes = [
        node("Conv", ["x", "w"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["maps" if not inner_batch else "r"]),
        *([node("Reshape", ["r", "fixed"], ["maps"])] if inner_batch else []),
        node("GlobalAveragePool", ["maps"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "v"], ["y"]),
    ]
    given = {"w": weights(4, 3, 3, 3), "v": weights(4, 10)}
    if inner_batch:
        given["fixed"] = np.array([inner_batch, 4, 16, 16])
    path = folder / "net.onnx"
    onnx.save(builders.model(nodes, {"x": [batch, 3, 32, 32]}, {"y": [batch, 10]}, given), path)
    return path


def images(count, seed=1):
    return builders.rng(seed).integers(0, 256, (count, 3, 32, 32)).astype(np.uint8)


def maps_of(path, x):
    """The maps of each image by itself, as the preprocessing of the network's authors has it."""
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name="maps"))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    mean = np.array([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
    deviation = np.array([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    scaled = ((x / 255 - mean) / deviation).astype(np.float32)
    return np.concatenate([session.run(None, {"x": scaled[i : i + 1]})[0] for i in range(len(x))])


@pytest.mark.parametrize(("batch", "inner_batch"), [(1, 0), ("N", 0), (1, 1)])
def test_features_are_the_maps_averaged_over_pairs_of_rows(tmp_path, batch, inner_batch):
    path, x = network(tmp_path, batch, inner_batch), images(5)
    got = cifar_features(path, x)
    maps = maps_of(path, x) if batch == 1 else maps_of(network(tmp_path), x)
    want = (maps[:, :, 0::2] + maps[:, :, 1::2]) / 2
    assert (got.shape, got.dtype) == ((5, 4 * 8 * 16), np.float32)
    np.testing.assert_allclose(got, want.reshape(5, -1), rtol=1e-4, atol=1e-5)


def test_a_network_with_its_batch_inside_is_run_image_by_image(tmp_path):
    cut, maps = features._up_to_the_maps(network(tmp_path, 1, 1))
    assert features._session(cut, maps, 1)[1] == 1
    cut, maps = features._up_to_the_maps(network(tmp_path, 1))
    assert features._session(cut, maps, 1)[1] == features.BATCH


def test_batches_do_not_show_in_the_features(tmp_path, monkeypatch):
    path, x = network(tmp_path), images(7)
    whole = cifar_features(path, x)
    monkeypatch.setattr(features, "BATCH", 3)
    np.testing.assert_allclose(cifar_features(path, x), whole, rtol=1e-5, atol=1e-6)


def test_features_are_computed_once(tmp_path, monkeypatch):
    path, x, folder = network(tmp_path), images(3), tmp_path / "made" / "here"
    first = cifar_features(path, x, folder)
    monkeypatch.setattr(features, "_computed", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(cifar_features(path, x, folder), first)
    assert len(list(folder.iterdir())) == 1


def test_other_images_or_another_network_are_not_taken_from_the_store(tmp_path):
    path, x = network(tmp_path), images(3)
    first = cifar_features(path, x, tmp_path / "store")
    assert not np.array_equal(cifar_features(path, images(3, seed=2), tmp_path / "store"), first)
    assert len(cifar_features(path, x[:2], tmp_path / "store")) == 2
    model = onnx.load(path)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights(4, 3, 3, 3, seed=9), "w"))
    onnx.save(model, path)
    assert not np.array_equal(cifar_features(path, x, tmp_path / "store"), first)


@pytest.mark.parametrize("content", [b"", b"broken", None])
def test_a_damaged_store_is_made_again(tmp_path, content):
    path, x = network(tmp_path), images(3)
    first = cifar_features(path, x, tmp_path / "store")
    (kept,) = (tmp_path / "store").iterdir()
    if content is None:
        np.savez(kept, features=first[:1])
    else:
        kept.write_bytes(content)
    np.testing.assert_array_equal(cifar_features(path, x, tmp_path / "store"), first)
    with np.load(kept) as stored:
        np.testing.assert_array_equal(stored["features"], first)


def test_a_folder_that_can_not_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="can't be made"):
        cifar_features(network(tmp_path), images(1), tmp_path / "file" / "store")


@pytest.mark.parametrize("wrong", [
    images(1)[:0], images(1)[:, :1], images(1).astype(np.float32), images(1)[0],
])  # fmt: skip
def test_other_images_than_cifars_are_refused(tmp_path, wrong):
    with pytest.raises(DataError, match=r"should be uint8 \[N, 3, 32, 32\]"):
        cifar_features(network(tmp_path), wrong)


def test_a_network_of_other_images_or_without_maps_is_refused(tmp_path):
    path = tmp_path / "other.onnx"
    onnx.save(builders.mlp([6, 5]), path)
    with pytest.raises(ModelError, match=r"other\.onnx: its input should be images \[N, 3, 32, 32\]"):
        cifar_features(path, images(1))
    nodes = [node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w"], ["y"])]
    onnx.save(builders.model(nodes, {"x": [1, 3, 32, 32]}, {"y": [1, 5]}, {"w": weights(3072, 5)}), path)
    with pytest.raises(ModelError, match=r"other\.onnx: has no tensor of maps"):
        cifar_features(path, images(1))


@pytest.mark.slow
def test_the_known_classifier_scores_what_it_does_on_these_features():
    """The mean of the 2,048 features over their places is what the network's own classifier reads."""
    filename = "cifar10_resnet56_akamaster_dynamo20_ext.onnx"
    path = real.model_path(filename)
    x, y = real.images("cifar10", 500)
    got = cifar_features(path, x, threads=2)
    assert got.shape == (500, 2048)
    given = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    pooled = got.reshape(500, 64, 32).mean(axis=2)
    logits = pooled @ given["linear.weight"].T + given["linear.bias"]
    known = real.MODELS_WITH_DATA[filename].accuracy / 100
    error = np.sqrt(known * (1 - known) / 500)
    assert np.mean(logits.argmax(axis=1) == y) == pytest.approx(known, abs=3 * error)
