"""Files of weights that were made to do harm end in one line that names them: nothing runs, and little memory is taken."""

import json
import os
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
import torch_files
from torch_files import Call, Global, New, Storage

from jaxvision.errors import WeightsError
from jaxvision.pretrained.export import keras_file
from jaxvision.pretrained.files import read

HUGE = 10**12
ONE = Storage(np.zeros(1, np.float32), "0")


def tensor(shape, strides, storage=ONE):
    return Call("torch._utils", "_rebuild_tensor_v2", storage, 0, shape, strides, False, {})


def archive(path, content, *, storage=ONE):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", content)
        file.writestr(f"archive/data/{storage.key}", storage.array.tobytes())


def pickled(tree):
    return torch_files.Writer().pickled(tree)


def repeated_numbers(path):
    archive(path, pickled({"a": tensor((HUGE,), (0,))}))


def many_views_of_a_storage(path):
    numbers = Storage(np.zeros(100_000, np.float32), "0")
    views = {f"a{number}": tensor((100_000,), (1,), numbers) for number in range(3_000)}
    archive(path, pickled(views), storage=numbers)


def a_storage_that_is_not_there(path):
    storage = Storage(np.broadcast_to(np.float32(0), HUGE), "0")
    content = pickled({"a": tensor((1,), (1,), storage)})
    path.write_bytes(torch_files.BEGINNING + content + pickle.dumps(["0"], 2) + HUGE.to_bytes(8, "little"))


def nested_lists(path):
    path.write_bytes(b"\x80\x02" + b"]" * 1000 + b"a" * 999 + b".")


def nested_dicts(path):
    path.write_bytes(b"\x80\x02" + b"}X\x01\x00\x00\x00a" * 1000 + b"N" + b"s" * 1000 + b".")


def a_list_within_itself(path):
    path.write_bytes(b"\x80\x02]q\x00h\x00a.")


def twice_the_one_before(opening, closing):
    """A pickle of forty things, each of which holds the one before it twice."""
    before = b"N"
    content = before + b"q\x00"
    for number in range(40):
        content = content + b"0" + opening + b"h" + bytes([number]) + closing(number) + b"q" + bytes([number + 1])
    return b"\x80\x02" + content + b"."


def doubled_lists(path):
    path.write_bytes(twice_the_one_before(b"", lambda number: b"h" + bytes([number]) + b"\x86"))


def doubled_dicts(path):
    name = [b"X\x01\x00\x00\x00" + letter for letter in (b"a", b"b")]
    content = b"\x80\x02N"
    for number in range(40):
        content += b"q" + bytes([number]) + b"0}(" + name[0] + b"h" + bytes([number])
        content += name[1] + b"h" + bytes([number]) + b"u"
    path.write_bytes(content + b".")


def doubled_modules(path):
    writer = torch_files.Writer()
    content = b"\x80\x02" + writer.code(
        New("a", "B", {"_parameters": {"w": ONE_NUMBER}, "_buffers": {}, "_modules": {}})
    )
    for number in range(40):
        inner = b"h" + bytes([number + 100])
        children = b"}(" + writer.code("a") + inner + writer.code("b") + inner + b"u"
        state = b"}(" + writer.code("_parameters") + b"}" + writer.code("_buffers") + b"}" + writer.code("_modules")
        content += (
            b"q" + bytes([number + 100]) + b"0" + writer.code(Global("a", "B")) + b")\x81" + state + children + b"ub"
        )
    path.write_bytes(content + b".")


ONE_NUMBER = Call("numpy.core.multiarray", "scalar", Call("numpy", "dtype", "f4", 0, 1), b"\0" * 4)


def a_distant_place_in_the_memo(path):
    path.write_bytes(b"\x80\x02Nr\xff\xff\xff\x7f.")


def many_classes(path):
    path.write_bytes(b"\x80\x02](" + b"".join(b"ca\nb%d\n" % number for number in range(20_000)) + b"e.")


def an_array_of_npz(path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }" % HUGE
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + b"\0" * 8
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.npy", content)


