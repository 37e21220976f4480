"""Files of weights: every format gives the arrays that were saved, and a bad file is refused without running any of it."""

import contextlib
import hashlib
import os
import pickle
import pickletools
import shutil
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import save_file

from jaxvision.pretrained.files import read

GOLDEN = Path(__file__).parent / "golden"
TORCH = ("weights.pth", "weights_before_1_6.pth")
KERAS = ("weights.h5", "weights.weights.h5")


def counted(shape, dtype=np.float32):
    return (np.arange(np.prod(shape)) / 2).reshape(shape).astype(dtype)


def assert_same(found, expected):
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert_array_equal(found[name], array, err_msg=name, strict=True)


@pytest.mark.parametrize("name", TORCH)
def test_files_that_torch_wrote(name):
    expected = {
        "conv.weight": counted((2, 3, 2, 2)),
        "turned": counted((2, 3)).T,
        "part": counted(20)[4:10:2],
        "whole": counted(20),
        "half": counted(3, np.float16),
        "brain": counted(3, ml_dtypes.bfloat16),
        "double": counted(3, np.float64),
        "bn.num_batches_tracked": np.array(7),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 4), np.float32),
        "parameter": counted((2, 2)),
    }
    assert_same(read(GOLDEN / name), expected)


@pytest.mark.parametrize("name", KERAS)
def test_files_that_keras_wrote(name):
    norm = ("gamma", "beta", "moving_mean", "moving_variance")
    expected = {
        "conv1_conv/kernel": counted((3, 3, 3, 2)),
        "conv1_conv/bias": counted(2),
        **{f"conv1_bn/{part}": counted(2) for part in norm},
        "conv2d_0/kernel": counted((1, 1, 2, 2)),
        **{f"batch_normalization_0/{part}": counted(2) for part in norm[1:]},
        "conv2d_1/kernel": counted((1, 1, 2, 2)),
        "predictions/kernel": counted((8, 2)),
        "predictions/bias": counted(2),
    }
    assert_same(read(GOLDEN / name), expected)


def test_safetensors_and_npz(tmp_path):
    arrays = {"a": counted((2, 3)), "b/c": np.array(3), "brain": counted(4, ml_dtypes.bfloat16)}
    save_file(arrays, tmp_path / "named_as_it_likes")
    assert_same(read(tmp_path / "named_as_it_likes"), arrays)
    del arrays["brain"]
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    assert_same(read(str(tmp_path / "a.npz")), arrays)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_numpy_arrays(tmp_path, protocol):
    arrays = {
        "conv": [counted((2, 3)), np.asfortranarray(counted((3, 2)))],
        "big": counted(4).astype(">f4"),
        "scalar": np.float64(0.5),
        "none": np.zeros((0, 2), np.int8),
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays, protocol))
    found = read(tmp_path / "a.pkl")
    assert sorted(found) == ["big", "conv/0", "conv/1", "none", "scalar"]
    for name, array in {"conv/0": arrays["conv"][0], "conv/1": arrays["conv"][1], **arrays}.items():
        if name != "conv":
            assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype


def test_one_set_of_several():
    """torch wrote them; unless told otherwise, the averaged one is taken."""
    path = GOLDEN / "weights_of_a_run.pth"
    assert_same(read(path), {"a": counted(3)})
    assert_same(read(path, inside="model"), {"a": counted(2)})
    with pytest.raises(ValueError, match=r"inside='ema'; there are: 'model' \(1 array\), 'model_ema'"):
        read(path, inside="ema")


def test_the_only_set_is_taken(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"epoch": 3, "state": {"weights": {"a": counted(2)}}}))
    assert_same(read(tmp_path / "a.pkl"), {"a": counted(2)})


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {}])
def test_no_weights_in_it(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"a\.pkl: it holds no set of named arrays"):
        read(tmp_path / "a.pkl")


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def in_torch_archive(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)


def plain(path, content):
    path.write_bytes(content)


@pytest.mark.parametrize("write", [plain, in_torch_archive])
def test_a_pickle_that_would_run_code_does_not(tmp_path, write):
    victim = tmp_path / "victim"
    content = pickle.dumps({"w": np.zeros(2), "x": Malicious(victim)}, protocol=2)
    pickle.loads(content)
    assert victim.exists()
    victim.unlink()
    write(tmp_path / "bad.pth", content)
    with pytest.raises(
        ValueError, match=r"bad\.pth: it holds no set of named arrays; it has: x \((posix|nt)\.system\)"
    ):
        read(tmp_path / "bad.pth")
    assert not victim.exists()


