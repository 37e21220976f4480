"""ONNX graphs, written by Google's protobuf library from the definition of their fields."""

import functools

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jaxvision.errors import WeightsError
from jaxvision.pretrained.files import read
from jaxvision.pretrained.onnx_graph import read_initializers


@functools.cache
def messages():
    """ModelProto, NodeProto, TensorProto with the fields that matter here, as onnx.proto numbers them."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    kinds = {"text": field.TYPE_STRING, "bytes": field.TYPE_BYTES, "int": field.TYPE_INT64, "float": field.TYPE_FLOAT}
    layout = {
        "Model": [("ir_version", 1, "int", False), ("graph", 7, "Graph", False)],
        "Graph": [("node", 1, "Node", True), ("name", 2, "text", False), ("initializer", 5, "Tensor", True)],
        "Node": [("input", 1, "text", True), ("output", 2, "text", True), ("op_type", 4, "text", False)],
        "Tensor": [
            *(("dims", 1, "int", True), ("data_type", 2, "int", False), ("float_data", 4, "float", True)),
            *(("int64_data", 7, "int", True), ("name", 8, "text", False), ("raw_data", 9, "bytes", False)),
            ("data_location", 14, "int", False),
        ],
    }
    file = descriptor_pb2.FileDescriptorProto(name="jaxvision_test_onnx.proto", package="t", syntax="proto2")
    for name, fields in layout.items():
        message = file.message_type.add(name=name)
        for label, number, kind, repeated in fields:
            each = message.field.add(name=label, number=number)
            each.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if kind in kinds:
                each.type = kinds[kind]
            else:
                each.type, each.type_name = field.TYPE_MESSAGE, f".t.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}")) for name in layout}


def tensor(name, array, form="raw", **fields):
    made = messages()["Tensor"](name=name, data_type=1 if array.dtype == np.float32 else 7, dims=array.shape, **fields)
    if form == "raw":
        made.raw_data = array.tobytes()
    else:
        made.float_data.extend(array.ravel().tolist())
    return made


RANDOM = np.random.RandomState(0)
ARRAYS = {
    name: RANDOM.standard_normal(shape).astype(np.float32)
    for name, shape in {"12": (4, 3, 3, 3), "b": (4,), "7": (2, 4, 1, 1), "x": (), "alone": (3,)}.items()
}


def model(**changed):
    """Two convolutions that share a bias, an addition and a reshape; the arrays in another order than the nodes."""
    of = messages()
    nodes = [
        of["Node"](op_type="Conv", input=["image", "12", "b"], output=["1"]),
        of["Node"](op_type="Reshape", input=["1", "shape"], output=["2"]),
        of["Node"](op_type="Conv", input=["2", "7", "b"], output=["3"]),
        of["Node"](op_type="Add", input=["x", "3"], output=["4"]),
    ]
    tensors = {name: tensor(name, array, "raw" if name in "12b" else "listed") for name, array in ARRAYS.items()}
    tensors["shape"] = tensor("shape", np.array([1, -1], np.int64))
    tensors |= changed
    order = sorted(tensors)
    return of["Model"](ir_version=8, graph=of["Graph"](node=nodes, name="g", initializer=[tensors[n] for n in order]))


def written(path, made):
    path.write_bytes(made.SerializeToString())
    return path


def test_arrays_are_named_by_the_nodes_that_take_them_first(tmp_path):
    found = read(written(tmp_path / "a.onnx", model()))
    expected = {"Conv_0/1": "12", "Conv_0/2": "b", "Conv_1/1": "7", "Add_0/0": "x"}
    assert list(found) == list(expected)
    for name, theirs in expected.items():
        assert found[name].dtype == np.float32
        assert_array_equal(found[name], ARRAYS[theirs])


def test_numbers_in_another_file_are_not_read(tmp_path):
    path = written(tmp_path / "a.onnx", model(b=tensor("b", ARRAYS["b"], data_location=1)))
    with pytest.raises(WeightsError, match=r"a\.onnx: the numbers of 'b' are in another file, which is not read"):
        read(path)


def test_numbers_fit_their_shape(tmp_path):
    huge = tensor("12", ARRAYS["12"])
    huge.dims[0] = 10**12
    with pytest.raises(WeightsError, match=r"a\.onnx is no ONNX graph, or is cut off: .*108 numbers for the shape"):
        read(written(tmp_path / "a.onnx", model(**{"12": huge})))
    odd = tensor("b", ARRAYS["b"])
    odd.raw_data = b"12345"
    with pytest.raises(WeightsError, match=r"b\.onnx: buffer size must be a multiple"):
        read(written(tmp_path / "b.onnx", model(b=odd)))


def test_what_is_no_graph_is_refused(tmp_path):
    whole = model().SerializeToString()
    empty = messages()["Model"](ir_version=8, graph=messages()["Graph"](name="g")).SerializeToString()
    for name, content in {"cut": whole[:200], "text": b"no graph at all", "nothing": b"", "empty": empty}.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}\\.onnx (is no ONNX graph|holds no float32 initialiser)"):
            read_initializers(path)


def test_every_beginning_of_a_file_is_read_or_refused(tmp_path):
    whole, path = model().SerializeToString(), tmp_path / "a.onnx"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"a\.onnx"):
            read(path)
