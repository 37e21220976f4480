import gc
import itertools
import subprocess
import sys
import threading
import time

import pytest

from jaxvision.data.prefetch import prefetch


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def wait_for(condition):
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def test_items_come_transformed_and_in_order():
    assert list(prefetch(iter(range(20)), lambda x: x * x, size=3)) == [x * x for x in range(20)]
    assert list(prefetch(iter([]))) == []
    wait_for(lambda: not threads())


def test_work_runs_ahead_but_no_further_than_its_size():
    made = []
    items = prefetch((made.append(i) or i for i in itertools.count()), size=3)
    assert next(items) == 0
    wait_for(lambda: len(made) >= 4)
    time.sleep(0.05)
    assert len(made) == 4  # one taken, three ready
    items.close()


def broken():
    yield 1
    raise KeyError("of the iterator")


@pytest.mark.parametrize(
    ("iterator", "transform", "error"),
    [(broken(), lambda x: x, KeyError), (iter([1, 0]), lambda x: 1 // x, ZeroDivisionError)],
)
def test_an_exception_comes_in_its_place(iterator, transform, error):
    items = prefetch(iterator, transform)
    assert next(items) == 1
    with pytest.raises(error):
        next(items)
    assert threads() == []


@pytest.mark.parametrize("end", [lambda items: items[0].close(), lambda items: items.clear()])
def test_closing_or_dropping_it_stops_the_thread_and_closes_the_source(end):
    closed = threading.Event()

    def source():
        try:
            yield from itertools.count()
        finally:
            closed.set()

    items = [prefetch(source())]
    assert next(items[0]) == 0
    assert len(threads()) == 1
    end(items)
    gc.collect()
    wait_for(lambda: not threads() and closed.is_set())


def test_a_program_can_end_in_the_middle():
    program = (
        "import itertools; from jaxvision.data.prefetch import prefetch\n"
        "inner = prefetch(itertools.count()); print(next(inner), flush=True)\n"
        "outer = prefetch(prefetch(itertools.count(7), size=1)); print(next(outer), flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n7\n", "")


def test_a_size_below_one_is_refused():
    with pytest.raises(ValueError, match="got 0"):
        prefetch(iter([]), size=0)
