"""The report: whole, escaped, and readable in a real browser on a desk, on a phone and on paper."""

import re
from dataclasses import replace
from html import unescape

import numpy as np
import pandas as pd
import pytest
from browser import MEASURE, browse

from rbpp.assessment import markdown
from rbpp.assessment.answers import VERDICTS, advice
from rbpp.assessment.assess import assess
from rbpp.assessment.marks import rows_digest, rows_to_ask
from rbpp.assessment.report import render, write_report
from rbpp.plots import COMPONENT_COLOURS, plot_map
from rbpp.wording import quantity

HOSTILE = "<script>alert('x')</script> & \"quotes\""
# Uses the rows as a reader does: searches, filters, sorts by a heading, and goes on.
USE = """(() => {
  const field = name => document.getElementById(name);
  const rows = () => [...field('rows').tBodies[0].rows].filter(row => !row.hidden);
  const set = (name, value) => {
    field(name).value = value; field(name).dispatchEvent(new Event('input')); };
  const texts = column => rows().map(row => row.cells[column].textContent);
  const found = {first: rows().length, told: field('shown').textContent};
  field('more').click(); found.more = rows().length;
  set('kind', 'off'); found.off = texts(2).map(Number); found.off_told = field('shown').textContent;
  set('kind', ''); set('source', 'target'); found.sources = [...new Set(texts(0))];
  set('source', ''); set('search', ' 7 LONG'); found.searched = texts(7);
  set('search', 'no such words'); found.none = field('shown').textContent;
  set('search', '');
  const head = field('rows').tHead.rows[0].cells[2];
  head.querySelector('button').click();
  found.down = texts(2).map(Number); found.sort = head.getAttribute('aria-sort');
  head.querySelector('button').click(); found.up = head.getAttribute('aria-sort');
  return found;
})()"""
# The smallest contrast of text on its ground, over all elements with words of their own.
CONTRAST = """(() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(
    v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
  ).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => { for (let one = e; one; one = one.parentElement) {
    const found = numbers(getComputedStyle(one).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found; } return [255, 255, 255]; };
  let worst = [99, ''];
  for (const e of document.querySelectorAll('body *')) {
    if (e.closest('svg, script, style') || ![...e.childNodes].some(
      n => n.nodeType === 3 && n.textContent.trim())) continue;
    const [one, two] = [numbers(getComputedStyle(e).color), ground(e)].map(light);
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (ratio < worst[0]) worst = [ratio, e.tagName + '.' + e.className];
  }
  return worst;
})()"""


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
    assert page.count("<script>") == 1
    assert "http" not in page.split("<script>")[1]
    assert len(page.encode()) < 2_000_000
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
    text = unescape(page).replace("\N{NO-BREAK SPACE}", " ")
    for answer in assessment.answers:
        assert answer["sentence"][1:] in text
    for check in assessment.checks:
        assert check.message in text
        assert check.statement in text
    headings = ("What to drop and what to keep", "What to generate next", "Components", "Checks")
    for heading in (*headings, "Numbers", "All rows"):
        assert f"<h2>{heading}</h2>" in page
    off = assessment.rows[
        (assessment.rows.source == "synthetic") & (assessment.rows.off_task > 0.5)
    ]
    assert len(off) > 40
    assert f"{len(off):,} of 160 synthetic rows" in page
    assert re.search(
        r"of the task is missed, at most .*, of which \d components? of the task", text
    )
    assert VERDICTS["bad"] in text


def test_has_the_sheet_of_rows_to_mark_and_the_references(assessment, page):
    assert f"data-digest='{rows_digest(assessment.texts)}'" in page
    asked = [int(row) for row in re.findall(r"<tr data-row='(\d+)'", page)]
    assert asked == rows_to_ask(assessment.score).tolist()
    assert "two halves of the task" in page
    reference = assessment.references["irrelevant_share"]
    line = page.split("<code>irrelevant_share</code>")[1].split("</tr>")[0]
    assert f"[{quantity(reference, share=True)}]" in line


def test_labels_have_a_table(assessment):
    labels = pd.DataFrame(
        {"label": [HOSTILE, "b"], "rows": [3, 4], "share": [0.4, 0.6], "task_share": [0.5, 0.5]}
    ).assign(p_missing=[0.0, 0.97], p_too_few=[0.1, 0.98])
    page = render(replace(assessment, labels=labels))
    assert "<h2>Labels</h2>" in page
    assert "97 %" in page
    assert "<h2>Labels</h2>" not in render(assessment)


