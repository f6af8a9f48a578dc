"""The report: whole, escaped, and readable in a real browser on a desk, on a phone and on paper."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape

import numpy as np
import pandas as pd
import pytest

from rbpp.assessment.assess import assess
from rbpp.assessment.report import render, write_report
from rbpp.plots import COMPONENT_COLOURS, plot_map

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
HOSTILE = "<script>alert('x')</script> & \"quotes\""
# Measures the page in a frame of the given width: what sticks out, and what has no height.
MEASURE = """
<body><iframe id=f style="width:{width}px;height:9000px;border:0" srcdoc="{page}"></iframe>
<pre id=out></pre><script>
f.onload = () => {{
  const d = f.contentDocument, box = e => e.getBoundingClientRect();
  const out = [...d.body.querySelectorAll('*')].filter(
    e => !e.closest('svg') && (box(e).right > {width} + 1 || box(e).left < -1));
  const drawings = [...d.querySelectorAll('svg')].map(e => box(e).width * box(e).height);
  const empty = [...d.querySelectorAll('h2')].filter(
    e => !e.nextElementSibling || box(e.nextElementSibling).height < 5);
  document.getElementById('out').textContent = JSON.stringify({{
    width: d.documentElement.scrollWidth, drawings,
    out: out.map(e => e.tagName + ':' + e.textContent.slice(0, 40)),
    empty: empty.map(e => e.textContent), height: d.body.scrollHeight}});
}};</script></body>
"""


@pytest.fixture(scope="module")
def assessment():
    """Two clumps of the task, of which the synthetic data has one, and one of its own."""
    source = np.random.default_rng(0)

    def rows(centres, count):
        return np.concatenate(
            [source.normal(centre, 1.0, (count, 3)) for centre in np.atleast_2d(centres)]
        )

    near, far, off = [0.0, 0, 0], [12.0, 0, 0], [0.0, 12, 0]
    result = assess(
        rows(near, 60),
        rows([near, off], 80),
        target=rows([near, far], 70),
        components=5,
        chains=2,
        draws=50,
    )
    table = result.rows.copy()
    table["text"] = [f"{HOSTILE} {index} " + "long" * 200 for index in range(len(table))]
    components = result.components.copy()
    components["nearest"] = [[HOSTILE, "second"] for _ in components.index]
    components["keywords"] = [[HOSTILE] for _ in components.index]
    return replace(result, rows=table, components=components)


@pytest.fixture(scope="module")
def page(assessment):
    return render(assessment)


def test_needs_nothing_from_elsewhere(page):
    assert page.count("<script") == 1
    assert "http" not in page.split("<script>")[1]
    # Namespaces of SVG are names, not addresses that anything is fetched from.
    fetched = re.findall(r"""(?:src|href|url\()\s*=?\s*["']?(\w+:[^"')\s]{0,40})""", page)
    assert all(address.startswith("data:") for address in fetched), fetched
    assert page.count("<svg") == 2


def test_escapes_what_users_wrote(page):
    assert HOSTILE not in page
    assert "<script>alert" not in page
    assert HOSTILE in unescape(page)
    assert "&lt;script&gt;alert" in page


def test_says_what_the_assessment_says(assessment, page):
    text = unescape(page)
    for answer in assessment.answers:
        assert answer["sentence"][1:] in text
    for check in assessment.checks:
        assert check.message in text
        assert check.statement in text
    for heading in ("What to drop", "What to generate next", "Components", "Audit", "Terms"):
        assert f"<h2>{heading}</h2>" in page
    off = assessment.rows[
        (assessment.rows.source == "synthetic") & (assessment.rows.off_task > 0.5)
    ]
    assert len(off) > 40
    assert f"{len(off):,} of 160 synthetic rows" in page
    assert re.search(r"components? of the task (is|are) hardly in the synthetic data", page)


def test_the_interval_is_the_readers_choice(assessment):
    assert "50% interval" in render(assessment, hdi_prob=0.5)
    with pytest.raises(ValueError, match="hdi_prob"):
        render(assessment, hdi_prob=2)


def test_the_same_assessment_gives_the_same_page(assessment, page, tmp_path):
    write_report(assessment, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page


def test_without_text_and_without_findings(assessment):
    rows = assessment.rows.assign(text=None, off_task=0.0, redundancy=0.0)
    components = assessment.components.assign(part="shared")
    page = render(replace(assessment, rows=rows, components=components))
    assert "0 of 160 synthetic rows" in page
    assert "No component of the task is missing" in page


def test_map_has_an_ellipse_per_component_that_is_there(assessment):
    axis = plot_map(assessment.rows, assessment.components, assessment.axes)
    shown = assessment.components["part"].isin(COMPONENT_COLOURS)
    assert len(axis.patches) == shown.sum() > 1
    assert axis.get_xlabel() == assessment.axes[0]
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert "synthetic (160)" in labels
    nothing = pd.DataFrame(assessment.components).assign(part="empty")
    assert not plot_map(assessment.rows, nothing, assessment.axes).patches


def browse(tmp_path, *options):
    profile = tmp_path / "profile"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off_or_empty_in_a_browser(page, tmp_path, width):
    frame = tmp_path / "frame.html"
    frame.write_text(MEASURE.format(width=width, page=escape(page, quote=True)), encoding="utf-8")
    dom = browse(tmp_path, "--virtual-time-budget=20000", "--dump-dom", frame.as_uri())
    measured = json.loads(unescape(re.search(r'<pre id="out">(.*?)</pre>', dom, re.S)[1]))
    assert measured["width"] <= width, measured["out"]
    assert measured["out"] == []
    assert measured["empty"] == []
    assert len(measured["drawings"]) == 2
    assert min(measured["drawings"]) > 20_000
    assert measured["height"] > 1500


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_prints_on_two_pages(page, tmp_path):
    report, paper = tmp_path / "report.html", tmp_path / "report.pdf"
    report.write_text(page, encoding="utf-8")
    browse(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={paper}", report.as_uri())
    assert 1 <= len(re.findall(rb"/Type /Page\b", paper.read_bytes())) <= 2
