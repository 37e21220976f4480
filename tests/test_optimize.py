"""Freezing and grouping of parameters, against what optax and the plain task do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision import experiment, optimize, train
from jaxvision.gradient import mean_gradient
from jaxvision.run import checkpoint
from jaxvision.tasks.classification import classification
from jaxvision.train import exponential_average
from jaxvision.types import Stream

FROZEN = ("Conv_0/.*", "BatchNorm_0/scale")


@pytest.fixture
def task(tiny_net):
    task = classification(tiny_net(), mean=100.0, std=50.0)
    return task._replace(init=jax.jit(task.init))


@pytest.fixture
def batch(colour_batch):
    return jax.tree.map(jnp.asarray, colour_batch())


def flat(tree):
    return dict(zip(jax.tree.leaves(optimize.names(tree)), jax.tree.leaves(tree), strict=True))


def test_names_are_paths():
    params = {"backbone": {"conv1": {"kernel": 0, "bias": 1}}, "head": [2, 3]}
    assert optimize.names(params) == {
        "backbone": {"conv1": {"kernel": "backbone/conv1/kernel", "bias": "backbone/conv1/bias"}},
        "head": ["head/0", "head/1"],
    }


def test_frozen_parameters_never_change_and_the_others_learn(task, batch, train_steps):
    frozen = optimize.freeze(task, FROZEN)
    first, _ = train_steps(frozen, batch, steps=0)
    before = {"params": first.params, **first.collections}
    state, losses = train_steps(frozen, batch, average=exponential_average(0.5))
    assert losses[-1] < losses[0] / 2
    assert flat(state.collections["frozen"]).keys() == {"Conv_0/kernel", "Conv_0/bias", "BatchNorm_0/scale"}
    for name, x in flat(state.collections["frozen"]).items():
        assert (np.asarray(x) == np.asarray(flat(before["frozen"])[name])).all()
    assert flat(state.params).keys() == {"BatchNorm_0/bias", "Dense_0/kernel", "Dense_0/bias"}
    for name, x in flat(state.params).items():
        assert (np.asarray(x) != np.asarray(flat(before["params"])[name])).any()
    moments = [x.shape for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert sorted(moments) == sorted(2 * [x.shape for x in jax.tree.leaves(state.params)])


def test_loss_prediction_and_gradient_are_those_of_the_whole_task(task, batch, float64, tiny_net):
    task = classification(tiny_net(dtype=jnp.float64), mean=100.0, std=50.0, dtype=jnp.float64)
    frozen = optimize.freeze(task, FROZEN)
    key = jax.random.key(3)
    variables, split = jax.jit(task.init)(key, batch), jax.jit(frozen.init)(key, batch)
    (loss, out), gradient = jax.jit(mean_gradient(task.loss))(variables, batch, key)
    (again, out_again), rest = jax.jit(mean_gradient(frozen.loss))(split, batch, key)
    np.testing.assert_allclose(again, loss, rtol=1e-9)
    assert flat(rest).keys() == flat(split["params"]).keys()
    for name, x in flat(rest).items():
        np.testing.assert_allclose(x, flat(gradient)[name], rtol=1e-9, atol=1e-12)
    assert out_again.collections.keys() == out.collections.keys() == {"batch_stats"}
    logits = jax.jit(task.predict)(variables, batch).logits
    np.testing.assert_array_equal(jax.jit(frozen.predict)(split, batch).logits, logits)


def test_whole_undoes_split_and_merges_the_averaged_variables_too(task, batch):
    variables = task.init(jax.random.key(0), batch)
    split = optimize.split(variables, FROZEN)
    ema = {"params": jax.tree.map(lambda x: x + 1, split["params"]), "batch_stats": variables["batch_stats"]}
    whole = optimize.whole({**split, "ema": ema})
    assert jax.tree.structure(whole["params"]) == jax.tree.structure(whole["ema"]["params"])
    assert jax.tree.structure(optimize.whole(split)) == jax.tree.structure(variables)
    averaged = flat(whole["ema"]["params"])
    for name, x in flat(variables["params"]).items():
        assert (flat(whole["params"])[name] == x).all()
        assert (averaged[name] == (x + 1 if name in flat(split["params"]) else x)).all()
    assert optimize.whole({**split, "ema": None})["ema"] is None


def test_freezing_twice_freezes_both(task, batch):
    twice = optimize.freeze(optimize.freeze(task, FROZEN[:1]), FROZEN[1:])
    once = optimize.freeze(task, FROZEN)
    key = jax.random.key(0)
    shapes = [jax.eval_shape(each.init, key, batch) for each in (once, twice)]
    assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])
    one, two = (jax.jit(lambda each=each: each.loss(each.init(key, batch), batch, key)[0])() for each in (once, twice))
    assert one == two


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["conv_0/.*"], r"frozen: 'conv_0/\.\*' matches no parameter; the nearest names are Conv_0/"),
        (["Conv_0"], "frozen: 'Conv_0' matches no parameter; the nearest names are Conv_0/bias, Conv_0/kernel"),
        (["Conv_0/.*", "head/.*"], r"'head/\.\*' matches no parameter"),
        (["Conv.*", "[BD].*"], "frozen: nothing is left to train, 'Conv.*', '.BD..*' match all of 6 parameters"),
        (["Conv(.*"], r"'Conv\(\.\*' is no regular expression: missing \)"),
    ],
)
def test_patterns_that_freeze_nothing_or_all_are_refused(task, batch, patterns, message):
    frozen = optimize.freeze(task, patterns)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(frozen.init, jax.random.key(0), batch)


def test_an_experiment_starts_from_whole_weights_and_trains_what_is_not_frozen(task, batch):
    seen = {}

    def start(variables):
        seen.update(variables)
        return {**variables, "params": jax.tree.map(lambda x: x + 1, variables["params"])}

    spec = jax.eval_shape(lambda: batch)
    chosen = experiment.Experiment(
        task, optax.sgd(0.1), 1, Stream(spec, None, None), start=start, frozen=FROZEN, average=exponential_average(0.5)
    )
    state = experiment.first_state_of(chosen)
    plain = experiment.first_state_of(chosen._replace(frozen=(), start=None))
    assert jax.tree.structure(seen["params"]) == jax.tree.structure(plain.params)
    for name, x in flat(optimize.whole(state.variables)["params"]).items():
        np.testing.assert_array_equal(x, flat(plain.params)[name] + 1)
    after, _ = jax.jit(experiment.train_step_of(chosen))(state, batch)
    assert "frozen" not in after.ema
    prediction = jax.jit(experiment.task_of(chosen).predict)(after.averaged, batch)
    assert prediction.logits.shape == (12, 3)
    unfrozen = experiment.task_of(chosen._replace(frozen=()))
    assert unfrozen.init(jax.random.key(0), batch).keys() == {"params", "batch_stats"}


def test_groups_are_separate_optimizers(batch, task):
    variables = task.init(jax.random.key(0), batch)
    params = variables["params"]
    (_, _), gradient = jax.jit(mean_gradient(task.loss))(variables, batch, jax.random.key(1))
    adam, sgd = optax.adamw(1e-2, weight_decay=0.1), optax.sgd(0.5, momentum=0.9)
    optimizer = optimize.by_group({"Conv_0/.*": adam, ".*": sgd})
    state = jax.jit(optimizer.init)(params)
    body, rest = ({k: v for k, v in params.items() if (k == "Conv_0") is own} for own in (True, False))
    states = [adam.init(body), sgd.init(rest)]
    for _ in range(3):
        updates, state = jax.jit(optimizer.update)(gradient, state, params)
        params = optax.apply_updates(params, updates)
        for i, (own, transformation) in enumerate([(body, adam), (rest, sgd)]):
            updates, states[i] = jax.jit(transformation.update)({k: gradient[k] for k in own}, states[i], own)
            own.update(optax.apply_updates(own, updates))
    for name, x in flat(params).items():
        np.testing.assert_allclose(x, flat({**body, **rest})[name], rtol=1e-6)


def test_groups_work_inside_a_chain_in_the_train_step_and_in_a_checkpoint(task, batch, train_steps, tmp_path):
    group = optimize.by_group({".*/kernel": optax.adam(1e-2), ".*": optax.sgd(1e-2)})
    state, losses = train_steps(task, batch, optimizer=optax.chain(optax.clip_by_global_norm(1.0), group))
    assert losses[-1] < losses[0] / 2
    with checkpoint.Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(30, state, {}, None)
        saved = checkpoints.newest(state)
    assert saved is not None
    assert jax.tree.structure(saved.state) == jax.tree.structure(state)


def test_every_parameter_is_in_the_first_group_that_matches(task, batch):
    params = task.init(jax.random.key(0), batch)["params"]
    group = optimize.by_group({".*/kernel": optax.sgd(1.0), "Dense.*": optax.sgd(2.0), ".*": optax.sgd(3.0)})
    assert flat(group.init(params).group_of(params)) == {
        "Conv_0/kernel": ".*/kernel",
        "Conv_0/bias": ".*",
        "BatchNorm_0/scale": ".*",
        "BatchNorm_0/bias": ".*",
        "Dense_0/kernel": ".*/kernel",
        "Dense_0/bias": "Dense.*",
    }


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["Conv_0/.*"], "by_group: no pattern matches BatchNorm_0/bias, .* and 1 more; there are 'Conv_0"),
        (["Konv.*", ".*"], r"by_group: 'Konv\.\*' matches no parameter; the nearest names are Conv_0/"),
        (
            [".*", "Conv_0/.*"],
            r"by_group: 'Conv_0/\.\*' gets no parameter: earlier patterns take Conv_0/bias, Conv_0/k",
        ),
    ],
)
def test_groups_that_leave_something_out_or_get_nothing_are_refused(task, batch, patterns, message):
    optimizer = optimize.by_group({pattern: optax.sgd(0.1) for pattern in patterns})
    with pytest.raises(ValueError, match=message):
        train.init_state(task, optimizer, jax.random.key(0), jax.eval_shape(lambda: batch))
