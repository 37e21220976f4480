"""The benchmarks beside peers: turns, agreement, missing peers, memory, tables."""

import atexit
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from experiments.benchmarks import run
from experiments.benchmarks.speed import contest, place, table, worker
from experiments.benchmarks.speed.contest import Block, Contest, Missing, Side, Spread, Told, Work, hold

HERE = "tests.test_benchmark_speed"
MB = 1 << 20


def sleeping(seconds: float, outcome: float = 1.0) -> Work:
    return Work(lambda units: time.sleep(units * seconds), lambda: [outcome])


def filling(megabytes: int) -> Work:
    return Work(lambda units: sum(bytearray(b"1" * (megabytes * MB))[:: 100 * MB]))


def elsewhere(seconds: float) -> Work:
    program = f"import time\nwhile time.process_time() < {seconds}: pass"
    return Work(lambda units: subprocess.run([sys.executable, "-c", program], check=True))


def cores() -> Work:
    return Work(lambda units: None, lambda: [len(os.sched_getaffinity(0)), float(os.environ["OMP_NUM_THREADS"])])


def broken() -> Work:
    raise ImportError("no module named peer")


def leaving(note: str) -> Work:
    """What settles, and cleans up at its end, says so in a file."""

    def say(what: str) -> None:
        with open(note, "a") as file:
            file.write(f"{what}\n")

    atexit.register(say, "left")
    return Work(lambda units: say(f"ran {units}"), settle=lambda: say("settled"))


def waiting() -> Work:
    time.sleep(600)
    return sleeping(0.0)


def noisy() -> Work:
    print("x" * (1 << 20))  # more than a pipe holds, and not where answers are
    return sleeping(0.0)


def test_sides_take_turns_and_each_block_is_told_by_unit():
    slow, quick = (
        Side("slow", f"{HERE}:sleeping", {"seconds": 0.02}),
        Side("quick", f"{HERE}:sleeping", {"seconds": 0.005}),
    )
    told = hold(Contest("sleep", (slow, quick), units=2, blocks=3, tolerance=0.0))
    assert list(told) == ["slow", "quick"]
    assert [len(each.blocks) for each in told.values()] == [3, 3]
    assert 0.02 <= min(block.seconds for block in told["slow"].blocks) < 0.1
    assert max(block.processor_seconds for block in told["slow"].blocks) < 0.01  # it sleeps
    assert contest.ratio(told["quick"], told["slow"]).median < 1 < contest.ratio(told["slow"], told["quick"]).median


def test_other_outcomes_end_the_contest():
    sides = (
        Side("a", f"{HERE}:sleeping", {"seconds": 0}),
        Side("b", f"{HERE}:sleeping", {"seconds": 0, "outcome": 1.1}),
    )
    with pytest.raises(AssertionError, match=r"sleep: b has \(1.1,\), a \(1.0,\): 0.091 apart, allowed is 0.01"):
        hold(Contest("sleep", sides, tolerance=0.01))
    assert isinstance(hold(Contest("sleep", sides, blocks=1, tolerance=0.1))["b"], Told)


def test_missing_peer_is_named_and_the_rest_goes_on():
    sides = (Side("ours", f"{HERE}:noisy"), Side("peer", f"{HERE}:broken"), Side("gone", "no_such_module:work"))
    told = hold(Contest("some", sides, blocks=1))
    assert told["peer"] == Missing("ImportError: no module named peer")
    assert told["gone"] == Missing("ModuleNotFoundError: No module named 'no_such_module'")
    assert len(told["ours"].blocks) == 1
    rows = list(table.lines(Contest("some", sides), told, (1.0, 1.0)))
    assert "missing: ImportError: no module named peer" in rows[1]
    with pytest.raises(RuntimeError, match="(?s)some, peer: .*no module named peer"):
        hold(Contest("some", sides[1:]))


def test_a_side_settles_after_each_block_and_cleans_up_at_its_end(tmp_path):
    side = Side("ours", f"{HERE}:leaving", {"note": str(tmp_path / "note")})
    hold(Contest("leave", (side,), units=3, blocks=2))
    assert (tmp_path / "note").read_text().split("\n")[:-1] == ["ran 1", "settled", *["ran 3", "settled"] * 2, "left"]


def test_a_side_that_is_not_ready_in_time_is_missing_and_ended():
    some = Contest("some", (Side("ours", f"{HERE}:sleeping", {"seconds": 0}), Side("slow", f"{HERE}:waiting")))
    with contest.Runner(some.sides[1], None) as runner:
        runner.send(runner.first)
        told = contest.ready(some, some.sides[1], runner, patience=0.5)
        assert told == Missing("no answer within 0.5 s")
        assert runner.process.wait() == -signal.SIGKILL
    with contest.Runner(some.sides[0], None) as runner:
        runner.send(runner.first)
        results = {"ours": contest.ready(some, some.sides[0], runner, patience=60), "slow": told}
        assert len(contest.turns(some._replace(blocks=2), {"ours": runner}, results)["ours"].blocks) == 2


