"""Several processes as one run: meeting, failing, stopping."""

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxvision import main
from jaxvision.data import arrays, folder, order, placement, resident, streams
from jaxvision.errors import CheckpointError, DataError
from jaxvision.run import agreement, config, interruption, lease, peers, processes, training
from jaxvision.types import Shard

TINY = Path(__file__).parent / "tiny_experiment.py"


def start(workdir, *more, config=TINY, begin=("-m", "jaxvision.main"), **environment):
    command = [sys.executable, *begin, f"--config={config}", f"--workdir={workdir}", "--no-report", *more]
    return subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def meeting(index, port, count=2, patience=60):
    address = f"--coordinator=127.0.0.1:{port}"
    return [address, f"--processes={count}", f"--process={index}", f"--patience={patience}"]


def ended(process):
    printed, _ = process.communicate(timeout=180)
    return process.returncode, " ".join(printed.split())


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def numbers(count):
    images = np.arange(count, dtype=np.uint8)[:, None, None] * np.ones((1, 6, 6), np.uint8)
    return lambda: arrays.source(images, np.arange(count) % 3, ("a", "b", "c"))


STREAMS = {
    "arrays": (arrays, {"canvas": 6}),
    "resident": (resident, {"canvas": 6}),
    "threads": (streams, {"placer": placement.keep(6)}),
}


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("split", ["training", "evaluation"])
def test_the_shares_of_all_processes_are_the_whole_batch(kind, split):
    room, where = STREAMS[kind]
    options = {"order": order.shuffled(3)} if split == "training" else {}
    stream = getattr(room, split)(numbers(23), batch_size=12, channels=1, **options, **where)
    whole, thirds = stream.batches(1), [stream.batches(1, Shard(i, 3)) for i in range(3)]
    for _ in range(3 if split == "training" else 1):
        batch, parts = next(whole), [next(third) for third in thirds]
        for field in ("image", "size", "index", "valid"):
            together = np.concatenate([np.asarray(getattr(part, field)) for part in parts])
            np.testing.assert_array_equal(together, np.asarray(getattr(batch, field)))
    if split == "evaluation":
        assert not [batch for stream in (whole, *thirds) for batch in stream]


def test_random_crops_do_not_depend_on_the_number_of_processes(tmp_path):
    (tmp_path / "a").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 30, 3), dtype=np.uint8)
    for i, each in enumerate(pixels):
        Image.fromarray(each).save(tmp_path / "a" / f"{i}.png")
    stream = streams.training(
        lambda: folder.source(tmp_path),
        order=order.shuffled(0),
        placer=placement.random_resized_crop(16),
        batch_size=8,
        seed=5,
    )
    halves = [next(stream.batches(2, Shard(i, 2))).image for i in range(2)]
    np.testing.assert_array_equal(np.concatenate(halves), next(stream.batches(2)).image)


