"""Models in 8-bit numbers: near those that they were made of, kernels rounded as NumPy rounds them; the laws of tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("jax2onnx", reason="pip install 'jaxvision[onnx]', then pip install --no-deps jax2onnx==0.17.1")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import eight_bits  # noqa: E402
from finished_run import finished_run, one_line  # noqa: E402

from jaxvision import evaluate, export, lighten, run  # noqa: E402
from jaxvision.errors import ConfigError  # noqa: E402
from jaxvision.run import transfer  # noqa: E402
from jaxvision.trust.lighter.onnx_task import COLLECTION  # noqa: E402

pytestmark = [
    pytest.mark.onnx,
    pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def made():
    return eight_bits.small()


def test_laws(made):
    task, variables, batch = made
    compiled = jax.jit(task.predict)
    first = compiled(variables, batch.replace(target=None)).logits
    np.testing.assert_array_equal(first, task.predict(variables, batch).logits)
    spoilt = batch.image.at[:, -1:].set(77)  # outside `size`
    np.testing.assert_array_equal(first, compiled(variables, batch.replace(image=spoilt, target=None)).logits)
    assert compiled._cache_size() == 1
    moved = batch.image.astype(jnp.float32) + 0.3
    np.testing.assert_array_equal(first, task.predict(variables, batch.replace(image=moved)).logits)
    fresh = jax.eval_shape(task.init, jax.random.key(0), batch)
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, variables)
    with pytest.raises(ConfigError, match="can't be trained: train or fine-tune runs/float"):
        task.loss(variables, batch, jax.random.key(0))


def test_it_is_near_the_model_that_it_was_made_of(made):
    task, variables, batch = made
    plain, weights = eight_bits.floating(batch)
    exact = np.asarray(plain.predict(weights, batch).logits)
    found = np.asarray(task.predict(variables, batch).logits)
    assert 0 < np.abs(found - exact).max() < 0.05 * np.ptp(exact)


def test_each_kernel_is_rounded_by_channel_to_seven_bits(made):
    _, variables, batch = made
    graph = onnx.load_from_string(np.asarray(variables[COLLECTION]["model"]).tobytes()).graph
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    params = eight_bits.floating(batch)[1]["params"]
    kernels = [params[f"stage{n}_conv1"]["kernel"].transpose(3, 2, 0, 1) for n in (1, 2)] + [params["head"]["kernel"].T]
    seen = 0
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        assert all(makers[name].op_type == "DequantizeLinear" for name in node.input[:2])
        whole, scale, zero = (arrays[name] for name in makers[node.input[1]].input)
        assert whole.dtype == np.int8
        assert not zero.any()
        if node.op_type != "Conv" and whole.shape[0] != 3:
            whole = whole.T
        rows = np.asarray(kernels[seen], np.float64).reshape(len(scale), -1)
        np.testing.assert_allclose(scale, np.abs(rows).max(1) / 64, rtol=0.02)
        assert np.abs(whole.reshape(rows.shape) - rows / scale[:, None]).max() <= 0.5 + 1e-4
        seen += 1
    assert seen == 3


def test_an_int8_run_is_a_run(tmp_path, tmp_path_factory, capfd):
    float_run = finished_run(tmp_path_factory.getbasetemp() / "finished_run")
    new = tmp_path / "int8"
    command = [f"--workdir={float_run}", "--method=int8", "--eval=test"]
    assert lighten.main([*command, "--images=20", f"--output={new}"]) == 0
    said = capfd.readouterr().out
    assert "of the one in float32" in said
    accuracy = next(line.split() for line in said.splitlines() if line.startswith("test/accuracy"))
    found = run.evaluate(new, names=["test"])
    assert found.evaluations["test"].metrics["accuracy"] == pytest.approx(float(accuracy[2]), abs=1e-4)
    assert evaluate.main([f"--workdir={new}", "--eval=test"]) == 0
    file = next((float_run.parent / "images").rglob("*.png"))
    (ours,), (theirs,) = (run.load(each).predict([file])[0].values() for each in (new, float_run))
    for mine in ours:
        wanted = next(each["probability"] for each in theirs if each["name"] == mine["name"])
        assert mine["probability"] == pytest.approx(wanted, abs=0.05)
    capfd.readouterr()
    assert export.main([f"--workdir={new}", "--format=onnx", f"--output={tmp_path / 'file'}"]) == 0
    model = run.load(new).variables[COLLECTION]["model"]
    assert (tmp_path / "file/model.onnx").read_bytes() == np.asarray(model).tobytes()
    assert export.main([f"--workdir={new}", f"--output={tmp_path / 'other'}"]) == 2
    assert "--format=onnx alone" in one_line(capfd.readouterr().err)
    with pytest.raises(ConfigError, match=f"holds no parameters to start from: it was made of {float_run}"):
        transfer.from_run(new)({})
    assert lighten.main([f"--workdir={new}", "--method=int8", f"--output={tmp_path / 'twice'}"]) == 2
    assert "is an ONNX file already" in one_line(capfd.readouterr().err)
    assert lighten.main([*command, "--images=25", f"--output={tmp_path / 'many'}"]) == 2
    assert "--images=25: there are 24 training images" in one_line(capfd.readouterr().err)
    assert not (tmp_path / "many").exists()
