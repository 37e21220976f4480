"""The choice of a way, and who waits for whom where runs step together."""

import threading
from pathlib import Path

import jax
import pytest

from jaxvision import commands
from jaxvision.errors import ConfigError
from jaxvision.run import config, devices
from launch import sweep
from launch.together import choice, families, meeting, steps

NETWORKS = Path(__file__).parent.parent / "experiments/benchmarks/together_networks.py"
FIELDS = {"network": "mlp", "size": "0.1", "batch_size": "4"}


@pytest.fixture(scope="module")
def found():
    """A family of four, and their experiments."""
    experiments = [config.build(NETWORKS, {**FIELDS, "learning_rate": f"0.00{i}"}).experiment for i in (1, 2, 3, 4)]
    traced = [(str(i), families.traced(each, devices.device_mesh())) for i, each in enumerate(experiments)]
    (family,) = families.families(traced)
    return family, experiments


def test_short_runs_take_turns_since_nothing_else_is_compiled_in_time(found):
    family, experiments = found
    chosen = choice.measured(steps.Steps(family), experiments[:3], 3)
    assert chosen.way == "turns"
    assert list(chosen.seconds) == ["turns"]
    assert all("to compile, more than 2% of the" in why for why in chosen.not_measured.values())


def test_long_runs_are_measured_each_way(found):
    family, experiments = found
    longer = [each._replace(steps=10**9) for each in experiments[:2]]
    chosen = choice.measured(steps.Steps(family), longer, 2)
    assert set(chosen.seconds) == {"turns", "vmap", "unroll"}
    assert not chosen.not_measured
    assert chosen.way == min(chosen.seconds, key=lambda way: chosen.seconds[way] * (1 if way == "turns" else 1.03))
    assert all(f"{way} {seconds * 1e3:.3g} ms" in chosen.why for way, seconds in chosen.seconds.items())


def test_members_wait_for_each_other_and_not_for_one_that_has_left(found):
    family, experiments = found
    together = meeting.Meeting(family, "unroll")
    mesh = devices.device_mesh()
    done = {}

    def run(name, count):
        step, like = together.step_on(name, mesh, experiments[0])
        state = choice.zeros(like).replace(failed_step=jax.numpy.int32(-1))
        for _ in range(count):
            state, _ = step(state, choice.zeros(devices.batch_on(mesh, experiments[0].train.spec)))
        done[name] = int(state.step)
        together.leave(name)

    threads = [threading.Thread(target=run, args=each) for each in (("0", 1), ("1", 3), ("2", 2))]
    for each in threads:
        each.start()
    assert not done  # nothing steps before the meeting is open
    together.leave("3")  # one that failed before
    together.open({"0", "1", "2", "3"})
    for each in threads:
        each.join(timeout=120)
    assert done == {"0": 1, "1": 3, "2": 2}


def test_an_error_in_the_step_reaches_every_member(found):
    family, experiments = found
    together = meeting.Meeting(family, "vmap")
    mesh = devices.device_mesh()
    step, like = together.step_on("0", mesh, experiments[0])
    together.open({"0"})
    with pytest.raises(ValueError, match="zip"):
        step(choice.zeros(like), jax.numpy.zeros(3))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--together=turns", "--workers=2"], "--together=turns runs all in one process; --workers=2 needs"),
        (["--together=vmap", "--pictures"], "--pictures: runs under --together=vmap draw none"),
    ],
)
def test_flags_that_do_not_go_together(flags, message, tmp_path):
    parser = sweep.parser_of("sweep", "")
    given, _ = commands.parsed(parser, [f"--config={NETWORKS}", f"--workdir={tmp_path}", *flags])
    from launch.plan import Plan

    with pytest.raises(ConfigError, match=message):
        sweep.pool_of(Plan(NETWORKS, "", ()), (), given)