def a_compressed_array(path):
    np.savez_compressed(path, a=np.zeros(8_000_000, np.float32))


def a_compressed_pickle(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"N0" * 16_000_000)


def safetensors(path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def a_long_header(path):
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{")


def field(number, value):
    """A field of a protocol buffer: bytes, or a whole number."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def varint(value):
    low = value & 0x7F
    return bytes([low | 0x80]) + varint(value >> 7) if value > 0x7F else bytes([low])


def constant(side, name=b"a"):
    tensor = field(1, 1) + field(2, field(2, field(1, side))) + field(5, struct.pack("<2f", 1, 2))
    attribute = field(1, b"value") + field(2, field(8, tensor))
    return field(1, field(1, name) + field(2, b"Const") + field(5, attribute))


def a_graph(path):
    content = constant(HUGE)
    assert len(content) < 64
    path.with_suffix(".pb").write_bytes(content)


def many_constants(path):
    path.with_suffix(".pb").write_bytes(b"".join(constant(4_000_000, b"%d" % number) for number in range(1_000)))


def a_graph_with_a_number_for_a_name(path):
    path.with_suffix(".pb").write_bytes(field(1, field(1, 1 << 33) + field(2, b"Const") + field(5, b"")))


def a_darknet(path):
    path.with_suffix(".cfg").write_text(f"[net]\nchannels=3\n[convolutional]\nfilters={HUGE}\nsize=3\n")
    path.with_suffix(".weights").write_bytes(b"\0" * 64)


def keras(path, layer=True):
    """A file of one dense layer, open to be changed."""
    file = h5py.File(path.with_suffix(".h5"), "w")
    file.attrs["layer_names"] = [b"dense"]
    if layer:
        file.create_group("dense").attrs["weight_names"] = [b"kernel"]
    return file


def an_external_link(path):
    with keras(path) as file:
        file["dense/kernel"] = h5py.ExternalLink("other.h5", "secret")


def an_external_group(path):
    with keras(path, layer=False) as file:
        file["dense"] = h5py.ExternalLink("other.h5", "/")


def a_soft_link(path):
    with keras(path) as file:
        file["elsewhere"] = h5py.ExternalLink("other.h5", "secret")
        file["dense/kernel"] = h5py.SoftLink("/elsewhere")


def external_storage(path):
    with keras(path) as file:
        file["dense"].create_dataset("kernel", (8,), "u1", external=[(str(path.with_name("secret")), 0, 8)])


def a_virtual_array(path):
    with keras(path) as file:
        layout = h5py.VirtualLayout((2,), "f4")
        layout[:] = h5py.VirtualSource(str(path.with_name("other.h5")), "secret", (2,), "f4")
        file["dense"].create_virtual_dataset("kernel", layout)


def an_array_that_is_not_there(path):
    with keras(path) as file:
        file["dense"].create_dataset("kernel", (HUGE,), "f4", chunks=(1024,))


def an_array_of_texts(path):
    with keras(path) as file:
        file["dense"].create_dataset("kernel", data=["a"])


def a_device(path):
    path.symlink_to("/dev/zero")


def a_pipe(path):
    os.mkfifo(path)


def a_folder(path):
    path.mkdir()


FILES = (
    *(repeated_numbers, many_views_of_a_storage, a_storage_that_is_not_there, nested_lists, nested_dicts),
    *(a_list_within_itself, doubled_lists, doubled_dicts, doubled_modules, a_distant_place_in_the_memo, many_classes),
    *(an_array_of_npz, a_compressed_array, a_compressed_pickle, safetensors, a_long_header),
    *(a_graph, many_constants, a_graph_with_a_number_for_a_name, a_darknet),
    *(an_external_link, an_external_group, a_soft_link, external_storage, a_virtual_array),
    *(an_array_that_is_not_there, an_array_of_texts, a_device, a_pipe, a_folder),
)


def made(write, folder):
    """The file that a function of FILES writes; files beside it hold what must not be read."""
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = np.ones(2, np.float32)
        other.attrs["weight_names"] = [b"secret"]
    (folder / "secret").write_bytes(b"password")
    path = folder / ("hostile.npz" if write in (an_array_of_npz, a_compressed_array) else "hostile.pth")
    write(path)
    return next(each for each in sorted(folder.glob("hostile.*")) if each.suffix != ".cfg")


@pytest.mark.parametrize("write", FILES, ids=lambda write: write.__name__)
def test_a_hostile_file_is_refused_in_one_line(tmp_path, write):
    path = made(write, tmp_path)
    tracemalloc.start()
    begin = time.process_time()
    try:
        with pytest.raises(WeightsError) as error:
            read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.name in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300 + len(str(path))
    assert peak < 100_000_000
    assert time.process_time() - begin < 5


LIMITED = """
import resource, sys
from pathlib import Path
from jaxvision.pretrained.files import read
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, resource.RLIM_INFINITY))
try:
    read(sys.argv[1])
