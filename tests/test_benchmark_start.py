"""The benchmarks of the start and of what devices exchange: processes, what is read from programs, arithmetic of scale."""

import pytest

from experiments.benchmarks import run
from experiments.benchmarks.speed import exchange, exchange_program, scale, start, start_process, worker

PROGRAM = """
import json, os, pathlib, sys
cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
if cache:
    pathlib.Path(cache).mkdir(exist_ok=True)
    (pathlib.Path(cache) / str(os.getpid())).touch()
print("reading")
print(json.dumps({"kept": len(os.listdir(cache)) if cache else 0, "given": len(sys.argv) - 1}))
sum(range(3_000_000))
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "started_here.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/nowhere")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return "started_here"


@pytest.mark.parametrize(("cache", "kept"), [("fresh", 1), ("kept", 2), ("none", 0)])
def test_a_process_finds_what_was_compiled_before_where_it_may(module, cache, kept):
    work = start_process.process(module, cache=cache)
    work.outcome()
    assert work.outcome() == [kept, 1]


def test_a_process_counts_as_processor_time_and_says_why_it_failed(module):
    before = worker.processor_seconds()
    work = start_process.process(module, ["--help"])
    work.run(1)
    assert worker.processor_seconds() > before + 0.01
    assert work.device_bytes is not None
    assert work.device_bytes() > 1e6
    with pytest.raises(RuntimeError, match="No module named no_such_module"):
        start_process.process("no_such_module").run(1)


GATHERS = """HloModule step, is_scheduled=true

ENTRY %main (a: f32[2]) -> f32[] {
  %a = f32[2]{0} parameter(0)
  %one = f32[16]{0} all-gather(%a), dimensions={0}
  %same = f32[4,4]{1,0} bitcast(%one)
  %two = f32[8]{0} all-gather(%a), dimensions={0}
  %used = f32[8]{0} fusion(%two, %a), kind=kLoop
  %three = f32[32]{0} all-gather(%used), dimensions={0}
  %last = f32[] fusion(%three), kind=kLoop
  ROOT %end = f32[] fusion(%last, %same), kind=kLoop
}
"""


def test_gathered_at_once_follows_other_names_of_an_array_to_its_last_use():
    assert exchange_program.gathered_at_once(GATHERS) == 4 * (16 + 32)
    without = GATHERS.replace(", %same)", ")")
    assert exchange_program.gathered_at_once(without) == 4 * 32  # the first ends where it got its other name


def test_ring_sends_what_the_formula_says():
    machine = scale.Machine(devices=8, inside=100.0, between=10.0)
    assert scale.whole(800.0, 8, machine) == (1400.0, 0.0)
    assert scale.whole(800.0, 16, machine) == (1400.0, 100.0)
    assert scale.whole(800.0, 16, machine).seconds(machine) == 24.0
    assert scale.split_in_host(800.0, 16, machine) == (2100.0, 100.0)
    assert scale.split_over_all(800.0, 8, machine) == (2100.0, 0.0)
    assert scale.split_over_all(800.0, 16, machine) == (2100.0, 150.0)


FACTS = {
    **dict.fromkeys(("others", "exchanges", "gathered at once", "moved"), 1e6),
    **{"parameters": 1e6, "gradients": 4e6, "gathered": 8e6, "state": 12e6, "flop": 1e10},
}


def test_scale_writes_its_tables_between_the_marks(tmp_path, monkeypatch):
    file, programs = tmp_path / "SCALE.md", tmp_path / "programs.json"
    monkeypatch.setattr(scale, "FILE", file)
    asked = []
    monkeypatch.setattr(scale, "program", lambda name, small, fsdp, *more: asked.append((name, fsdp)) or FACTS)
    file.write_text(f"before\n{scale.BEGIN}\nold\n{scale.END}\nafter\n")
    for _ in range(2):
        scale.main([f"--programs={programs}"])
    assert asked == [(name, fsdp) for name in exchange.NETWORKS for fsdp in (1, 8)]
    text = file.read_text()
    assert text.startswith(f"before\n{scale.BEGIN}\n**Read from")
    assert text.endswith(f"{scale.END}\nafter\n")
    assert "| ResNet-50 | 1.0 M | 12 -> 12 MB | 10 GFLOP |" in text
    by_table = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len({line.count("|") for line in block if line[0] == "|"}) for block in by_table] == [1] * 4


@pytest.mark.benchmark
def test_start_runs_at_a_small_size(capsys):
    assert run.main(["start", "--small"]) == 0
    told = capsys.readouterr().out
    assert "first training step, cold | all | ours" in told
    assert "compiling the step of detr, clock" in told


@pytest.mark.slow
def test_each_gradient_is_summed_once_and_layers_are_gathered_one_by_one():
    name = "vit_large"
    told = {each.name.removeprefix(name): each.value for each in exchange.figures(name, small=True)}
    assert told[": gradients all-reduced, by parameters x 4 bytes"] == 1
    assert told[", fsdp: most that is gathered at once, by the largest parameter"] < 1.1
    assert told[", fsdp: state on a device, by the whole"] == pytest.approx(1 / 8, rel=0.02)


def test_ours_is_first_and_each_side_is_told_its_cache():
    cold, again, help_ = (each for each in start.rows(False) if not callable(each))
    assert [side.given["cache"] for side in cold.sides] == ["fresh"] * 3
    assert [side.given["cache"] for side in again.sides] == ["kept", "none", "kept", "kept"]
    assert [side.peer for side in help_.sides] == [False, False, True]
