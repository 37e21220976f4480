"""Plans: members resolved and checked before anything starts, written once, and what state a workdir tells."""

import json
import os
import socket
from pathlib import Path

import pytest

from jaxvision.errors import ConfigError, WorkdirError
from jaxvision.run import config, lease
from launch import ablation, command, local, plan, state, sweep
from launch.ablation import Ablation
from launch.plan import Deciding

TINY = Path(__file__).parent / "tiny_experiment.py"
QUICKSTART = TINY.parent.parent / "experiments/quickstart.py"
ABLATION = QUICKSTART.parent / "ablations/quickstart.py"


@pytest.fixture(scope="module")
def planned():
    variants = {"slow": {"learning_rate": 1e-3}, "deep": {"network.depth": "2"}, "fast": double}
    return plan.make(TINY, variants, (0, 1), {"steps": "4"}, Deciding("test/accuracy"), "slow")


def double(fields):
    fields.learning_rate = 2 * fields.learning_rate


def test_members_are_resolved_and_named_by_what_they_are(planned):
    assert [(m.variant, m.seed) for m in planned.members] == [(v, s) for s in (0, 1) for v in ("slow", "deep", "fast")]
    deep = planned.members[1]
    assert deep.config["network"]["depth"] == 2
    assert deep.overrides == {"steps": "4", "seed": "0", "network.depth": "2", "precision": "float32"}
    assert planned.members[2].config["learning_rate"] == 6e-3
    assert len({m.hash for m in planned.members}) == 6
    assert all(m.name.startswith(f"{m.variant}-seed{m.seed}-") for m in planned.members)


def test_the_command_of_a_member_builds_its_config(planned, tmp_path):
    for member in planned.members:
        made = command.command(planned, member, tmp_path)
        given = [a.removeprefix("--config.").split("=", 1) for a in made.arguments if a.startswith("--config.")]
        assert config.build(TINY, dict(given)).recipe.config == member.config
        assert f"--workdir={tmp_path / member.name}" in made.arguments


@pytest.mark.parametrize(
    ("variants", "says"),
    [
        ({}, "the sweep is empty"),
        ({"a": {"lr": 1}}, "variant 'a': config has no field 'lr'; there are: batch_size"),
        ({"a": {"steps": "x"}}, "variant 'a': config.steps is of type int"),
        ({"a": {"data_dir": "/b"}}, "nothing reads config.data_dir"),
        ({"a": {}, "b": {"learning_rate": 3e-3}}, "'a' and 'b' are the same run"),
        ({"a": {"network": 3}}, "config has no field 'network'"),
    ],
)
def test_what_can_not_be_planned_is_named(variants, says):
    with pytest.raises(ConfigError, match=says):
        plan.make(TINY, variants)


