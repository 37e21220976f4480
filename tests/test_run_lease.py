"""The lease of a workdir says how the run in it ended, whichever way its process left."""

import json
import subprocess
import sys
import threading

import jax
import pytest

from jaxvision.errors import AnotherProcessFailed
from jaxvision.run import lease, peers

LEAVING = """
import os, signal, sys, threading
from pathlib import Path

from jaxvision.machine import leaving
from jaxvision.run import interruption, lease, peers

class Client:
    def key_value_set(self, *of): pass

def lost():
    peers.Peers._end(None, "process 1 was lost")

def terminated():
    interruption.PATIENCE = 0.1
    with interruption.Interruption():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # no handler of Python's runs, as while XLA compiles
        thread = threading.Event()
        os.write(interruption_pipe(), bytes([signal.SIGTERM]))
        thread.wait()

def interruption_pipe():
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    return fd

def locked():
    held._lock.acquire()
    leaving.SECONDS = 0.2
    lost()

with lease.Held(Path(sys.argv[1]), 20) as held:
    with leaving.saying(held.left):
        {"lost": lost, "terminated": terminated, "locked": locked}[sys.argv[2]]()
"""


@pytest.mark.parametrize(
    ("how", "status", "state", "detail"),
    [
        ("lost", 2, "failed", "process 1 was lost"),
        ("terminated", 75, "interrupted", "SIGTERM"),
        ("locked", 2, "running", ""),
    ],
)
def test_a_process_that_leaves_at_once_says_how_it_ended(tmp_path, how, status, state, detail):
    done = subprocess.run(
        [sys.executable, "-c", LEAVING, str(tmp_path), how], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    found = lease.read(tmp_path)
    assert (found.state, found.detail) == (state, detail)


def test_what_was_said_first_stays(tmp_path):
    with lease.Held(tmp_path, 20, seconds=0.01) as held:
        held.left(2, "process 1 was lost")
        threading.Event().wait(0.1)  # longer than it takes to renew
        held.ended(20, None)
    assert json.loads((tmp_path / lease.FILE).read_text())["detail"] == "process 1 was lost"


GLOO = "FAILED_PRECONDITION: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer"


def test_the_lease_has_the_line_that_names_the_process_and_not_what_the_runtime_said(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(peers, "BETWEEN", 0.0)
    with pytest.raises(AnotherProcessFailed), lease.Held(tmp_path, 20), peers.naming_lost():
        raise jax.errors.JaxRuntimeError(GLOO)
    assert lease.read(tmp_path).detail.startswith("another process was lost: killed, or its machine or network failed")
