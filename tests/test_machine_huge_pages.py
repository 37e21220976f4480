"""Huge pages are asked for where Linux gives them to those who ask, once, and nobody's own setting is changed."""

import subprocess
import sys

import pytest

from jaxvision.machine import huge_pages

PROGRAM = """
import os, pathlib, sys
from jaxvision.machine import huge_pages
huge_pages.POLICY = pathlib.Path(sys.argv[1])
huge_pages.ask()
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[2:])
"""


@pytest.fixture
def policy(tmp_path, monkeypatch):
    file = tmp_path / "enabled"
    file.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "POLICY", file)
    return file


def test_they_are_asked_for_beside_what_is_set(policy):
    assert huge_pages.asking({}) == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    told = huge_pages.asking({"GLIBC_TUNABLES": "glibc.malloc.check=3"})
    assert told == {"GLIBC_TUNABLES": "glibc.malloc.check=3:glibc.malloc.hugetlb=1"}


def test_what_is_decided_stays(policy):
    assert huge_pages.asking({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}) == {}


@pytest.mark.parametrize("chosen", ["[always] madvise never", "always madvise [never]", None])
def test_elsewhere_there_is_nothing_to_ask(policy, chosen):
    policy.unlink()
    if chosen:
        policy.write_text(chosen)
    assert huge_pages.asking({}) == {}


def test_the_command_starts_anew_once_with_its_arguments(policy, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    command = [sys.executable, "-c", PROGRAM, str(policy), "a b", "--c"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        told = process.communicate()[0]
    assert told == f"{process.pid} glibc.malloc.hugetlb=1 ['a b', '--c']\n"