def test_memory_is_what_the_work_adds():
    told = hold(Contest("fill", (Side("ours", f"{HERE}:filling", {"megabytes": 200}),), blocks=2))["ours"]
    assert all(200 * MB < block.bytes < 500 * MB for block in told.blocks)


def test_processor_time_is_also_that_of_processes_that_were_started():
    (block,) = hold(Contest("work", (Side("ours", f"{HERE}:elsewhere", {"seconds": 0.2}),), blocks=1))["ours"].blocks
    assert 0.15 <= block.processor_seconds < 1


def test_living_processes_count_too():
    before = worker.processor_seconds()
    program = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert 0.15 <= worker.processor_seconds() - before < 1
        process.communicate(b"\n")


def slow_at_first(units: int) -> Work:
    """Work whose first units take long."""
    left = [units]

    def run(count: int) -> None:
        for _ in range(count):
            time.sleep(0.3 if left[0] > 0 else 0)
            left[0] -= 1

    return Work(run)


@pytest.mark.parametrize(("lead", "slow"), [(0, True), (1, False)])
def test_units_ahead_of_a_block_are_not_measured(lead, slow):
    side = Side("ours", f"{HERE}:slow_at_first", {"units": 2})  # one is the warm-up
    (block,) = hold(Contest("work", (side,), blocks=1, lead=lead))["ours"].blocks
    assert (block.seconds >= 0.3) == slow


def test_some_rows_of_benchmarks_can_be_chosen(monkeypatch, capsys):
    contests = [Contest(name, (Side("ours", ""), Side("torch", ""))) for name in ("short step", "long step")]
    monkeypatch.setattr(run.probes, "machine", lambda cores: (1.0, 1.0))
    monkeypatch.setattr(run, "hold", lambda contest: results(2.0))
    monkeypatch.setattr(run.importlib, "import_module", lambda name: SimpleNamespace(rows=lambda small: contests))
    assert run.main(["nms", "masks", "--row=long"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| long step |") for line in told) == 4  # two benchmarks of two sides
    assert not any("short step" in line for line in told)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["nms", "--row=longest"], "no contest has 'longest' in its name; there are short step; long step"),
        (["nsm"], "no benchmark 'nsm'; there are augmentation"),
        (["--cores=0"], "--cores=0: there are 1 to"),
        (["--cores=4096"], "--cores=4096: there are 1 to"),
        (["--output=nowhere/file.md"], "--output=nowhere/file.md: there is no folder nowhere"),
        (["--small", "--output=file.md"], "--small says nothing of times"),
        (["--readme", "nms"], "--list and --readme take no names"),
    ],
)
def test_a_bad_command_line_is_refused_before_anything_is_measured(monkeypatch, capsys, given, said):
    contests = [Contest(name, (Side("ours", ""),)) for name in ("short step", "long step")]
    monkeypatch.setattr(run.importlib, "import_module", lambda name: SimpleNamespace(rows=lambda small: contests))
    monkeypatch.setattr(run.probes, "machine", lambda cores: pytest.fail("measured"))
    with pytest.raises(SystemExit):
        run.main(given)
    assert said in " ".join(capsys.readouterr().err.split())


def test_cores_are_limited_before_anything_is_imported():
    told = hold(Contest("cores", (Side("ours", f"{HERE}:cores"),), blocks=1, cores=1))["ours"]
    assert told.outcome == (1.0, 1.0)


def test_apart():
    assert contest.apart([1, 2], [1, 2]) == 0
    assert contest.apart([1, 2], [1, 4]) == 0.5
    assert contest.apart([1], [1, 2]) == contest.apart([float("nan")], [1]) == float("inf")


def test_spread_is_the_median_with_quartiles():
    assert contest.spread([3.0]) == Spread(3, 3, 3)
    assert contest.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(3, 2, 4)


def results(theirs: float) -> dict:
    ours = Told((Block(1.0, 2.0, 3e9), Block(1.0, 2.0, 3e9)), ())
    return {"ours": ours, "torch": Told((Block(theirs, 2.0, 2e9), Block(theirs, 2.0, 2e9)), ())}