def test_a_plan_is_written_once_and_read_as_it_was(planned, tmp_path):
    path = plan.write(planned, tmp_path)
    before = path.read_bytes()
    assert plan.read(tmp_path) == planned
    plan.write(planned, tmp_path)
    assert path.read_bytes() == before
    other = plan.make(TINY, {"slow": {"learning_rate": 1e-4}}, (0,), {"steps": "4"}, Deciding("test/accuracy"), "slow")
    with pytest.raises(WorkdirError, match="is another plan: 1 of these runs are not in it.*6 of its are not here"):
        plan.write(other, tmp_path)
    assert path.read_bytes() == before
    more = plan.extend(planned, other, tmp_path)
    assert more.members == (*planned.members, *other.members)
    assert plan.read(tmp_path) == more


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text.replace('"4"', '"5"', 1), "changed by hand or damaged"),
        (lambda text: text[: len(text) // 2], "can't be read"),
        (lambda text: "", "can't be read"),
        (lambda text: "[1]", "can't be read"),
        (lambda text: text.replace('"format": 1', '"format": 9'), "format 9"),
    ],
)
def test_a_plan_that_was_changed_is_refused(planned, tmp_path, damage, says):
    path = plan.write(planned, tmp_path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(WorkdirError, match=says) as told:
        plan.read(tmp_path)
    assert str(path) in str(told.value)


def test_code_that_changed_since_is_another_plan(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(TINY.read_text())
    made = plan.make(file, {"a": {}})
    plan.write(made, tmp_path)
    file.write_text(f"# a comment\n{TINY.read_text()}")
    plan.write(plan.make(file, {"a": {}}), tmp_path)
    file.write_text(TINY.read_text().replace("clip_by_global_norm(1.0)", "clip_by_global_norm(2.0)"))
    with pytest.raises(WorkdirError, match="of other code"):
        plan.write(plan.make(file, {"a": {}}), tmp_path)


def test_texts_stand_for_their_values():
    default = {"t": (1, 2), "s": "a", "n": None, "f": 0.1, "b": True, "l": [1]}
    for field, value in {"t": (3,), "s": "none", "n": (1, 2), "f": 1e-5, "b": False, "l": [2, 3]}.items():
        assert config.parse_value(field, plan.text_of(field, value, default[field]), default[field]) == value
    assert config.parse_value("n", plan.text_of("n", "'quoted'", None), None) == "quoted"
    with pytest.raises(ConfigError, match="config.f"):
        plan.text_of("f", object(), 0.1)


def test_the_ablation_of_the_quickstart_changes_what_it_names():
    made = ablation.make(ablation.load(ABLATION), {"ema": "0.9"}, (7,))
    assert [m.variant for m in made.members][:2] == ["baseline", "no dropout"]
    assert len(made.members) == 6
    base = plan.flat(made.members[0].config)
    assert base["ema"] == 0.9
    slower = plan.flat(made.members[-1].config)
    assert {name for name in base if base[name] != slower[name]} == {"learning_rate"}


def test_changes_go_together_and_must_change_something():
    changes = {"a": {"dropout": 0.0}, "b": {"ema": 0.9}, "c": {"batch_size": 64}}
    wanted = Ablation(QUICKSTART, changes, Deciding("test/accuracy"), (0,), together=2)
    names = [member.variant for member in ablation.make(wanted, {}).members]
    assert names == ["baseline", "a", "b", "c", "a + b", "a + c", "b + c"]
    for other, says in (
        (wanted._replace(changes={"a": {"dropout": 0.4}}, together=1), "same run"),
        (wanted._replace(changes={"a": {"dropout": 0.4, "ema": 0.9}}, together=1), "does not change dropout"),
        (wanted._replace(changes={}), "needs changes"),
        (wanted._replace(changes={"baseline": {}}), "none named 'baseline'"),
        (wanted._replace(together=4), "allowed are 1 to 3"),
    ):
        with pytest.raises(ConfigError, match=says):
            ablation.make(other, {})


def test_the_state_is_what_the_workdir_says(tmp_path):
    run = tmp_path / "run"
    assert state.state(run).kind == "waiting"
    run.mkdir()
    with lease.Held(run, 20) as held:
        at = state.state(run)
        assert (at.kind, at.steps) == ("running", 20)
        assert socket.gethostname() in at.detail
        held.ended(10, "SIGTERM")
    at = state.state(run)
    assert (at.kind, at.step, at.detail) == ("interrupted", 10, "SIGTERM")
    with pytest.raises(ValueError, match="boom"), lease.Held(run, 20):
        raise ValueError("first\nboom")
    assert state.state(run)[:1] + state.state(run)[-1:] == ("failed", "boom")
    with lease.Held(run, 20) as held:
        held.ended(20, None)
    (run / "metrics.jsonl").write_text('{"step": 10, "test/accuracy": 0.5}\n{"step": 20, "test/accuracy": 0.6}\n')
    at = state.state(run)
    assert (at.kind, at.step, at.figures) == ("done", 20, {"test/accuracy": 0.6})


def test_a_lease_is_lost_with_its_process_or_with_age(tmp_path):
    with lease.Held(tmp_path, 20):
        running = json.loads((tmp_path / lease.FILE).read_text())
    gone = {**running, "state": "running", "born": running["born"].rpartition(" ")[0] + " 1"}
    (tmp_path / lease.FILE).write_text(json.dumps(gone))
    assert state.state(tmp_path).kind == "lost"
    elsewhere = {**gone, "host": "another", "born": "boot pid:[1] 1"}
    (tmp_path / lease.FILE).write_text(json.dumps(elsewhere))
    assert state.state(tmp_path).kind == "running"
    os.utime(tmp_path / lease.FILE, (1e9, 1e9))
    assert state.state(tmp_path).kind == "lost"
    (tmp_path / lease.FILE).write_text("junk")
    assert lease.read(tmp_path) is None


def test_slots_have_the_same_number_of_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(7)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [len(slot.cores) for slot in local.slots(3)] == [2, 2, 2]
    assert [slot.cores for slot in local.slots()] == [frozenset(range(7))]
    with pytest.raises(ConfigError, match="--workers=8: there are 7 processor cores"):
        local.slots(8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in local.slots()] == ["0", "3"]


def test_the_command_line_of_a_sweep(tmp_path, capsys):
    flags = [f"--config={TINY}", f"--workdir={tmp_path / 's'}", "--dry-run"]
    assert sweep.main([*flags, "--sweep.learning_rate=0.1,0.2", "--sweep.steps=4,5", "--pair=learning_rate+steps"]) == 0
    printed = capsys.readouterr().out
    assert "learning_rate=0.1_steps=4" in printed
    assert printed.endswith("2 runs: 2 waiting\n")
    assert not (tmp_path / "s").exists()
    for more, says in (
        (["--sweep.learning_rate=log_uniform(1e-4, 1)"], "--random=N"),
        (["--sweep.learning_rate=1,1"], "'learning_rate=1' twice"),
        (["--pair=a+b", "--sweep.a=1"], "no --sweep.b"),
        (["--sweep.steps=1", "--decide=test/accuracy:up"], "allowed: higher, lower"),
        ([], "no get_sweep"),
    ):
        assert sweep.main([*flags, *more]) == 2
        assert says in capsys.readouterr().err


def test_a_field_given_twice_is_refused_and_fields_of_one_name_are_told_apart(tmp_path, capsys):
    command = [f"--config={TINY}", f"--workdir={tmp_path / 'x'}"]
    with pytest.raises(SystemExit):
        sweep.main([*command, "--sweep.learning_rate=1e-3", "--sweep.learning_rate=1e-2"])
    assert "--sweep.learning_rate is given twice" in capsys.readouterr().err
    assert list(sweep.named([{"head.rate": 1}, {"backbone.rate": 1}])) == ["head.rate=1", "backbone.rate=1"]
    assert list(sweep.named([{"head.rate": 1}, {"head.rate": 2}])) == ["rate=1", "rate=2"]


def test_two_launchers_that_extend_a_plan_lose_no_member(planned, tmp_path):
    one, two, three = (planned._replace(members=planned.members[i : i + 1]) for i in range(3))
    plan.write(one, tmp_path)
    known = plan.read(tmp_path)
    plan.extend(known, two, tmp_path)
    assert len(plan.extend(known, three, tmp_path).members) == 3
    assert plan.read(tmp_path).members == planned.members[:3]


def test_a_sweep_may_be_one_of_seeds_alone(tmp_path, capsys):
    command = [f"--config={TINY}", f"--workdir={tmp_path / 'x'}", "--dry-run"]
    assert sweep.main([*command, "--seeds=0,1"]) == 0
    assert "as_it_is-seed1-" in capsys.readouterr().out
    assert sweep.main(command) == 2
    assert "no --seeds are given" in capsys.readouterr().err
