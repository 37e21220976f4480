"""Checkpoints as training scripts write them: the weights are read whatever is saved beside them and however they are led."""

import argparse
import collections
import datetime
import pathlib
import random
import sys
import types

import jax
import numpy as np
import pytest
import torch_files
from flax import linen as nn
from numpy.testing import assert_allclose, assert_array_equal
from torch_files import Call, Global, New, Persistent

from jaxvision.errors import WeightsError
from jaxvision.pretrained.files import read, read_weights
from jaxvision.pretrained.start import start
from jaxvision.pretrained.strict import Source, load, unprefixed
from jaxvision.pretrained.torch_layout import dense_kernel, module_sources, unchanged

WEIGHTS = {"fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "fc.bias": np.ones(2, np.float32)}
MOMENTUM = {
    "state": {0: {"momentum_buffer": np.ones((2, 3), np.float32)}},
    "param_groups": [{"lr": 0.1, "params": [0]}],
}
PATH = Call("pathlib", "PosixPath", "runs", "one")
BESIDE = {
    "nothing": None,
    "epoch": 3,
    "args": New("argparse", "Namespace", {"lr": 0.1, "output": PATH, "device": Call("torch", "device", "cuda", 0)}),
    "lr_scheduler": {"milestones": Call("collections", "Counter", {3: 1, 6: 1}), "base_lrs": [0.1]},
    "path": PATH,
    "set": {"conv", "fc"},
    "dtype": Global("torch", "float32"),
    "classes": Call("collections", "defaultdict", Global("builtins", "list"), entries={"cat": [1]}),
    "hyper_parameters": Call("lightning.fabric.utilities.data", "AttributeDict", entries={"width": 64}),
    "best": Call("numpy.core.multiarray", "scalar", Call("numpy", "dtype", "f8", 0, 1), b"\0" * 8),
    "optimizer": MOMENTUM,
    "optimizer_states": [MOMENTUM],
    "callbacks": {"ModelCheckpoint": {"best_k_models": {"a.ckpt": np.array(0.5, np.float32)}}},
    "enum": Call("mytrainer.modes", "Mode", "train"),
    "bound": Call("__builtin__", "getattr", PATH, "joinpath"),
    "rng": np.zeros(16, np.uint8),
}


def assert_weights(found, expected=WEIGHTS):
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("save", [torch_files.save, torch_files.save_before_1_6])
@pytest.mark.parametrize("beside", BESIDE)
def test_what_is_beside_the_weights_is_passed_over(tmp_path, beside, save):
    save(tmp_path / "run.pth", {"state_dict": WEIGHTS, beside: BESIDE[beside]})
    assert_weights(read(tmp_path / "run.pth"))


def test_all_of_it_at_once(tmp_path):
    torch_files.save(tmp_path / "last.ckpt", {**BESIDE, "state_dict": WEIGHTS})
    weights = read_weights(tmp_path / "last.ckpt")
    assert_weights(weights.arrays)
    assert weights.inside == "state_dict"


def test_nothing_is_imported(tmp_path, monkeypatch):
    """Not even a class that is there."""

    def refuse(self, *_):
        raise AssertionError(f"{self} was made")

    module = types.ModuleType("somewhere")
    module.Thing = type("Thing", (), {"__init__": refuse, "__setstate__": refuse, "__call__": refuse})
    monkeypatch.setitem(sys.modules, "somewhere", module)
    monkeypatch.setattr(pathlib.PosixPath, "__new__", refuse)
    thing = [New("somewhere", "Thing", {"a": 1}), Call("somewhere", "Thing", 1), Call("pathlib", "PosixPath", "a")]
    torch_files.save(tmp_path / "run.pth", {"model": WEIGHTS, "thing": thing})
    assert_weights(read(tmp_path / "run.pth"))


def module(arrays, modules, **state):
    children = Call("collections", "OrderedDict", entries=modules)
    return New(
        "mynets", "Net", {"training": True, "_parameters": arrays, "_buffers": {}, "_modules": children, **state}
    )


def test_a_module_that_was_saved_whole(tmp_path):
    """Names as in torch's `state_dict`: children behind a dot, buffers that are not persistent left out."""
    inner = {name.removeprefix("fc."): array for name, array in WEIGHTS.items()}
    fleeting = {"_buffers": {"mean": WEIGHTS["fc.bias"], "none": None}, "_non_persistent_buffers_set": {"mean"}}
    net = module({"scale": None}, {"fc": module(inner, {}), "act": module({}, {})}, **fleeting)
    torch_files.save(tmp_path / "net.pth", net)
    assert_weights(read(tmp_path / "net.pth"))
    net.kind = Persistent(("module", net.kind, "mynets.py", "class Net: ..."))
    torch_files.save_before_1_6(tmp_path / "net.pth", {"epoch": 3, "model": net})
    assert_weights(read(tmp_path / "net.pth"))


HALF = {name: array / 2 for name, array in WEIGHTS.items()}


@pytest.mark.parametrize(
    ("sets", "taken"),
    [
        ({"model": WEIGHTS, "model_ema": HALF}, "model_ema"),
        ({"state_dict": WEIGHTS, "state_dict_ema": HALF}, "state_dict_ema"),
        ({"model": WEIGHTS, "ema": {"decay": 0.999, "module": HALF}}, "ema/module"),
        ({"model": WEIGHTS, "ema_state_dict": {"fc.weight": HALF["fc.weight"]}}, "model"),
        ({"model_state_dict": WEIGHTS, "discriminator": HALF}, "model_state_dict"),
        ({"net": WEIGHTS, "schema": HALF}, "net"),
        ({"generator": WEIGHTS, "discriminator": {"a": np.array(1.0)}}, "generator"),
    ],
)
def test_one_of_several_sets_is_taken(tmp_path, sets, taken):
    torch_files.save(tmp_path / "run.pth", {"epoch": 1, **sets})
    weights = read_weights(tmp_path / "run.pth")
    assert weights.inside == taken
    expected = sets
    for name in taken.split("/"):
        expected = expected[name]
    assert_weights(weights.arrays, expected)


@pytest.mark.parametrize("names", [("student", "teacher"), ("model", "net"), ("model_ema", "ema")])
def test_sets_that_no_name_tells_apart_are_told(tmp_path, names):
    torch_files.save(tmp_path / "run.pth", {names[0]: WEIGHTS, names[1]: HALF})
    with pytest.raises(WeightsError, match=rf"run\.pth: .*inside=: '{names[0]}' \(2 arrays\), '{names[1]}' \(2 arr"):
        read(tmp_path / "run.pth")
    assert_weights(read(tmp_path / "run.pth", inside=names[1]), HALF)


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="head")(x)