except ValueError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("write", [repeated_numbers, a_graph, an_array_that_is_not_there, a_compressed_array])
def test_300_megabytes_are_enough_to_refuse(tmp_path, write):
    path = made(write, tmp_path)
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("WeightsError "), done.stderr
    assert "MemoryError" not in done.stdout
    assert path.name in done.stdout


def test_an_address_of_a_device_is_refused():
    with pytest.raises(WeightsError, match="/dev/zero is no regular file"):
        read("file:///dev/zero")


@pytest.mark.parametrize("write", [an_external_link, external_storage, a_virtual_array])
def test_nothing_is_written_through_a_hostile_template_of_keras(tmp_path, write):
    path = made(write, tmp_path)
    with pytest.raises(ValueError, match=r"dense.*/kernel (in it is a link|are in another file)"):
        keras_file(lambda variables: {}, {}, tmp_path / "ours.h5", like=path)
    assert (tmp_path / "secret").read_bytes() == b"password"


def run_a_command(victim):
    return Call("posix", "system", f"touch {victim}")


def evaluate(victim):
    return Call("builtins", "eval", f"open({str(victim)!r}, 'w')")


def reach_a_module(victim):
    """What `getattr` gives is called in its turn."""
    call = Call("builtins", "getattr", Call("builtins", "__import__", "os"), "system")
    return Call("functools", "reduce", call, [f"touch {victim}"], "")


def build_with_code(victim):
    return New("subprocess", "Popen", {"args": ["touch", str(victim)], "__setstate__": Global("builtins", "exec")})


def open_a_file(victim):
    return Call("io", "open", str(victim), "w")


def from_our_own(victim):
    return Call("jaxvision.pretrained.pickled", "os.system", f"touch {victim}")


HARMS = (run_a_command, evaluate, reach_a_module, build_with_code, open_a_file, from_our_own)


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("save", [torch_files.save, torch_files.save_before_1_6])
def test_a_hostile_pickle_runs_nothing(tmp_path, harm, save):
    """Beside weights, within lists and settings, as a key, in the place of a parameter of a module."""
    victim, weights = tmp_path / "victim", {"w": np.ones(2, np.float32)}
    bad = harm(victim)
    settings = New("argparse", "Namespace", {"deep": [{"er": (bad,)}], "state": bad})
    save(tmp_path / "bad.pth", {"model": weights, "x": bad, "args": settings, "list": [bad, [bad]]})
    np.testing.assert_array_equal(read(tmp_path / "bad.pth")["w"], weights["w"])
    save(tmp_path / "bad.pth", New("a", "B", {"_parameters": {"w": bad}, "_buffers": {}, "_modules": {}}))
    with pytest.raises(WeightsError, match=r"bad\.pth: it holds no set of named arrays"):
        read(tmp_path / "bad.pth")
    assert not victim.exists()


def test_the_harm_is_real(tmp_path):
    """The standard library runs what is not run here."""
    victim = tmp_path / "victim"
    pickle.loads(torch_files.Writer().pickled(run_a_command(victim)))
    assert victim.exists()