def test_readme_table_has_the_newest_row_of_each(tmp_path):
    sides = (Side("ours", ""), Side("torch", "", least=1.0, memory=1.2))
    step = Contest("step", sides, gigaflop=10, gigabyte=5)
    text = ["# Measurements", "| a | b |", "|---|---|"]
    for theirs in (0.5, 1.5):
        text += ["", table.HEAD, table.RULE, *table.lines(step, results(theirs), (100.0, 10.0))]
    one = step._replace(cores=1)
    text += ["", table.HEAD, table.RULE, *table.lines(one, results(0.5), (100.0, 10.0))]
    assert "0.50 (0.50 to 0.50), aim 1: **missed**" in text[7]
    assert text[7].endswith("| 1.50, aim 1.2: **missed** | 20 % of GEMM, 100 % of copy |")
    readme, file = tmp_path / "README.md", tmp_path / "RESULTS.md"
    file.write_text("\n".join(text))
    readme.write_text(f"before\n{run.BEGIN}\nold\n{run.END}\nafter\n")
    run.write_readme(readme, file)
    rows = [
        *("| step | torch **1.50** | torch **0.50** (aim 1) |", ""),
        "Memory where it has an aim, ours by theirs: 1.50 (torch, step) to 1.50 (torch, step).",
    ]
    assert readme.read_text().splitlines() == ["before", run.BEGIN, *table.speed([])[:2], *rows, run.END, "after"]
    before = readme.read_text()
    run.write_readme(readme, file)
    assert readme.read_text() == before


def test_readme_table_marks_rows_of_another_processor():
    contests = [Contest(name, (Side("ours", ""), Side("torch", ""))) for name in ("step", "loss", "decoding")]
    text = []
    for each, processor in zip(contests, ("EPYC", "EPYC", "EPYC (AVX2)"), strict=True):
        text += [
            f"`python -m run --row='{each.name}, '`, 2026-12-01, {processor}, 2 cores; jax",
            "",
            table.HEAD,
            table.RULE,
        ]
        text += table.lines(each, results(2.0), (1.0, 1.0))
    out = table.speed(table.read("\n".join(text)))
    assert out[2:5] == [
        f"| {row} |" for row in ("step | torch **2.00** |", "loss | torch **2.00** |", "decoding | torch **2.00**¹ |")
    ]
    assert out[6] == "¹ Measured on an EPYC (AVX2), the others on an EPYC."


def test_a_peer_that_the_newest_measurement_lacks_is_not_told():
    step = Contest("step", (Side("ours", ""), Side("torch", ""), Side("Flax", "")))
    both = {**results(2.0), "Flax": results(3.0)["torch"]}
    text = []
    for found in (both, {**both, "torch": Missing("gone")}):
        text += ["", table.HEAD, table.RULE, *table.lines(step, found, (1.0, 1.0))]
    assert [(each.beside, each.ratio[:4]) for each in table.read("\n".join(text))] == [("Flax", "3.00")]


def test_tiny_sizes_are_not_kept(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run.main(["nms", "--small", f"--output={tmp_path}/RESULTS.md"])
    assert "--small says nothing of times" in capsys.readouterr().err


def test_a_whole_is_compared_with_its_slowest_part_in_each_turn():
    parts = {"whole": [2.0, 2.0], "first": [1.0, 1.9], "second": [1.8, 1.0]}
    told: dict = {name: Told(tuple(Block(s, s, 0.0) for s in blocks), ()) for name, blocks in parts.items()}
    assert [block.seconds for block in contest.slowest({**told, "third": Missing("")}).blocks] == [1.8, 1.9]
    sides = tuple(Side(name, "") for name in parts)
    *_, last = table.lines(Contest("all", sides, slowest=0.95), told, (1.0, 1.0))
    assert last == "| all | all | the slowest part | | | | 0.93 (0.91 to 0.94), aim 0.95: **missed** | | |"


def test_every_benchmark_gives_contests_whose_first_side_is_ours():
    import importlib

    for name, module in run.BENCHMARKS.items():
        for each in importlib.import_module(module).rows(True):
            if isinstance(each, Contest):
                assert not each.sides[0].peer, name
                assert len({side.name for side in each.sides}) == len(each.sides), name


def test_processors_of_one_name_are_told_apart():
    core = "processor: {}\ncpu family\t: 25\nmodel\t\t: {}\nmodel name\t: AMD EPYC\nflags\t\t: fma avx2 {}\n"
    assert place.processor(core.format(0, 1, "") + core.format(1, 17, "")) == "AMD EPYC (family 25, model 1, AVX2)"
    assert place.processor(core.format(0, 17, "avx512f")) == "AMD EPYC (family 25, model 17, AVX-512)"
    assert place.processor("processor: 0\n") == "CPU"
