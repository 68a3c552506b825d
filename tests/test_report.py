"""Report: one chain on one page, and nothing in it is run, fetched or left to the clock."""

import re

import pyarrow as pa
import pytest
from rich.console import Console

from lib.stages.report import STAGE, ReportConfig, report
from lib.store import build, delete, schemas
from lib.web.blocks import Stories, Table, inlined
from lib.web.chain import open_chain, side_by_side
from lib.web.report import sections
from lib.web.tables import printable
from lib.web.terminal import render_summary
from tests import tiny

EVIL = '<script>alert(1)</script> | **bold** [link](http://x) \x1b[31mred\x1b[0m "Tom" said.'
MODELS = ("base", "instruct", "aligned")


def rows(stage, table, values):
    return pa.Table.from_pylist(values, schema=schemas.TABLES[stage, table])


def evaluated():
    samples = [
        {"model": model, "kind": kind, "prompt_no": n, "prompt": f"{kind} {n}", "text": f"{model} says {EVIL}"}
        | {"ended": True, "tokens": 9}
        for model in MODELS
        for kind, count in (("opening", 25), ("instruction", 5))
        for n in range(count)
    ]
    values = {"bits_per_byte": 0.9, "followed": 0.25, "reward_concept": 0.5}
    measured = [
        {"model": model, "metric": metric, "value": value + number / 10, "n": 5}
        for number, model in enumerate(MODELS)
        for metric, value in values.items()
    ]
    marks = {"grammar": 9.0, "creativity": 5.0, "consistency": 7.0, "plot": 3.0, "age": "B: 4-5"}
    graded = [
        {"model": model, "kind": "opening", "prompt_no": 0, "judge": "a stand-in, not a language model"} | marks
        for model in MODELS
    ]
    return {
        "samples": rows("evaluate", "samples", samples),
        "metrics": rows("evaluate", "metrics", measured),
        "grades": rows("evaluate", "grades", graded),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder for all tests here: a report draws its pictures for half a second."""
    return tmp_path_factory.mktemp("report")


@pytest.fixture
def chain(folder, data_root, monkeypatch):
    monkeypatch.setenv("STORYMILL_DATA", str(folder))
    return tiny.chain(**evaluated())


@pytest.fixture
def done(chain):
    return build(STAGE, ReportConfig(), chain, report)


def test_the_page_holds_every_section_and_every_picture(done):
    page = done.file("report.html").read_text()
    for title in ("In short", "Three requests", "The stories", "The tokenizer", "Training", "Alignment", "25 openings"):
        assert f"<h2>{title}" in page
    pictures = [name for name in done.manifest["files"] if name.endswith(".png")]
    assert sorted(pictures) == ["align.png", "funnel.png", "lengths.png", "loss-instruct.png", "loss-pretrain.png"]
    assert page.count("data:image/png;base64,") == len(pictures)
    assert all(done.manifest["files"][name]["bytes"] < 100_000 for name in pictures)
    assert page.count('class="stories"') == 3 + 25


def test_the_page_asks_for_nothing_and_runs_nothing(done):
    page = done.file("report.html").read_text()
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\x1b" not in page


def test_markdown_shows_a_story_and_does_not_interpret_it(done):
    text = done.file("report.md").read_text()
    assert r"\<script\>" in text
    assert r"\*\*bold\*\*" in text
    assert r"\[link\](http://x)" in text


def test_an_artifact_holds_its_pictures(done):
    text = inlined(done.path)
    assert text.count("](data:image/png;base64,") == 5
    assert ".png)" not in text


def test_equal_chains_give_equal_bytes(done, chain):
    delete("report", done.name)
    assert build(STAGE, ReportConfig(), chain, report).fingerprint == done.fingerprint


def test_the_funnel_names_every_reason(chain):
    [section] = [each for each in sections(open_chain(chain)) if each.title == "The stories"]
    [table] = [block for block in section.blocks if isinstance(block, Table)]
    assert ["clean", "57", "50", "7"] in [list(row) for row in table.rows]
    assert [row[-1] for row in table.rows if "too_short" in row[0]] == ["6"]


def test_requests_are_the_first_and_not_chosen(chain):
    told = side_by_side(open_chain(chain), "instruction", 3)
    assert [prompt for prompt, _ in told] == ["instruction 0", "instruction 1", "instruction 2"]
    assert set(told[0][1]) == set(MODELS)


def test_a_chain_of_stories_alone_makes_a_shorter_page(chain):
    titles = [each.title for each in sections(open_chain({"split": chain["split"]}))]
    assert titles == ["The stories", "What was run, and where it lies"]


def test_an_empty_story_is_said_to_be_empty():
    assert "(nothing)" in Stories("p", [("base", "")]).html()
    assert "(nothing)" in Stories("p", [("base", "")]).markdown()


def test_the_summary_shows_the_figures_and_no_escape_codes(chain):
    console = Console(width=110, record=True, force_terminal=False, no_color=True)
    render_summary(chain, console=console)
    text = console.export_text()
    for figure in ("too_short", "0.900", "1.100", "25%", "0.014", "0.571", "instruction 2"):
        assert figure in text
    assert "\x1b" not in text.replace("\n", "")


def test_printable_text_cannot_move_the_cursor():
    assert printable("a\x1b[2Jb\rc\x07\x9b31m\td\ne") == "a[2Jbc31m d\ne"
