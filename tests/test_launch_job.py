"""What runs inside a job of SLURM, without SLURM: its processes are real; and what SLURM is asked for."""

import pickle
import signal
import sys
import threading
import time
from contextlib import suppress

import pytest

from jaxvision.errors import ConfigError
from jaxvision.run import lease
from launch import cancel, slurm
from launch.backends import Settings, Unreachable
from launch.command import Resources
from launch.job import Job


@pytest.fixture(autouse=True)
def handlers():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def job(folder, code, **options):
    return Job("a", (sys.executable, "-c", code), folder, {"WORDS": "from the environment"}, **options)


def test_a_run_that_ends_well_is_done(tmp_path):
    assert job(tmp_path, "import os; print(os.environ['WORDS'])")() == "done"
    assert (tmp_path / "logs/a.log").read_text() == "from the environment\n"


def test_a_run_that_fails_is_tried_again_and_then_told(tmp_path, capsys):
    with pytest.raises(RuntimeError, match="a failed: exit status 3"):
        job(tmp_path, "print('once'); exit(3)", retries=2)()
    assert (tmp_path / "logs/a.log").read_text() == "once\n" * 3
    assert capsys.readouterr().err.splitlines() == [
        *["a: failed: exit status 3; it is tried again"] * 2,
        "a: failed: exit status 3",
    ]


def test_a_run_that_is_killed_is_told_as_killed(tmp_path):
    with pytest.raises(RuntimeError, match="a failed: killed by SIGKILL"):
        job(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")()


def test_the_error_of_a_run_is_told_by_its_last_line(tmp_path):
    (tmp_path / "a").mkdir()
    code = "from jaxvision.run import lease; from pathlib import Path\n"
    code += f"with lease.Held(Path({str(tmp_path / 'a')!r}), 5): raise ValueError('first\\nthe loss is not finite')"
    with pytest.raises(RuntimeError, match="a failed: the loss is not finite"):
        job(tmp_path, code)()


def hold(folder, error=None):
    """Leaves the lease of a run that ended well, or with an error."""
    folder.mkdir()
    with suppress(ValueError), lease.Held(folder, 1) as held:
        if error is not None:
            raise ValueError(error)
        held.ended(1, None)


def test_what_is_done_or_cancelled_or_too_much_is_not_started(tmp_path):
    code = "raise SystemExit(3)"
    hold(tmp_path / "b", "not finite")
    assert job(tmp_path, "", since=time.time() + 60)() == "done"  # b failed before the submission
    assert job(tmp_path, code, stop_after_failures=1)() == "not started: 1 runs failed (--stop-after-failures)"
    (tmp_path / cancel.FILE).touch()
    assert job(tmp_path, code)() == "not started: the plan was cancelled"
    hold(tmp_path / "a")
    assert job(tmp_path, code)() == "not started: it is done"


def test_a_run_that_goes_on_elsewhere_is_not_started(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "STALE", 1.0)
    (tmp_path / "a").mkdir()
    with lease.Held(tmp_path / "a", 1):
        assert job(tmp_path, "raise SystemExit(3)")().startswith("not started: it runs on ")


def test_a_checkpoint_ends_the_run_once_and_keeps_nothing_in_the_pickle(tmp_path):
    code = "import signal, time, pathlib\n"
    code += f"note = pathlib.Path({str(tmp_path / 'note')!r})\n"
    code += "def save(*_): note.write_text('saved'); raise SystemExit(75)\n"
    code += "signal.signal(signal.SIGTERM, save); note.write_text('ready'); time.sleep(60)"
    before = pickle.dumps(runs := job(tmp_path, code))
    (tmp_path / cancel.FILE).unlink(missing_ok=True)

    def save():
        while not (tmp_path / "note").exists() or (tmp_path / "note").read_text() != "ready":
            time.sleep(0.05)
        (tmp_path / cancel.FILE).touch()  # else it would ask SLURM to queue it again
        submissions.append(runs.checkpoint())

    submissions = []
    thread = threading.Thread(target=save)
    thread.start()
    assert runs() == "cancelled; the same command goes on"
    thread.join()
    assert (tmp_path / "note").read_text() == "saved"
    assert pickle.dumps(submissions[0].function) == before


def test_a_run_that_is_preempted_before_it_can_save_has_not_failed(tmp_path, monkeypatch, capsys):
    code = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(0.5); exit(1)"
    monkeypatch.setenv("SLURM_PROCID", "1")  # the first process asks SLURM to queue the job again
    assert job(tmp_path, code)() == "interrupted"
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (
        "interrupted, and not queued again ([Errno 2] No such file or directory: 'scontrol')" in job(tmp_path, code)()
    )
    assert "failed" not in capsys.readouterr().err


def test_signals_of_slurm_do_not_end_the_run(tmp_path):
    code = "import os, signal; [os.kill(os.getpid(), s) for s in (signal.SIGUSR1, signal.SIGUSR2)]; print('alive')"
    assert job(tmp_path, code)() == "done"
    assert (tmp_path / "logs/a.log").read_text() == "alive\n"


def asked(options=None, **resources):
    return slurm.parameters(Resources(**resources), Settings(options or {}), "token")


def test_what_slurm_is_asked_for():
    one = asked(gpus=4, cores=16, memory=1.5, minutes=90)
    assert (one["nodes"], one["ntasks_per_node"], one["cpus_per_task"]) == (1, 1, 16)  # one process for all GPUs
    assert (one["gpus_per_node"], one["mem"], one["time"], one["signal_delay_s"]) == (4, "1536MB", 90, 120)
    two = asked({"partition": "a", "reservation": "r", "notice": "45"}, nodes=2, gpus=4, cores=16, minutes=1)
    assert (two["nodes"], two["ntasks_per_node"], two["cpus_per_task"]) == (2, 4, 4)  # a process a GPU
    assert two["srun_args"] == ["--cpus-per-task=4"]
    assert (two["partition"], two["signal_delay_s"]) == ("a", 45)
    assert two["additional_parameters"] == {"requeue": True, "comment": "jaxvision:token", "reservation": "r"}
    assert not {"notice", "mem", "reservation"} & set(two)
    assert asked(minutes=1)["signal_delay_s"] == 30


@pytest.mark.parametrize("notice", ["0", "60", "soon"])
def test_a_notice_that_does_not_fit_the_time(notice):
    with pytest.raises(ConfigError, match=f"--option notice={notice}: with --minutes=1, allowed are 1 to 59 seconds"):
        asked({"notice": notice}, minutes=1)


def test_what_slurm_says_is_told_as_what_it_is():
    dead = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"
    assert isinstance(slurm.refused(dead), Unreachable)
    no = slurm.refused(
        "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: no\n"
    )
    assert (type(no), str(no)) == (ConfigError, "SLURM refuses: sbatch: error: Batch job submission failed: no")


def test_without_slurm_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no squeue here: --backend=slurm runs where SLURM's commands are"):
        slurm.queued(tmp_path)