def sources(variables):
    return module_sources(variables, {"head": "fc"}.__getitem__)


def led(prefix, arrays=WEIGHTS):
    return {f"{prefix}{name}": array for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("arrays", "prefix"),
    [
        (led("module."), "module."),
        (led("_orig_mod."), ""),
        (led("model."), "model."),
        (led("backbone."), "backbone."),
        (led("module._orig_mod.net."), "module.net."),
        (led("_orig_mod.module."), "module."),
        ({"fc._orig_mod.weight": WEIGHTS["fc.weight"], "fc._fsdp_wrapped_module.bias": WEIGHTS["fc.bias"]}, ""),
        ({**led("module."), "n_averaged": np.array(7)}, "module."),
    ],
)
def test_what_leads_all_names_is_left_out(tmp_path, capsys, arrays, prefix):
    torch_files.save(tmp_path / "run.pth", {"state_dict": arrays})
    fresh = Dense().init(jax.random.key(0), np.zeros((1, 3), np.float32))
    variables = start(sources, tmp_path / "run.pth")(fresh)
    assert_array_equal(variables["params"]["head"]["kernel"], WEIGHTS["fc.weight"].T)
    said = capsys.readouterr().out
    assert f"{tmp_path / 'run.pth'}, its 'state_dict': 2 loaded, 8 numbers" in said
    assert (f"begin with '{prefix}'" in said) == bool(prefix)


def test_what_stands_beside_a_prefix_must_be_named(tmp_path):
    arrays = {**led("model."), "criterion.weight": np.ones(2)}
    fresh = Dense().init(jax.random.key(0), np.zeros((1, 3), np.float32))
    with pytest.raises(WeightsError, match="1 unexpected: criterion.weight"):
        load(sources(fresh), arrays, fresh)
    assert load(sources(fresh), arrays, fresh, unused=(r"criterion\..*",)).report.unused == ("criterion.weight",)
    new = load(sources(fresh), led("model."), fresh, new=("head/bias",))
    assert new.report.new == ("params/head/bias",)


def test_one_of_two_networks_of_a_file():
    """As MoCo saves them: which is meant is told by what is left aside."""
    arrays = {**led("module.encoder_q."), **led("module.encoder_k.", HALF), "module.queue": np.ones(2)}
    fresh = Dense().init(jax.random.key(0), np.zeros((1, 3), np.float32))
    loaded = load(sources(fresh), arrays, fresh, unused=(r"module\.(encoder_k\..*|queue)",))
    assert_array_equal(loaded.variables["params"]["head"]["kernel"], WEIGHTS["fc.weight"].T)
    assert (loaded.report.prefix, len(loaded.report.unused)) == ("module.encoder_q.", 3)
    with pytest.raises(WeightsError, match="2 missing: fc"):
        load(sources(fresh), arrays, fresh)


@pytest.mark.parametrize(
    "arrays",
    [
        WEIGHTS,
        {**led("a."), **led("b.")},
        {**WEIGHTS, **led("momentum.")},
        {**led("a."), **WEIGHTS},
        {"a.fc": np.ones(1)},
    ],
)
def test_names_that_no_single_prefix_leads_stay(arrays):
    assert unprefixed(arrays, set(WEIGHTS)) == (arrays, "")


