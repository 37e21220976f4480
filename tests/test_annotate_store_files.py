"""The file of a store: killed writers, full disks, read-only folders, several connections at once, bounded memory."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
import store_writer
from store_writer import BATCH, IMAGES, ME, record

from jaxvision.annotate.exchange import dataset
from jaxvision.annotate.store import Change, Conflict, Store
from jaxvision.errors import ConfigError, DataError, WorkdirError

WRITER = Path(store_writer.__file__)


class Writers:
    """Writers of stores, forked from one process that has imported everything."""

    def __init__(self):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, str(WRITER)], text=True, **pipes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()

    def write(self, path, killed_after=None):
        """Whether a writer came to its end; it is killed after so many seconds."""
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        if killed_after is not None:
            time.sleep(killed_after)
            os.kill(child, signal.SIGKILL)  # nobody has waited for it, so the id is its
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        assert status in (0, signal.SIGKILL)
        return status == 0


def content(path):
    with Store(path, readonly=True) as store:
        return list(store.records()), dataset(store.records())


def check_whole(path):
    """Every transaction is there, or nothing of it."""
    with Store(path, readonly=True) as store:
        assert store.ask("PRAGMA integrity_check") == [("ok",)]
        records = list(store.records())
        assert len(records) % BATCH == 0
        assert all(len(each.objects) == 40 for each in records)
        assert [len(store.history(each.name)) for each in records] == [each.version for each in records]
        return len(records)


def killed_and_resumed(folder, kills, seed):
    """Kills writers until so many kills have hit one in its work, then lets one end; how many records each kill left."""
    generator, left = random.Random(seed), []
    with Writers() as writers:
        begun = time.monotonic()
        assert writers.write(folder / "whole")
        span = time.monotonic() - begun
        while len(left) < kills:
            ended = writers.write(folder / "killed", generator.uniform(0, 2 * span / kills))
            if ended:  # it was too fast: from the beginning, into another file
                (folder / "killed").rename(folder / f"ended {len(left)} {time.monotonic()}")
            elif (folder / "killed").exists() and (folder / "killed").stat().st_size:
                left.append(check_whole(folder / "killed"))
        assert writers.write(folder / "killed")
    assert content(folder / "killed") == content(folder / "whole")
    assert check_whole(folder / "whole") == IMAGES
    return left


@pytest.fixture
def memory(tmp_path):
    """A folder in memory where there is one: a kill takes nothing that was written, and the disk may be slow."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_a_store_survives_kills(memory):
    killed_and_resumed(memory, 3, seed=0)


@pytest.mark.slow
def test_a_store_survives_many_kills(memory):
    left = killed_and_resumed(memory, 20, seed=1)
    assert len(set(left)) > 3, left


def test_a_cut_off_change_is_taken_back_even_by_who_only_reads(tmp_path):
    """A journal that is still hot: the file is that of a writer killed while pages of a transaction were on their way."""
    path = tmp_path / "store"
    with Store(path, create=True) as store:
        store.put(record(0), who="ssd")
        before = path.read_bytes()
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA cache_size=1")  # so that pages are written before the end
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE images SET objects = objects || objects || objects")
        connection.execute("INSERT INTO settings VALUES ('big', ?)", ("x" * 100_000,))
        for name in ("store", "store-journal"):
            copy = tmp_path / "killed" / name
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes((tmp_path / name).read_bytes())
        connection.execute("ROLLBACK")
        connection.close()
    killed = tmp_path / "killed" / "store"
    assert killed.read_bytes() != before
    assert content(killed) == content(path)
    assert os.listdir(killed.parent) == ["store"]


