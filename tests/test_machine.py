"""What the process was given: cores, memory, folders, streams to print to; less than the machine has, or none."""

import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import jaxvision
from jaxvision.data import readers
from jaxvision.machine import folders, limits

EIGHT = set(range(8))


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """Writes the files of control groups, by their path below the root of a file system that is made up."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    monkeypatch.setattr(limits, "ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: EIGHT, raising=False)
    return write


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "5000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "300000 100000\n"}, 3),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/1\n2:memory:/docker/1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
def test_cores_are_those_of_the_affinity_and_of_the_quota(cgroups, files, cores):
    cgroups(files)
    assert limits.cores() == cores


def test_a_reader_has_a_thread_for_each_core_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    asked = []
    monkeypatch.setattr(readers, "in_order", lambda function, items, threads: asked.append(threads) or iter(()))
    monkeypatch.setattr(readers, "prefetch", lambda batches: batches)
    read = readers.threads()(readers.Plan(lambda: (None, None), None, 4))
    assert list(read(range(4), 0, 1)) == []
    assert asked == [1]


def test_nothing_else_asks_how_many_cores_the_machine_has():
    root = Path(jaxvision.__file__).parent
    asking = [path for path in root.rglob("*.py") if re.search("cpu_count|SC_PHYS_PAGES", path.read_text("utf-8"))]
    assert asking == [root / "machine/limits.py"]


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/memory.max": "1048576\n"},
        {"proc/self/cgroup": "2:memory:/docker/1\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "1048576\n"},
    ],
)
def test_memory_is_that_of_the_control_group(cgroups, files):
    cgroups(files)
    assert limits.memory() == 1048576


@pytest.mark.parametrize(("address_space", "memory"), [(resource.RLIM_INFINITY, 40960), (8192, 8192)])
def test_memory_is_that_of_the_machine_or_less(cgroups, monkeypatch, address_space, memory):
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10}.__getitem__)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (address_space, resource.RLIM_INFINITY))
    assert limits.memory() == memory


@pytest.fixture
def homeless(monkeypatch):
    """No HOME, and a user whom the system does not know."""
    import pwd

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("JAXVISION_CACHE", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_without_a_home_the_cache_is_among_the_temporary_files(homeless, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert folders.cache("weights").is_relative_to(tmp_path)
    with pytest.raises(ValueError, match=r"~/runs: there is no home folder for ~ to stand for"):
        folders.local("~/runs")
    assert folders.local("a/b") == Path("a/b")


@pytest.mark.parametrize("address", ["gs://bucket/run", "s3://bucket", Path("gs://bucket/run"), "https://a/b"])
def test_an_address_is_no_path_of_this_machine(address):
    with pytest.raises(ValueError, match="is an address; allowed are paths on this machine"):
        folders.local(address)


def printing(shell, code, **environment):
    """A process that outlasts its streams, and prints by this code."""
    code = f"from jaxvision.machine.output import outlast, result; outlast(); import sys\n{code}"
    command = f"{sys.executable} -c '{code}' {shell}"
    return subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=60,
    )


TALKS = 'for i in range(100000): print(i, file=sys.stderr)\nopen(sys.argv[1], "w").write("done")'


@pytest.mark.parametrize("shell", ["2>&1 | head -n 1", "2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_a_process_outlasts_those_who_read_what_it_prints(tmp_path, shell):
    done = printing(f"{tmp_path / 'file'} {shell}", TALKS)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text() == "done"


def test_a_result_that_can_not_be_written_is_an_error_and_one_that_nobody_reads_is_none():
    assert printing("", 'result("7")').stdout == b"7\n"
    full = printing(">/dev/full", 'result("7")')
    assert full.returncode == 1
    assert b"the standard output can't be written: No space left on device" in full.stderr
    assert printing("| true", 'import time; time.sleep(0.2); result("7" * 100000)').returncode == 0


def test_letters_that_a_terminal_does_not_have_are_escaped():
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    assert printing("", 'print("a\\u00e4")', **ascii_only).stdout == b"a\\xe4\n"


@pytest.mark.parametrize(("written", "on_disk"), [("Café", "Cafe\u0301"), ("Cafe\u0301", "Café"), ("Café", "Café")])
def test_a_name_is_found_in_either_unicode_form(tmp_path, written, on_disk):
    (tmp_path / on_disk).touch()
    assert folders.spelled(tmp_path, written).name == on_disk
    assert folders.spelled(tmp_path, "Cafè").name == "Cafè"


def test_a_folder_is_lent_only_where_there_is_none_for_temporary_files(tmp_path, monkeypatch):
    folders.lend_temporary(tmp_path / "tmp")
    assert not (tmp_path / "tmp").exists()
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: ["/proc/nowhere"])
    monkeypatch.setenv("TMPDIR", "/proc/nowhere")
    folders.lend_temporary(tmp_path / "tmp")
    with tempfile.NamedTemporaryFile() as file:
        assert Path(file.name).parent == tmp_path / "tmp"