def test_a_batch_that_the_processes_can_not_share_is_refused():
    with pytest.raises(ValueError, match="a batch of 10 can't be split evenly over processes, of which there are 3"):
        Shard(0, 3).rows(10)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--coordinator=a:1"], "belong together"),
        (["--coordinator=a:1", "--processes=2", "--process=2"], "allowed are 0 to 1"),
    ],
)
def test_flags_that_do_not_fit_together(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit):
        main.main([f"--config={TINY}", f"--workdir={tmp_path}/run", *flags])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("localhost", "it must be HOST:PORT"),
        ("no-such-host.invalid:1234", "the coordinator's host 'no-such-host.invalid' can't be found from"),
    ],
)
def test_an_address_that_is_none_is_told_at_once(address, message):
    with pytest.raises(ValueError, match=message):
        processes.meet(processes.Meeting(address, 2, 1))


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_meets_nobody_says_so_in_time(tmp_path, port, index):
    began = time.monotonic()
    code, printed = ended(start(tmp_path / "run", *meeting(index, port, patience=4)))
    assert code == processes.GIVEN_UP
    assert f"process {index} of 2 on {socket.gethostname()} has waited 4 s to meet the others at 127.0.0.1" in printed
    assert "Check failure" not in printed
    assert time.monotonic() - began < 60
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_without_a_cluster_distributed_says_so(tmp_path):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "OMPI", "TPU"))}
    command = [sys.executable, "-m", "jaxvision.main", f"--config={TINY}", f"--workdir={tmp_path}/run", "--distributed"]
    done = subprocess.run(command, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    assert done.returncode == 2
    assert "could not join the other processes" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_processes_that_slurm_started_find_each_other(tmp_path):
    job = 100_000 + os.getpid() % 10_000

    def slurm(index):
        return {
            "SLURM_JOB_ID": str(job),
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": "2",
            "SLURM_PROCID": str(index),
            "SLURM_LOCALID": str(index),
            "SLURM_STEP_NUM_NODES": "1",
        }

    flags = ["--distributed", "--patience=60", "--config.steps=10"]
    both = [start(tmp_path / "run", *flags, **slurm(index)) for index in range(2)]
    results = [ended(process) for process in both]
    assert [code for code, _ in results] == [0, 0], results
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 10


@pytest.mark.slow
def test_sigterm_to_one_stops_both_at_the_same_step_and_the_run_goes_on(tmp_path, port):
    fields = ["--config.steps=3000", "--config.log=10", "--config.checkpoint=100000", "--config.evaluate=100000"]
    both = [start(tmp_path / "run", *fields, *meeting(index, port)) for index in range(2)]
    while all(process.poll() is None for process in both) and not (tmp_path / "run/metrics.jsonl").exists():
        time.sleep(0.05)
    both[1].send_signal(signal.SIGTERM)
    results = [ended(process) for process in both]
    assert [code for code, _ in results] == [main.INTERRUPTED] * 2, results
    steps = [path.name for path in (tmp_path / "run/checkpoints").iterdir() if path.name.isdecimal()]
    assert len(steps) == 1
    assert 0 < int(steps[0]) < 3000
    more = start(tmp_path / "run", "--fork", f"--config.steps={int(steps[0]) + 5}", "--config.log=10")
    code, printed = ended(more)
    assert code == 0, printed
    assert f"going on from step {int(steps[0]):,}" in printed


@pytest.mark.slow
def test_if_one_process_can_not_start_all_end(tmp_path, port):
    first = start(tmp_path / "run", *meeting(0, port))
    second = start(tmp_path / "run", "--config.source=folder", "--config.data_dir=/nowhere", *meeting(1, port))
    results = [ended(process) for process in (first, second)]
    assert [code for code, _ in results] == [2, 2], results
    assert "process 1 failed; its own message says why" in results[0][1]
    assert "/nowhere" in results[1][1]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_processes_that_do_not_run_the_same_name_what_differs(tmp_path, port):
    other = tmp_path / TINY.name
    other.write_text(TINY.read_text().replace("mean=73.0", "mean=70.0"))
    both = [
        start(tmp_path / "run", f"--config.seed={index}", *meeting(index, port), config=config)
        for index, config in enumerate((TINY, other))
    ]
    results = [ended(process) for process in both]
    assert [code for code, _ in results] == [2, 2], results
    for _, printed in results:
        assert "config.seed is 0 on process 0 and 1 on process 1" in printed
        assert "the code of tiny_experiment.py is not on process 1 what it is on process 0" in printed
    assert not (tmp_path / "run").exists()


def test_what_differs_is_named_with_the_processes():
    base = {"config.seed": "0", f"the data of 'train'{processes.CHECKSUM}": "a", "jax": "0.8"}
    others = [base | {"config.seed": "1"}, base | {f"the data of 'train'{processes.CHECKSUM}": "b", "jax": "0.9"}, base]
    assert processes.different([base, *others]) == [
        "config.seed is 0 on processes 0, 2, 3 and 1 on process 1",
        "jax is 0.8 on processes 0, 1, 3 and 0.9 on process 2",
        "the data of 'train' is not on process 2 what it is on process 0",
    ]
    assert processes.different([base, base]) == []


def test_what_must_agree_has_the_config_the_code_and_the_versions(tmp_path):
    (tmp_path / "net.py").write_text("width = 8\n")
    path = tmp_path / TINY.name
    path.write_text("import net\n" + TINY.read_text())
    experiment, recipe = config.build(path)
    plan = training.prepare(experiment)

    def settings():
        return agreement.settings(experiment, plan.fingerprints, plan.like, recipe, 1)

    before = settings()
    assert before["config.network.depth"] == "1"
    assert before["experiment.steps"] == "20"
    assert before["jax"] == jax.__version__
    assert before["--fsdp"] == "1"
    assert any(name.startswith("the data of 'train'") for name in before)
    (tmp_path / "net.py").write_text("# a comment\nwidth = 8\n")
    assert settings() == before
    (tmp_path / "net.py").write_text("width = 9\n")
    (name,) = processes.different([before, settings()])
    assert name == "the code of the module net is not on process 1 what it is on process 0"


@pytest.mark.slow
def test_a_workdir_that_is_not_one_folder_is_refused_on_all(tmp_path, port):
    quick = "import runpy; from jaxvision.run import processes; processes.SECONDS_TO_APPEAR = 1.0; "
    quick += "runpy.run_module('jaxvision.main', run_name='__main__', alter_sys=True)"
    both = [start(tmp_path / f"run{index}", *meeting(index, port), begin=("-c", quick)) for index in range(2)]
    results = [ended(process) for process in both]
    assert [code for code, _ in results] == [2, 2], results
    for _, printed in results:
        assert "the workdir is not one folder for all processes" in printed
        assert f"{tmp_path}/run1 on process 1" in printed
    assert not (tmp_path / "run1").exists()
    assert not list((tmp_path / "run0").glob("*.token"))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_is_named_by_the_other(tmp_path, port, victim):
    fields = ["--config.steps=100000", "--config.log=10", "--config.checkpoint=20", "--config.evaluate=100000"]
    both = [start(tmp_path / "run", *fields, *meeting(index, port)) for index in range(2)]
    while all(process.poll() is None for process in both) and not (tmp_path / "run/checkpoints/20").exists():
        time.sleep(0.05)
    both[victim].kill()
    began = time.monotonic()
    (code, printed), _ = ended(both[1 - victim]), ended(both[victim])
    assert code == 2, printed
    assert f"process {victim} was lost: killed, or its machine or network failed; start all of them again" in printed
    assert "could not be written" not in printed
    if victim == 1:
        found = lease.read(tmp_path / "run")
        assert found.state == "failed"
        assert found.detail.startswith("process 1 was lost: killed, or its machine or network failed")
    assert time.monotonic() - began < peers.HEARTBEAT


def test_an_error_whose_causes_go_in_a_circle_is_raised_as_it_is(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    first, second = OSError("no space left"), RuntimeError("could not be written")
    first.__cause__, second.__cause__ = second, first
    with pytest.raises(OSError, match="no space left"), peers.naming_lost():
        raise first


GLOO = "FAILED_PRECONDITION: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer"


def raised(error, cause=None, hidden=False):
    """The error that comes out of `naming_lost` where this one is raised in it, because of the cause or in its place."""
    try:
        with peers.naming_lost():
            try:
                raise cause or error
            except Exception as inner:
                raise error from None if hidden or inner is error else inner
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        DataError("data/train/Glooscap/0001.jpg: can't be decoded"),
        CheckpointError("checkpoint Gloo/1 could not be written: Broken pipe"),
        RuntimeError("a network of mine: heartbeat, Barrier timed out"),
        ValueError("Socket closed"),
        ValueError('INTERNAL: Error opening "zarr3" driver: "/data/Gloo/1/": Broken pipe'),
    ],
)
def test_an_error_of_this_process_is_its_own_whatever_it_says(monkeypatch, error):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert raised(error) is error


