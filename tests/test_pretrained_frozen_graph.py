"""Frozen graphs, written by TensorFlow."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jaxvision.pretrained.files import read
from jaxvision.pretrained.frozen_graph import read_constants


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A file with constants of several kinds, and the arrays in it."""
    import tensorflow as tf

    random = np.random.RandomState(0)
    arrays = {
        "layer/weights": random.standard_normal((3, 3, 2, 5)).astype(np.float32),
        "layer/one": np.float32(0.25),
        "all_alike": np.full((4, 7), 1.5, np.float32),
        "fewer": np.asarray([[1.0, -2.0], [-2.0, -2.0]], np.float32),
        "none": np.zeros((2, 3), np.float32),
        "few": np.asarray([1.0, -2.0, 3.5], np.float32),
    }
    with tf.Graph().as_default() as made:
        for name, array in arrays.items():
            tf.constant(array, name=name)
        tf.constant([1, 2, 3], name="whole")
        tf.compat.v1.placeholder(tf.float32, [None, 4], name="image_tensor")
    definition = made.as_graph_def()
    for node in definition.node:
        if node.name == "few":  # as older writers have it: numbers one by one
            node.attr["value"].tensor.ClearField("tensor_content")
            node.attr["value"].tensor.float_val.extend([1.0, -2.0, 3.5])
        if node.name in ("fewer", "none"):  # what TensorFlow fills up
            node.attr["value"].tensor.ClearField("tensor_content")
            node.attr["value"].tensor.ClearField("float_val")
            node.attr["value"].tensor.float_val.extend([1.0, -2.0] if node.name == "fewer" else [])
    path = tmp_path_factory.mktemp("graph") / "frozen.pb"
    path.write_bytes(definition.SerializeToString())
    return path, arrays


def test_every_constant_is_what_tensorflow_wrote(graph):
    import tensorflow as tf

    path, arrays = graph
    found = read(path)
    for node in tf.compat.v1.GraphDef.FromString(path.read_bytes()).node:
        if node.name in arrays:
            assert_array_equal(tf.make_ndarray(node.attr["value"].tensor), arrays[node.name])
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        assert_array_equal(found[name], array)


def test_what_is_no_graph_is_refused(graph, tmp_path):
    path, _ = graph
    data = path.read_bytes()
    for name, content in (("cut", data[:300]), ("text", b"no graph at all"), ("empty", b"")):
        other = tmp_path / f"{name}.pb"
        other.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}\\.pb (is no frozen TensorFlow graph|holds no float32)"):
            read_constants(other)
