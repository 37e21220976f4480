"""Reports: verdicts from workdirs, in five forms; what is missing is said."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from jaxvision.errors import ConfigError
from jaxvision.run import lease
from jaxvision.run import rows as run_rows
from launch import comparison, plan, report, results
from launch.plan import Deciding, Member, Plan

DECIDING = Deciding("test/accuracy")
EFFECTS = {"baseline": 0.0, "good": 0.1, "bad": -0.1, "same": 0.0}


def write_run(folder, member, value, *, state="done", rows=None):
    """A workdir as a run leaves it."""
    workdir = folder / member.name
    workdir.mkdir(parents=True)
    with lease.Held(workdir, 20) as held:
        held.ended(20, None if state == "done" else "SIGTERM")
    figures = {"test/accuracy": value, "test/log_loss": None if value is None else 1 - value}
    lines = [{"step": 5, "loss": 1.0}, {"step": 10, **figures}, {"step": 20, **figures}]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    clock = [{"step": 10, "seconds": 10.0}, {"step": 20, "seconds": 20.0}, {"step": 20, "seconds": 5.0}]
    (workdir / "timing.jsonl").write_text("".join(json.dumps(line) + "\n" for line in clock))
    if rows is not None:
        run_rows.write(workdir, 100, {"test": rows})


def members(variants, seeds):
    return tuple(
        Member(
            f"{variant}-seed{seed}-{number:08x}", variant, seed, {}, {"seed": seed, "variant": variant}, {}, frozenset()
        )
        for number, (seed, variant) in enumerate((s, v) for s in seeds for v in variants)
    )


@pytest.fixture
def study(tmp_path):
    """A plan of four variants with five seeds, and its runs."""
    planned = Plan(Path("mine.py"), "code", members(EFFECTS, range(5)), DECIDING, "baseline")
    plan.write(planned, tmp_path)
    generator = np.random.default_rng(3)
    for member in planned.members:
        write_run(tmp_path, member, 0.7 + EFFECTS[member.variant] + 0.01 * generator.normal())
    return planned, tmp_path


def test_the_verdicts_and_what_they_rest_on(study):
    planned, folder = study
    found = {each.variant: each for each in comparison.compare(planned, results.collect(planned, folder), DECIDING)}
    assert {name: each.verdict for name, each in found.items()} == {
        "baseline": None, "good": "better", "bad": "worse", "same": "undecided"
    }  # fmt: skip
    assert "5 seeds show differences from" in found["same"].remarks[0]
    assert found["good"].seconds == 5 * 25
    lower = comparison.compare(planned, results.collect(planned, folder), Deciding("test/log_loss", "lower"))
    assert {each.variant: each.verdict for each in lower}["good"] == "better"


def test_what_is_missing_is_said(study):
    planned, folder = study
    (good,) = (m for m in planned.members if (m.variant, m.seed) == ("good", 1))
    (bad,) = (m for m in planned.members if (m.variant, m.seed) == ("bad", 2))
    (folder / good.name / "lease.json").write_text(json.dumps({"state": "failed", "host": "a", "process": 1, "born": "",
        "job": {}, "time": "", "detail": "no disk"}))  # fmt: skip
    log = folder / bad.name / "metrics.jsonl"
    log.write_text(re.sub(r'"test/accuracy": [-0-9.e]+', '"test/accuracy": null', log.read_text()))
    found = {each.variant: each for each in comparison.compare(planned, results.collect(planned, folder), DECIDING)}
    assert found["good"].seeds == (0, 2, 3, 4)
    assert "seed 1: failed: no disk" in found["good"].remarks
    assert "compared without seed 1, which one of the two lacks" in found["good"].remarks
    assert "seed 2: test/accuracy is not finite, left out" in found["bad"].remarks
    assert found["bad"].difference.n == 4
    with pytest.raises(
        ConfigError, match=r"no evaluation gives the figure 'test/acuracy'; did you mean 'test/accuracy'"
    ):
        comparison.compare(planned, results.collect(planned, folder), Deciding("test/acuracy"))


def test_one_seed_says_nothing_of_training(tmp_path):
    planned = Plan(Path("mine.py"), "code", members(["baseline", "a"], [0]), DECIDING, "baseline")
    index = np.arange(200)
    for number, member in enumerate(planned.members):
        right = index % 10 < (6, 9)[number]
        write_run(tmp_path, member, float(right.mean()), rows={"index": index, "right": right})
    compute = lambda rows: {"accuracy": float(rows["right"].mean())}
    _, found = comparison.compare(planned, results.collect(planned, tmp_path), DECIDING, compute, 200)
    assert found.verdict == "undecided"
    assert "one seed" in found.remarks[0]
    assert 0.2 < found.test_set.low < 0.3 < found.test_set.high < 0.4
    assert found.both.low == -np.inf


def test_the_best_of_a_sweep_is_marked_as_selected(study):
    planned, folder = study
    swept = planned._replace(baseline=None)
    found = comparison.compare(swept, results.collect(swept, folder), DECIDING)
    chosen, said = comparison.best(found, DECIDING)
    assert chosen.variant == "good"
    assert said.startswith("selected: chosen among 4")
    others = {"final/accuracy": (0.77, 0.01, 5)}
    chosen, said = comparison.best([found[1]._replace(others=others)], DECIDING)
    assert said == "chosen by test/accuracy; final/accuracy is 0.77 ± 0.01 (n = 5)"


class Page(HTMLParser):
    """What a page shows, and the addresses it asks for."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.cells = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")]

    def handle_data(self, data):
        self.cells.append(data.strip())


def test_the_page_holds_all_it_shows(study, capsys):
    _, folder = study
    assert report.main([str(folder), "--draws=0"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"\| good \| 0.\d+ ± 0.\d+ \| 5 \| \+0.\d+ \|", printed)
    page = Page((folder / "report.html").read_text())
    assert page.tags.count("svg") == 2
    assert all(address.startswith("#") for address in page.addresses)
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert not re.search(r"url\((?!#)|@import", (folder / "report.html").read_text())
    for name in EFFECTS:
        assert name in page.cells
    data = json.loads((folder / "report.json").read_text())
    assert data["variants"][1]["verdict"] == "better"
    assert data["variants"][0]["difference"] is None
    assert len((folder / "report.csv").read_text().splitlines()) == 21
    assert (folder / "report.tex").read_text().count("\\\\") == 5
    assert report.main([str(folder), "--figure=test/log_loss"]) == 2
    assert "fixed before the first run" in capsys.readouterr().err


def test_the_time_of_all_starts_is_added(tmp_path):
    rows = [(1, 10.0), (1, 20.0), (2, 20.5), (2, 60.0), (3, 5.0)]
    lines = [json.dumps({"step": 1, "begun": begun, "seconds": seconds}) for begun, seconds in rows]
    (tmp_path / "timing.jsonl").write_text("\n".join(lines) + "\n")
    assert results.seconds(tmp_path / "timing.jsonl") == 85
    old = [json.dumps({"step": 1, "seconds": seconds}) for seconds in (10.0, 20.0, 5.0)]
    (tmp_path / "timing.jsonl").write_text("\n".join(old) + "\n")
    assert results.seconds(tmp_path / "timing.jsonl") == 25