def test_an_error_of_the_runtime_is_the_other_process_wherever_it_is_a_cause(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(peers, "BETWEEN", 0.0)
    late = jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out. Id: 7")
    assert "another process was lost" in str(raised(jax.errors.JaxRuntimeError(GLOO)))
    assert "another process was lost" in str(raised(ValueError(f"UNKNOWN: {GLOO.partition(': ')[2]}")))
    assert "another process was lost" in str(raised(ValueError(GLOO.replace("Gloo", "Buffer Definition Event: Gloo"))))
    assert "another process was lost" in str(raised(CheckpointError("not written"), jax.errors.JaxRuntimeError(GLOO)))
    assert "did not come to where this one waits" in str(raised(TimeoutError("timed out"), late))
    own = DataError("an image of mine")
    assert raised(own, jax.errors.JaxRuntimeError(GLOO), hidden=True) is own
    own = jax.errors.JaxRuntimeError("INTERNAL: CpuCallback error: data/Glooscap/1.jpg can't be decoded")
    assert raised(own) is own


@pytest.mark.slow
def test_sigterm_in_an_evaluation_stops_both_at_the_same_batch(tmp_path, port):
    slowly = """
def slow(test):
    def batches(step, *shard):
        for batch in test.batches(step, *shard):
            with open(os.environ["NOTE"], "a") as note:
                note.write(".")
            time.sleep(0.3)
            yield batch
    return test._replace(batches=batches)
"""
    text = "import os, time\n" + TINY.read_text().replace("Evaluation(test, ", "Evaluation(slow(test), ") + slowly
    path = tmp_path / TINY.name
    path.write_text(text)
    fields = ["--config.steps=4", "--config.log=2", "--config.checkpoint=2", "--config.evaluate=2"]
    for code in (main.INTERRUPTED, 0):
        notes = [tmp_path / f"note{index}.{code}" for index in range(2)]
        flags = [[*fields, *meeting(index, port + bool(code))] for index in range(2)]
        both = [start(tmp_path / "run", *flags[i], config=path, NOTE=str(notes[i])) for i in range(2)]
        while code and both[1].poll() is None and not (notes[1].exists() and notes[1].stat().st_size):
            time.sleep(0.05)
        if code:
            both[1].send_signal(signal.SIGTERM)
        results = [ended(process) for process in both]
        assert [status for status, _ in results] == [code, code], results
        rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows if "test/accuracy" in row] == ([] if code else [2, 4])
        assert [note.stat().st_size < 5 for note in notes] == [bool(code)] * 2