def test_the_interval_is_the_readers_choice(assessment):
    assert "50 % interval" in render(assessment, hdi_prob=0.5)
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
    assert "spread thinly: no component as a whole" in page
    assert "components are missing" not in page


@pytest.mark.parametrize("verdict", ["good", "unclear", "bad"])
def test_steps_follow_from_the_answers(assessment, verdict):
    answers = [{**answer, "verdict": verdict} for answer in assessment.answers]
    components = assessment.components.assign(part="shared")
    found, steps = advice(replace(assessment, answers=answers, components=components))
    assert found == verdict
    said = " ".join(steps)
    assert ("Drop the" in said) == (verdict == "bad")
    assert ("Mark twenty rows before you drop any" in said) == (verdict == "unclear")
    assert ("Generate more" in said) == (verdict == "bad")
    assert ("Thin out" in said) == (verdict == "bad")


def test_markdown_and_card_say_the_same_and_escape_it(assessment):
    for text in (markdown.of_assessment(assessment), markdown.data_card(assessment)):
        assert "<script>" not in text
        shown = unescape(text.replace("\\", ""))
        for answer in assessment.answers:
            assert answer["sentence"].split(";")[0] in shown
        assert all(" | " in line for line in text.splitlines() if line.startswith("| "))
        assert VERDICTS["bad"] in text
    assert "&lt;script>" in markdown.of_assessment(assessment)
    card = markdown.data_card(assessment)
    assert card.startswith("<!-- rbpp: start -->")
    assert card.endswith("<!-- rbpp: end -->\n")
    assert "60 anchor, 160 synthetic, 140 target rows" in card or "160 synthetic" in card


def test_map_has_an_ellipse_per_component_that_is_there(assessment):
    axis = plot_map(assessment.rows, assessment.components, assessment.axes)
    shown = assessment.components["part"].isin(COMPONENT_COLOURS)
    assert len(axis.patches) == shown.sum() > 1
    assert axis.get_xlabel() == assessment.axes[0]
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert "synthetic (160)" in labels
    nothing = pd.DataFrame(assessment.components).assign(part="empty")
    assert not plot_map(assessment.rows, nothing, assessment.axes).patches


@pytest.fixture
def address(page, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off_or_empty_in_a_browser(address, tmp_path, width):
    measured = browse(tmp_path, address, width, script=MEASURE)
    assert measured["width"], measured["out"]
    for nothing in ("out", "cut", "empty", "unnamed", "links"):
        assert measured[nothing] == [], nothing
    assert measured["unheaded"] == 0
    assert len(measured["drawings"]) == 2
    assert min(measured["drawings"]) > 20_000
    assert measured["height"] > 1500


def test_rows_are_searched_filtered_and_sorted_in_a_browser(assessment, address, tmp_path):
    found = browse(tmp_path, address, script=USE)
    synthetic = assessment.synthetic
    off = int((synthetic["off_task"] > 0.5).sum())
    assert found["first"] == 50
    assert found["told"] == f"50 of {len(assessment.rows)} rows"
    assert found["more"] == 100
    assert len(found["off"]) == min(off, 50)
    assert min(found["off"]) >= 0.5
    assert str(off) in found["off_told"]
    assert found["sources"] == ["target"]
    assert found["searched"]
    assert all(" 7 long" in text for text in found["searched"])
    assert found["none"] == "0 rows"
    assert found["down"] == sorted(found["down"], reverse=True)
    assert (found["sort"], found["up"]) == ("descending", "ascending")


@pytest.mark.parametrize("dark", [False, True])
def test_words_stand_out_from_their_ground(address, tmp_path, dark):
    contrast, where = browse(tmp_path, address, script=CONTRAST, dark=dark)
    assert contrast >= 4.5, where


def test_prints_on_few_pages(address, tmp_path):
    paper = tmp_path / "report.pdf"
    browse(tmp_path, address, paper=str(paper))
    assert 1 <= len(re.findall(rb"/Type ?/Page\b", paper.read_bytes())) <= 3