def test_a_whole_module_gives_its_arrays():
    found = read(GOLDEN / "weights_as_module.pth")
    assert {name: array.shape for name, array in found.items()} == {"weight": (1, 2), "bias": (1,)}


@pytest.mark.parametrize("name", ["builtins eval", "numpy load", "torch load", "jaxvision.pretrained.pickled os"])
def test_what_is_not_an_array_is_named(tmp_path, name):
    module, attribute = name.split()
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + f"c{module}\n{attribute}\n.".encode())
    with pytest.raises(ValueError, match=f"no set of named arrays, but a {module}.{attribute}"):
        read(tmp_path / "a.pkl")


def test_what_a_pickle_may_name_it_can_not_change(tmp_path):
    sets = b"\x80\x02ctorch\nSize\nN}X\x05\x00\x00\x00_callNs\x86b."
    assert [code.name for code, *_ in pickletools.genops(sets)][-2:] == ["BUILD", "STOP"]
    (tmp_path / "a.pkl").write_bytes(sets)
    with pytest.raises(ValueError, match="its pickle sets '_call'"):
        read(tmp_path / "a.pkl")
    assert read(GOLDEN / "weights.pth")["part"].shape == (3,)


def test_arrays_of_objects_are_refused(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": np.array([{}], dtype=object)}, protocol=4))
    with pytest.raises(ValueError, match=r"it has: a \(array of object, not of numbers\)"):
        read(tmp_path / "a.pkl")
    np.savez(tmp_path / "a.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"a\.npz: "):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("tensor", ["shape", "offset", "count"])
def test_a_tensor_can_not_show_memory_beyond_its_storage(tmp_path, tensor):
    """The tensor "whole" is the storage's 20 numbers, in a file whose bytes are easily changed."""
    content = (GOLDEN / "weights_before_1_6.pth").read_bytes()
    before, after = {
        "shape": (b"K\x14\x85", b"K\x15\x85"),  # (20,) becomes (21,)
        "offset": (b"QK\x00K\x14\x85", b"QK\x01K\x14\x85"),
        "count": (b"K\x14N", b"K\x40N"),
    }[tensor]
    assert before in content
    (tmp_path / "a.pth").write_bytes(content.replace(before, after))
    with pytest.raises(ValueError, match=r"a\.pth: (a tensor of shape .* reaches beyond its 20 numbers|its storage)"):
        read(tmp_path / "a.pth")


def written(folder):
    """A file of every format."""
    save_file({"a": counted(50)}, folder / "a.safetensors")
    np.savez(folder / "a.npz", a=counted(50))
    (folder / "a.pkl").write_bytes(pickle.dumps({"a": counted(50)}))
    for name in (*TORCH, *KERAS):
        shutil.copy(GOLDEN / name, folder / name)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("share", [0.3, 0.8, 0.999])
def test_a_file_that_was_cut_off_is_named(tmp_path, share):
    for path in written(tmp_path):
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match=path.name) as error:
            read(path)
        assert "\n" not in str(error.value)


class Refused(Exception):
    """A ValueError that names the file."""


@contextlib.contextmanager
def naming(path):
    try:
        yield
    except ValueError as error:
        raise (Refused if path.name in str(error) else AssertionError)(str(error)) from error


def test_flipped_bytes_raise_nothing_else(tmp_path):
    """Whatever is wrong with a file, the answer is a ValueError that names it, or arrays."""
    random = np.random.RandomState(0)
    for path in written(tmp_path):
        content = path.read_bytes()
        for _ in range(30):
            broken = bytearray(content)
            for place in random.randint(len(content), size=3):
                broken[place] = random.randint(256)
            path.write_bytes(broken)
            with contextlib.suppress(Refused), naming(path):
                read(path)


@pytest.mark.parametrize("content", [b"", b"P", b"\x80", b"a text", b"\x89HDF", b"PK\x03\x04", b"\0" * 8 + b"{"])
def test_what_is_no_file_of_weights(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pth: "):
        read(tmp_path / "a.pth")


def test_an_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(ValueError, match=r"a\.zip: an archive of neither NumPy nor PyTorch"):
        read(tmp_path / "a.zip")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file of weights .*nowhere\.pth"):
        read(tmp_path / "nowhere.pth")


def test_a_path_from_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "a.npz", a=counted(3))
    assert_same(read("~/a.npz"), {"a": counted(3)})


def test_the_hash_of_a_file_is_checked():
    path = GOLDEN / "weights.pth"
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    read(path, found)
    read(path, found[:8])
    with pytest.raises(ValueError, match=f"weights.pth: its sha256 is {found}, not {'0' * 64}"):
        read(path, "0" * 64)
    with pytest.raises(ValueError, match="must be 8 to 64 hexadecimal digits"):
        read(path, found[:7])