@pytest.fixture
def disk(tmp_path):
    """A disk of 420 KB of its own."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("a disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=420k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("there is no right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def together(store, numbers):
    with store.together():
        for number in numbers:
            store.put(record(number), who="ssd")
            if number == -1:
                raise ZeroDivisionError


def test_a_full_disk_is_told_and_the_store_is_sound(disk):
    with Store(disk / "store", create=True) as store:
        done = []
        with pytest.raises(WorkdirError, match="store: the disk is full; the store is as it was before"):
            done.extend(store.put(record(number), who="ssd") for number in range(1000))
        kept = list(store.records())
        assert 3 < len(kept) < 1000
        assert [each.objects[0].box for each in kept] == [record(k).objects[0].box for k in range(len(kept))]
        with pytest.raises(WorkdirError, match="full"):
            together(store, range(1000, 2000))
        assert list(store.records()) == kept
        assert store.ask("PRAGMA integrity_check") == [("ok",)]
    with pytest.raises(WorkdirError, match="the disk is full"):
        Store(disk / "store")
    with Store(disk / "store", readonly=True) as store:
        assert list(store.records()) == kept
    with pytest.raises(WorkdirError, match="the disk is full"):
        Store(disk / "other", create=True)
    assert not (disk / "other").exists()


def test_a_read_only_disk_is_told_at_once_and_read(disk):
    with Store(disk / "store", create=True) as store:
        store.put(record(0), who="ssd")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for name in ("store", "other"):
        with pytest.raises(WorkdirError, match=f"{name}: the store or its folder is read-only"):
            Store(disk / name, create=True)
    with Store(disk / "store", readonly=True) as store:
        assert store.names() == ["000.jpg"]
        with pytest.raises(WorkdirError, match="read-only"):
            store.put(record(1), who="ssd")
        with pytest.raises(WorkdirError, match="read-only"):
            store.settings["classes"] = "[]"


def test_a_read_only_folder_is_told_at_once(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o555)
    with pytest.raises(WorkdirError, match="store: the store or its folder is read-only"):
        Store(tmp_path / "store", create=True)


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(WorkdirError, match="there is no folder"):
        Store(tmp_path / "none" / "store", create=True)


@pytest.mark.parametrize("name", ["a b", "100%41?mode=ro#x&y", "für'\"内", "\udcff"])
def test_a_folder_may_have_any_name(memory, name):
    (memory / name).mkdir()
    with Store(memory / name / name, create=True) as store:
        store.put(record(0), who="ssd")
        store.backup()
    assert sorted(os.listdir(memory / name)) == [name, f"{name}.backup-1"]
    assert len(content(memory / name / name)[0]) == 1


def test_a_damaged_store_is_told(tmp_path):
    path = tmp_path / "store"
    with Store(path, create=True) as store:
        together(store, range(20))
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(DataError, match="store: the store is damaged"), Store(path) as store:
        list(store.records())


def test_an_empty_file_becomes_a_store_only_when_asked(tmp_path):
    (tmp_path / "store").touch()
    with pytest.raises(DataError, match="it is no store"):
        Store(tmp_path / "store")
    with Store(tmp_path / "store", create=True) as store:
        assert store.names() == []


def test_no_change_of_four_tabs_is_lost(memory):
    """Each counts one up, 5 times, of the record that it read; who comes too late reads again."""
    path = memory / "store"
    with Store(path, create=True) as store:
        store.put(record(0), who="ssd")
    conflicts = []

    def count(tab):
        with Store(path) as store:
            done = 0
            while done < 5:
                found = store.get("000.jpg")
                value = found.objects[0].attributes.get("count", 0) + 1
                try:
                    change = Change("attribute", 1, ("count", value))
                    store.apply("000.jpg", change, who=f"human:{tab}", version=found.version)
                except Conflict:
                    conflicts.append(tab)
                else:
                    done += 1

    threads = [threading.Thread(target=count, args=(tab,)) for tab in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Store(path, readonly=True) as store:
        assert store.get("000.jpg").objects[0].attributes == {"count": 20}
        assert store.get("000.jpg").version == 21
        assert len(store.history()) == 21


def test_threads_may_have_one_store_in_common(memory):
    with Store(memory / "store", create=True) as store:

        def work(thread):
            for number in range(thread, 24, 4):
                store.put(record(number), who="ssd")
                assert store.get(f"{number:03d}.jpg").version == 1

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store.names()) == 24


def test_records_are_read_in_bounded_memory_and_nobody_waits_for_the_reader(tmp_path):
    with Store(tmp_path / "store", create=True) as store:
        with store.together():
            for number in range(220):
                store.put(record(number, 4), who="ssd")
        store.ask("PRAGMA cache_size=16")
        peaks = []
        for count in (70, 220):
            tracemalloc.start()
            for number, each in enumerate(store.records(), 1):
                if number == count:
                    break
                del each
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < 1.5 * peaks[0], peaks
        found = store.records()
        next(found)
        with Store(store.path) as other:
            other.put(record(300), who="ssd")
        assert sum(1 for _ in found) == 220


def test_what_is_done_together_is_done_or_not(tmp_path):
    with Store(tmp_path / "store", create=True) as store:
        with pytest.raises(ZeroDivisionError):
            together(store, [0, 1, -1])
        assert store.names() == []
        assert store.history() == []
        with store.together():
            store.put(record(0), who="ssd")
            with pytest.raises(DataError, match="no object 99"):
                store.apply_all([("000.jpg", Change("accept", 1), 1), ("000.jpg", Change("accept", 99), 1)], ME)
            store.put(record(1), who="ssd")
            with pytest.raises(ConfigError, match="inside a block of changes"):
                store.backup()
        assert [each.version for each in store.records()] == [1, 1]


def test_copies_are_numbered_and_whole(tmp_path):
    with Store(tmp_path / "store", create=True) as store:
        store.put(record(0), who="ssd")
        first = store.backup()
        store.put(record(1), who="ssd")
        second = store.backup()
        assert [first.name, second.name] == ["store.backup-1", "store.backup-2"]
        assert sorted(os.listdir(tmp_path)) == ["store", "store.backup-1", "store.backup-2"]
    assert [len(content(each)[0]) for each in (first, second)] == [1, 2]
