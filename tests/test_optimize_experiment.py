"""The study of optimizers: each choice builds, and a wrong one is answered with the allowed ones."""

from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from jaxvision import experiment, main
from jaxvision.run import devices
from jaxvision.run.config import configure, load
from jaxvision.run.preflight.treatment import treatments

FILE = Path(__file__).parent.parent / "experiments" / "optimizers.py"
study = load(FILE)


def build(**fields):
    config = configure(study.get_config(), {name: str(value) for name, value in fields.items()})
    devices.resolve_precision(config)
    return study.build(config)


@pytest.mark.slow
def test_every_optimizer_with_every_schedule_keeps_the_shapes_of_its_state():
    chosen = build()
    params = jax.eval_shape(lambda: experiment.first_state_of(chosen).params)
    loss = jax.ShapeDtypeStruct((), np.float32)
    for name in study.optimizers(0.1, 0.01):
        for schedule in study.schedules(0.1, 10):
            chosen = build(optimizer=name, schedule=schedule, epochs=1)
            assert chosen.train.spec.image.shape[0] == (10_000 if name == "gradient_descent" else 100)
            state = jax.eval_shape(chosen.optimizer.init, params)
            update = optax.with_extra_args_support(chosen.optimizer).update
            _, after = jax.eval_shape(lambda g, s, p, v, f=update: f(g, s, p, value=v), params, state, params, loss)
            assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)
    assert set(study.RATES) == set(study.optimizers(0.1, 0.01))


def test_penalties_are_logged_and_patience_stops():
    chosen = build(l1=1e-4, l2=1e-3, patience=2)
    state = jax.eval_shape(lambda: experiment.first_state_of(chosen))
    _, metrics = jax.eval_shape(experiment.train_step_of(chosen), state, chosen.train.spec)
    assert {"l1", "l2"} <= metrics.keys()
    history = [{"step": i, "test/accuracy": 0.5} for i in range(3)]
    assert [chosen.stop(history[:n]) for n in (1, 2, 3)] == [False, False, True]
    assert not build().stop(history)


def test_a_plateau_scales_the_last_update():
    optimizer = build(schedule="plateau", optimizer="sgd", learning_rate=1.0).optimizer
    params = {"head": {"kernel": np.ones((2, 2), np.float32)}}
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for _ in range(101):  # half an epoch to see the loss, another to see it fall no more
        updates, state = update(params, state, params, value=np.float32(1))
    np.testing.assert_allclose(updates["head"]["kernel"], -0.5)


def test_muon_trains_convolutions_and_adam_the_rest():
    chosen = build(optimizer="muon")
    params = jax.eval_shape(lambda: experiment.first_state_of(chosen).params)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for name, how in zip(names, treatments(chosen.optimizer, params, 100), strict=True):
        convolution = "conv" in name
        assert how.group == ("stage.*/kernel" if convolution else ".*")
        assert how.decays == convolution


@pytest.mark.parametrize("field", ["optimizer", "schedule"])
def test_an_unknown_name_is_answered_with_the_allowed_ones(field, tmp_path, capfd):
    assert main.main([f"--config={FILE}", f"--workdir={tmp_path / 'run'}", f"--config.{field}=adm"]) == 2
    said = capfd.readouterr().err
    assert f"jaxvision: config.{field} is 'adm'; allowed: " in said
    assert ("adam, adamw" if field == "optimizer" else "cosine, warmup") in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()
