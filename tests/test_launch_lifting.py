"""Lifting: constants of traced steps become inputs, nothing else does, and the values stay the same."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.run import config, devices
from launch.together import families, lifting
from launch.together.equations import read
from launch.together.meaning import meaning

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


def program(function, *inputs):
    return read(jax.make_jaxpr(function)(*inputs))


def together(functions, *inputs):
    """The outputs of each function, by the program of the first, with its own constants as inputs."""
    programs = [program(each, *inputs) for each in functions]
    assert [lifting.unlike(programs[0], each) for each in programs] == [None] * len(programs)
    lifted = lifting.columns([each.constants for each in programs])
    run = jax.jit(lifting.evaluator(programs[0], lifted))
    found = [run(lifting.values(each.constants, lifted), inputs)[0] for each in programs]
    assert run._cache_size() == 1
    return lifted, found


def check(make, *numbers):
    inputs = (np.arange(1.0, 5.0, dtype=np.float32),)
    functions = [make(number) for number in numbers]
    lifted, found = together(functions, *inputs)
    for function, result in zip(functions, found, strict=True):
        np.testing.assert_allclose(result, function(*inputs), rtol=1e-6)
    return lifted


def in_a_loop(number):
    def run(x):
        return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * number), (0, x))[1]

    return run


def in_a_condition(number):
    return lambda x: jax.lax.while_loop(lambda c: c.sum() < number, lambda c: c + 1, x)


def in_a_scan(number):
    def run(x):
        return jax.lax.scan(lambda c, row: (c * number + row, c), x[0], x, reverse=True)[1]

    return run


def in_branches(number):
    def run(x):
        return jax.lax.cond(x[0] > 0, lambda y: y * number, lambda y: y + number, x)

    return run


def in_an_inner_jit(number):
    return lambda x: jax.jit(lambda y: y * number)(x)


def in_a_gradient(number):
    def loss(x):
        return (jax.nn.relu(jnp.sin(x) * number) ** 2).sum()

    return jax.grad(loss)


def in_a_repeated_computation(number):
    return jax.grad(lambda x: jax.checkpoint(lambda y: jnp.sin(y * number) ** 2)(x).sum())


def in_a_custom_derivative(number):
    @jax.custom_vjp
    def run(x):
        return x * number

    run.defvjp(lambda x: (run(x), None), lambda _, g: (g,))
    return run


def in_a_captured_array(number):
    weights = np.arange(4, dtype=np.float32) * number
    return lambda x: x @ weights


@pytest.mark.parametrize(
    "make",
    [
        in_a_loop,
        in_a_condition,
        in_a_scan,
        in_branches,
        in_an_inner_jit,
        in_a_gradient,
        in_a_repeated_computation,
        in_a_custom_derivative,
        in_a_captured_array,
    ],
)
def test_constants_are_lifted_wherever_they_stand(make):
    assert check(make, 2.0, 3.5)


def test_constants_that_vary_as_one_are_one_input():
    lifted = check(lambda rate: lambda x: x * rate + rate * jnp.sin(x) * rate, 2.0, 3.0, 4.0)
    assert [len(column) for column in lifted] == [3]


def test_what_is_equal_stays_a_constant_and_a_nan_equals_a_nan():
    make = lambda number: lambda x: jnp.where(x > 2, jnp.float32(np.nan), x) * 7 * number
    assert len(check(make, 2.0, 3.0)) == 1
    assert not check(make, 2.0, 2.0)


@pytest.mark.parametrize(
    ("make", "first", "second", "why"),
    [
        (lambda n: lambda x: x**n, 2, 3, "integer_pow"),
        (lambda n: lambda x: x[:n], 2, 3, "slice"),
        (lambda n: lambda x: x * n, 2.0, np.full(4, 2.0, np.float32), "constant"),
        (lambda n: lambda x: x * 2 if n else x + 2, 0, 1, "add"),
        (lambda n: lambda x: jax.lax.reduce(x, np.float32(0), lambda a, b: a + b * n, (0,)), 2.0, 3.0, "reduce"),
        (lambda n: lambda x: jax.pure_callback(lambda y: y * n, x, x), 2.0, 3.0, "pure_callback.callback"),
    ],
)
def test_another_program_is_told_by_its_first_difference(make, first, second, why):
    x = np.arange(1.0, 5.0, dtype=np.float32)
    found = lifting.unlike(program(make(first), x), program(make(second), x))
    assert found is not None
    assert why in found or why == "constant"
    assert lifting.unlike(program(make(first), x), program(make(first), x)) is None


def test_functions_are_compared_by_what_they_hold():
    make = lambda held: lambda x: x + held
    assert meaning(make(2.0)) == meaning(make(2.0))
    assert meaning(make(float("nan"))) == meaning(make(float("nan")))
    assert meaning(make(2.0)) != meaning(make(3.0))
    assert meaning(make(np.ones(2))) != meaning(make(np.zeros(2)))
    assert meaning(lambda x: x + 1) != meaning(lambda x: x + 2)
    assert meaning(object()) != meaning(object())


def step(file, **fields):
    built = config.build(EXPERIMENTS / file, {name: str(value) for name, value in fields.items()})
    return families.traced(built.experiment, devices.device_mesh()).program


QUICKSTART = {"learning_rate": 1e-3, "weight_decay": 0.1, "dropout": 0.2, "ema": 0.9, "seed": 3, "epochs": 2}
SHAPES = {"learning_rate": 1e-3, "weight_decay": 0.1, "ema": 0.9, "seed": 3, "steps": 100}
VIT = {
    **{"learning_rate_per_512": 1e-3, "weight_decay": 0.1, "label_smoothing": 0.2, "stochastic_depth": 0.2},
    **{"epochs": 200, "warmup_epochs": 3, "seed": 3, "magnitude": 5.0, "erasing": 0.5, "mixup": 0.3, "cutmix": 0.5},
}
SWEPT = {
    "quickstart.py": (QUICKSTART, {}, {"channels": (8, 16), "batch_size": 64}),
    "shapes.py": (SHAPES, {"detector": "ssd", "width": 8}, {"batch_size": 8}),
    "imagenet_vit_small.py": (VIT, {"batch_size": 8}, {"image_size": 112}),
}


def check_others(file, first):
    base, others = SWEPT[file][1:]
    for field, value in others.items():
        assert "there" in (lifting.unlike(first, step(file, **base | {field: value})) or ""), field


def test_fields_of_quickstart_are_lifted_each_and_shapes_are_told():
    first = step("quickstart.py")
    for field, value in QUICKSTART.items():
        other = step("quickstart.py", **{field: value})
        assert lifting.unlike(first, other) is None, field
        columns = lifting.columns([first.constants, other.constants])
        assert bool(columns) == (field != "seed"), field  # a seed is in the state, and in the order of the data
    check_others("quickstart.py", first)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["shapes.py", "imagenet_vit_small.py"])
def test_fields_of_a_detector_and_of_a_transformer_are_lifted_all_at_once(file):
    lifted, base, _ = SWEPT[file]
    first, other = step(file, **base), step(file, **base | lifted)
    assert lifting.unlike(first, other) is None
    assert len(lifting.columns([first.constants, other.constants])) >= len(lifted) - 1
    check_others(file, first)


def test_members_are_told_by_their_fields():
    from launch import plan

    variants = {"a": {}, "b": {"learning_rate": 1e-3}, "c": {"channels": (8, 16)}}
    planned = plan.make(EXPERIMENTS / "quickstart.py", variants)
    found = families.of_plan(planned, print)
    first, second = families.told(found, {each.name: each for each in planned.members})
    assert first == "2 of 3 runs are one program; they differ in learning_rate"
    assert re.fullmatch(
        r"channels: another program: \d+ inputs there, \d+ here; 1 of 3 runs .* differ in nothing", second
    )


def test_a_step_that_changes_the_types_of_its_state_is_in_no_family(float64):
    built = config.build(EXPERIMENTS / "quickstart.py").experiment
    halved = built._replace(task=built.task._replace(loss=lambda *given: wider(*built.task.loss(*given))))
    with pytest.raises(ValueError, match="changes the shapes or types of its state"):
        families.traced(halved, devices.device_mesh())


def wider(loss, output):
    """A loss whose BatchNorm statistics are float64, whatever they were."""
    return loss, output.replace(collections=jax.tree.map(lambda x: x.astype(jnp.float64), output.collections))


def test_variants_that_train_the_same_weights_are_told():
    from launch import plan
    from launch.together import sameness

    variants = {"a": {}, "seldom": {"evaluate": 20}, "shuffled": {"order": "shuffled"}, "other": {"seed": 5}}
    planned = plan.make(EXPERIMENTS.parent / "tests/tiny_experiment.py", variants)
    (line,) = sameness.warnings(planned)
    assert line == "warning: 'a' and 'seldom' train the same weights: config.evaluate changes nothing in training"