@pytest.mark.slow
def test_a_bad_image_on_one_process_ends_both(tmp_path, port):
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (20, 20), (i, 0, 0)).save(tmp_path / "data" / label / f"{i:02}.png")
    (tmp_path / "data/b/07.png").write_bytes(b"not an image")
    fields = [
        "--config.steps=100",
        "--config.source=folder",
        f"--config.data_dir={tmp_path / 'data'}",
        "--config.channels=3",
        "--config.order=shuffled",
    ]
    both = [start(tmp_path / "run", *fields, *meeting(index, port)) for index in range(2)]
    results = [ended(process) for process in both]
    (code, printed), (other_code, other_printed) = sorted(results, key=lambda result: "failed:" in result[1])
    assert code == 2
    assert "b/07.png: not an image" in printed
    assert "Traceback" not in printed
    assert other_code == 2
    assert re.search(r"process [01] failed: .*b/07.png: not an image", other_printed)


@pytest.mark.slow
def test_several_processes_resume_what_several_saved(tmp_path, port):
    more = ("--config.checkpoint=4", "--config.evaluate=4", "--fsdp=2", "--config.network.channels=(64,64)")
    for steps in (4, 8):
        fields = (f"--config.steps={steps}", *more, *["--fork"] * (steps > 4))
        both = [start(tmp_path / "run", *fields, *meeting(index, port)) for index in range(2)]
        results = [ended(process) for process in both]
        assert [code for code, _ in results] == [0, 0], results
    assert "going on from step 4 of 8" in results[0][1]


@pytest.mark.slow
def test_an_evaluation_that_fails_on_one_process_names_the_image_and_ends_both(tmp_path, port):
    for part, label in itertools.product(("train", "test"), ("a", "b")):
        (tmp_path / part / label).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (20, 20), (i, 0, 0)).save(tmp_path / part / label / f"{i:02}.png")
    (tmp_path / "test/b/07.png").write_bytes(b"not an image")
    fields = [
        "--config.steps=4",
        "--config.evaluate=4",
        "--config.source=folder",
        f"--config.data_dir={tmp_path / 'train'}",
        f"--config.test_dir={tmp_path / 'test'}",
        "--config.channels=3",
        "--config.order=shuffled",
    ]
    both = [start(tmp_path / "run", *fields, *meeting(index, port)) for index in range(2)]
    results = [ended(process) for process in both]
    (code, printed), (other_code, other_printed) = sorted(results, key=lambda result: "failed:" in result[1])
    assert code == 2, printed
    assert "b/07.png: not an image" in printed
    assert "Traceback" not in printed
    assert other_code == 2
    assert re.search(r"process [01] failed: .*b/07.png: not an image", other_printed)


def test_a_signal_is_noted_where_nobody_reads_that_it_is(monkeypatch):
    def write(number, text):
        raise BrokenPipeError

    monkeypatch.setattr(interruption.os, "write", write)
    with interruption.Interruption() as signals:
        assert not signals.requested(1)
        signal.raise_signal(signal.SIGTERM)
        assert signals.requested(1)
    assert signals.name == "SIGTERM"
