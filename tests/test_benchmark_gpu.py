"""The one call that measures all rows of a GPU: its time, rows that stand still, and a second call."""

import time
from pathlib import Path

import pytest

from experiments.benchmarks import gpu
from experiments.benchmarks.speed import gpu_peaks
from experiments.benchmarks.speed.contest import Contest, Side

HERE = "tests.test_benchmark_speed"


def pair(name: str, **outcome: float) -> Contest:
    sides = (
        Side("ours", f"{HERE}:sleeping", {"seconds": 0.01}),
        Side("torch", f"{HERE}:sleeping", {"seconds": 0.01, **outcome}),
    )
    return Contest(name, sides, blocks=1, tolerance=0.1)


@pytest.mark.slow
def test_gpu_rows_are_measured_in_their_time_and_what_disagrees_is_told():
    slow = Contest("slow", (Side("ours", f"{HERE}:waiting"),))
    half = pair("half")._replace(sides=(*pair("half").sides, Side("late", f"{HERE}:waiting")))
    contests = [half, pair("other", outcome=2.0), slow, pair("left")]
    found = list(gpu.measured(contests, (1.0, 1.0), 8.0, time.monotonic() + 14, ahead=1))
    assert [each.name for each in found] == ["half", "other", "slow", "left"]
    assert len(found[0].lines) == 3
    assert "missing: no answer within" in found[0].lines[2]
    assert not found[0].notes
    assert len(found[1].lines) == 2
    assert "torch has (2.0,), ours (1.0,)" in found[1].notes[0]
    assert not found[2].lines
    assert "no answer within" in found[2].notes[0]


def test_other_rows_stand_still_while_one_is_measured():
    with gpu.Row(pair("a")) as row, gpu.stopped([row]):
        state = lambda pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        time.sleep(0.05)
        assert [state(runner.process.pid) for runner in row.runners.values()] == ["T", "T"]
    assert [runner.process.returncode for runner in row.runners.values()] == [0, 0]  # each ended by itself


def test_a_second_call_keeps_the_rows_of_the_first(tmp_path):
    found = next(gpu.measured([pair("first")], (1.0, 1.0), 60.0, time.monotonic() + 60, ahead=0))
    file = tmp_path / "gpu.md"
    file.write_text("\n".join(gpu.report([found], [], (1.0, 1.0), "")))
    kept = gpu.kept_lines(file)
    assert kept == list(found.lines)
    assert not gpu.wanted("first", [], kept)
    assert gpu.wanted("second", ["sec"], kept)
    assert not gpu.wanted("second", ["first"], [])
    assert [line for line in gpu.report([], kept, None, "") if line in kept] == kept


def test_published_peaks_go_by_the_longest_name():
    assert gpu_peaks.peak("NVIDIA H100 PCIe, 580.1") == 756
    assert gpu_peaks.peak("NVIDIA L40S, 580.1") == 362
    assert gpu_peaks.peak("") is None


@pytest.mark.benchmark
def test_all_rows_run_on_a_cpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "environment", lambda output: None)
    assert gpu.main(["--small", f"--output={tmp_path / 'gpu.md'}", "--row=900", "--seconds=2000"]) == 0
    text = (tmp_path / "gpu.md").read_text()
    assert text in capsys.readouterr().out
    for module in gpu.BENCHMARKS:
        for row in gpu.import_module(module).rows(True):
            assert f"| {row.name} | all | ours |" in text


@pytest.mark.parametrize("small", [True, False])
def test_the_first_side_of_every_row_is_ours(small):
    found = list(gpu.rows(small))
    assert len({each.name for each in found}) == len(found)
    for each in found:
        assert not each.sides[0].peer
        assert len({side.name for side in each.sides}) == len(each.sides)