def test_what_is_not_finite_is_refused_by_name(tmp_path):
    """The dense layers of the VGG16 that torchvision has for SSDs are NaN: what uses them must not start."""
    names = [f"layer{number}.weight" for number in range(7)]
    arrays = {name: np.array([1.0, value]) for name, value in zip(names, [1, *[np.nan] * 5, np.inf], strict=True)}
    ours = {"params": {name: np.zeros(2, np.float32) for name in names}}
    found = {("params", name): Source(name, unchanged) for name in names}
    with pytest.raises(WeightsError, match=r"6 not finite: layer1\.weight, .*layer5\.weight, and 1 more"):
        load(found, arrays, ours)
    wanted = {"params": {names[0]: ours["params"][names[0]]}}
    load({("params", names[0]): found["params", names[0]]}, arrays, wanted, unused=("layer[1-6].*",))


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_dense_layer_that_is_not_finite(tmp_path, bad):
    torch_files.save(tmp_path / "vgg.pth", WEIGHTS | {"fc.weight": np.full((2, 3), bad, np.float32)})
    fresh = Dense().init(jax.random.key(0), np.zeros((1, 3), np.float32))
    with pytest.raises(WeightsError, match=r"vgg\.pth: .* the network: 1 not finite: fc\.weight"):
        start(sources, tmp_path / "vgg.pth")(fresh)


def test_the_axes_turn_with_a_prefix():
    kernel = {("params", "head", "kernel"): Source("fc.weight", dense_kernel)}
    ours = {"params": {"head": {"kernel": np.zeros((3, 2), np.float32)}}}
    found = load(kernel, led("model.", {"fc.weight": WEIGHTS["fc.weight"]}), ours)
    assert_array_equal(found.variables["params"]["head"]["kernel"], WEIGHTS["fc.weight"].T)


def forms(torch):
    """Contents of checkpoints by what makes them, each with the same weights of a layer and all that is beside them."""
    layer = torch.nn.Sequential(collections.OrderedDict(fc=torch.nn.Linear(3, 2)))
    state = layer.state_dict()
    adam, sgd = torch.optim.AdamW(layer.parameters()), torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    layer(torch.ones(1, 3)).sum().backward()
    adam.step(), sgd.step()
    settings = argparse.Namespace(lr=0.1, output=pathlib.PurePosixPath("runs"), device=torch.device("cuda:0"))
    rate = torch.optim.lr_scheduler.MultiStepLR(sgd, [3, 6]).state_dict()
    averaged = torch.optim.swa_utils.AveragedModel(layer).state_dict()
    randomness = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}
    return state, {
        "torchvision": {"model": state, "optimizer": sgd.state_dict(), "lr_scheduler": rate, "args": settings},
        "averaged": {"model": state, "model_ema": averaged, "scaler": torch.amp.GradScaler("cpu").state_dict()},
        "detr": {"model": state, "optimizer": adam.state_dict(), "epoch": 3, "args": settings},
        "parallel": {"state_dict": led("module.", state), "arch": "resnet18", "best_acc1": torch.tensor(61.5)},
        "compiled": led("_orig_mod.", state),
        "lightning": {
            "state_dict": led("model.", state),
            "optimizer_states": [adam.state_dict()],
            "callbacks": {"ModelCheckpoint": {"best_k_models": {"a.ckpt": torch.tensor(0.5)}}},
            "hyper_parameters": collections.defaultdict(list, {"betas": [0.9]}),
        },
        "random": {"model": state, "rng": randomness, "best": np.float64(0.5), "when": datetime.datetime(2026, 1, 1)},
        "ordered": {"net": collections.OrderedDict(state), "classes": {"cat", "dog"}, "count": collections.Counter("aab")},
        "types": {"weights": state, "dtype": torch.bfloat16, "size": torch.Size([3, 2]), "path": pathlib.PurePosixPath("a")},
        "whole": layer,
        "whole_parallel": {"model": torch.nn.DataParallel(layer), "loss": torch.nn.CrossEntropyLoss(torch.ones(2))},
        "half": {"model": {name: each.half() for name, each in state.items()}, "epoch": 1},
    }  # fmt: skip


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_that_torch_writes(tmp_path, zipped):
    torch = pytest.importorskip("torch", reason="needs torch: install the parity extra")
    state, contents = forms(torch)
    fresh = Dense().init(jax.random.key(0), np.zeros((1, 3), np.float32))
    for name, content in contents.items():
        torch.save(content, tmp_path / f"{name}.pth", _use_new_zipfile_serialization=zipped)
        variables = start(sources, tmp_path / f"{name}.pth")(fresh)
        expected = state["fc.weight"].numpy().T
        tolerance = 1e-3 if name == "half" else 0
        assert_allclose(variables["params"]["head"]["kernel"], expected, rtol=tolerance, err_msg=name)
