"""Sweeps under a real Ray, in a network namespace of its own: a killed worker, ports out of reach, tokens asked for."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from slurm_cluster import wait_until

from launch import plan, state

pytestmark = pytest.mark.ray
HERE = Path(__file__).parent
ROOT = HERE.parent
SWEEP = ("--sweep.learning_rate=0.001,0.01", "--config.network.channels=(4,4)", "--config.evaluate=1000")
LONG = (*SWEEP, "--config.steps=300", "--config.checkpoint=50", "--config.log=10", "--cores=1", "--workers=2")
LISTENING = "0A"


def environment(**more):
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return {
        **os.environ,
        "PATH": path,
        "PACE": "0.02",
        "PYTHONPATH": f"{HERE}:{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        **more,
    }


STARTED = []


@pytest.fixture(autouse=True)
def ended():
    """Ends what a test that failed left behind."""
    assert os.geteuid() == 0, "a network namespace needs root"
    yield
    while STARTED:
        launcher = STARTED.pop()
        if launcher.poll() is None:
            launcher.send_signal(signal.SIGTERM)
            launcher.communicate(timeout=60)


def start(folder, *more):
    """A launcher in a network namespace that has a loopback interface and nothing else."""
    command = [
        sys.executable,
        "-m",
        "launch.sweep",
        f"--config={HERE}/paced_experiment.py",
        f"--workdir={folder}",
        "--backend=ray",
        *more,
    ]
    launcher = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command],
        cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    STARTED.append(launcher)
    return launcher


def states(folder):
    return state.states(plan.read(folder), folder) if (folder / plan.FILE).exists() else {}


def wait_for(launcher, folder, wanted, seconds=120):
    """The states, when they are as wanted."""

    def found():
        assert launcher.poll() is None, launcher.communicate()
        at = states(folder)
        return at if at and wanted(at) else None

    return wait_until(found, seconds)


def listening(process):
    """Ports that the network namespace of a process listens at, with the addresses in hexadecimal digits."""
    found = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{name}").read_text().splitlines()[1:]:
            _, local, _, at, *_ = line.split()
            address, port = local.split(":")
            if at == LISTENING:
                found.setdefault(int(port, 16), set()).add(address)
    return found


def addresses():
    """Every address of this namespace."""
    shown = subprocess.run(
        ["ip", "-o", "address"], env=environment(), capture_output=True, text=True, check=True
    ).stdout
    return re.findall(r"inet6? ([0-9a-f.:]+)/", shown)


def answers(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((address, port)) == 0


def cluster_address():
    """Where the cluster of the launcher is, once it has started one."""
    commands = [command_line(path).split("\0") for path in Path("/proc").glob("[0-9]*/cmdline")]
    return next((part[14:] for each in commands for part in each if part.startswith("--gcs-address=")), None)


def command_line(path):
    try:
        return path.read_text()
    except OSError:  # the process is gone
        return ""


def stranger(launcher):
    """A client of the cluster, in its namespace, that has no token."""
    code = f"import ray; ray.init({wait_until(cluster_address)!r}); print(ray.nodes())"
    client = subprocess.Popen(
        ["nsenter", f"--net=/proc/{launcher.pid}/ns/net", sys.executable, "-c", code],
        env=environment(RAY_AUTH_MODE="disabled"), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    STARTED.append(client)
    return client


def test_a_killed_worker_is_tried_again_and_nobody_else_reaches_the_cluster(tmp_path):
    launcher = start(tmp_path, *LONG)
    other = stranger(launcher)
    found = wait_for(launcher, tmp_path, lambda found: any(at.step >= 80 for at in found.values()))
    killed = next(name for name, at in found.items() if at.step >= 80)
    os.kill(state.lease.read(tmp_path / killed).process, signal.SIGKILL)
    ports = listening(launcher.pid)
    assert len(ports) >= 3  # of the store of the cluster, the node and its workers, on every interface that there is
    interfaces = Path(f"/proc/{launcher.pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    elsewhere = listening(os.getpid())
    assert not [
        (address, port) for port in set(ports) - set(elsewhere) for address in addresses() if answers(address, port)
    ]
    out, err = launcher.communicate(timeout=180)
    assert launcher.returncode == 0, err
    assert "2 runs: 2 done" in out
    first, second = state.starts(tmp_path / killed)
    assert (first["step"], second["step"] >= 50) == (0, True)
    names = set(states(tmp_path)) - {killed}
    assert all(len(state.starts(tmp_path / name)) == 1 for name in names)
    other.terminate()
    said, _ = other.communicate(timeout=60)
    assert "InvalidAuthToken" in said
    assert "NodeID" not in said


def test_a_cancelled_sweep_saves_and_goes_on(tmp_path):
    launcher = start(tmp_path, *LONG, "--config.steps=100000")
    wait_for(launcher, tmp_path, lambda found: all(at.step >= 20 for at in found.values()))
    launcher.send_signal(signal.SIGTERM)
    _, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 75, err
    assert {at.kind for at in states(tmp_path).values()} == {"interrupted"}
    assert all(at.step >= 20 for at in states(tmp_path).values())


def test_what_fails_is_tried_again_and_told(tmp_path):
    launcher = start(tmp_path, *SWEEP, "--config.blow_up_at=3", "--retries=1", "--stop-after-failures=1", "--workers=1")
    out, err = launcher.communicate(timeout=180)
    assert launcher.returncode == 1
    assert "1 failed, 1 waiting" in out
    assert re.search(r"failed: .*not finite", err)
    assert "no further one is started (--stop-after-failures)" in err
    (failed,) = [name for name, at in states(tmp_path).items() if at.kind == "failed"]
    assert len(state.starts(tmp_path / failed)) == 2


@pytest.mark.parametrize(
    ("flags", "variables", "message"),
    [
        (["--gpus=1000"], {}, "the cluster of Ray has no room for a run"),
        (["--option", "address=127.0.0.1:1"], {}, "Ray can't be reached"),
        ([], {"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE is not token"),
    ],
)
def test_what_can_not_run_is_told_in_a_line(tmp_path, monkeypatch, flags, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    launcher = start(tmp_path, *SWEEP, *flags)
    _, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 2, err
    assert message in err
    assert "Traceback" not in err
