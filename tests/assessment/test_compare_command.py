"""`rbpp compare`: conditions, files, stored results, and one line for every kind of bad input."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import MEASURE, browse

from rbpp import command
from rbpp.assessment import markdown
from rbpp.assessment.compare import compare
from rbpp.assessment.conditions import DRAWN, NUMBERS, check_condition, names_for
from rbpp.assessment.report import render
from rbpp.assessment.sources import Fields

HOSTILE = "<script>alert('x')</script>"
FEW = ["--draws", "40", "--quiet"]


def rows(count: int, seed: int, *, off: float = 0.0, wrong: float = 0.0) -> list[dict[str, Any]]:
    """Two classes of vectors with labels, an own id, and a text that no page may run."""
    random = np.random.default_rng(seed)
    label = np.arange(count) % 2
    x = random.normal(size=(count, 4)) + np.eye(2, 4)[label] * 3
    x[random.random(count) < off] += [0, 0, 0, 9]
    said = np.where(random.random(count) < wrong, 1 - label, label)
    return [
        {"x": list(a), "y": int(b), "name": f"{seed}-{k}"}
        for k, (a, b) in enumerate(zip(x, said, strict=True))
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("versions")
    made = {
        "good": rows(200, 1),
        "off": rows(200, 2, off=0.3),
        "wrong": rows(200, 3, wrong=0.4),
        "third": rows(200, 4),
        "two": rows(2, 5),
        "lone": rows(1, 6),
        "real": rows(150, 9),
    }
    made["bare"] = [{"x": row["x"]} for row in made["real"]]
    made["copy"] = made["good"][::-1]
    made["leaked"] = made["real"]
    made["one"] = [{**row, "y": 1} for row in made["good"]]
    made["text"] = [{**row, "y": f"{row['y']}.0"} for row in made["good"]]
    made["elsewhere"] = [{**row, "y": f"class {row['y']}"} for row in made["good"]]
    made["short"] = [{**row, "x": row["x"][:2]} for row in made["good"]]
    made["unlabelled"] = [{**row, "y": None} for row in made["good"]]
    for name, lines in made.items():
        (place / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (place / "broken.json").write_text("{")
    (place / "other.json").write_text("{}")
    return place


@pytest.fixture
def run(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(folder)

    def run(line: str, *more: str, fields: str = "--embedding-field x --label-field y") -> Any:
        names = [f"{one}.jsonl" if (folder / f"{one}.jsonl").exists() else one
                 for one in f"{line} {fields}".split()]  # fmt: skip
        status = command.main(["compare", *FEW, *names, *more])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def test_prints_one_object(run: Any) -> None:
    status, out, _ = run("good off wrong --reference real", "--json")
    assert status == 0
    found = json.loads(out)
    assert [line["name"] for line in found["ranking"]][-1] == "wrong"
    keys = "name score sd hdi_low hdi_high p_best rank_mean score_equal_size p_best_equal_size"
    assert {*keys.split(), "p_trained_best", "precision", "coverage"} <= set(found["ranking"][0])
    assert {"p_better", "p_equivalent", "p_worse"} <= set(found["differences"][0])
    assert {"good/score", "off/irrelevant_share", "off/kl_synthetic"} <= set(found["terms"])
    assert found["terms"]["good/score"]["sd"] > 0
    beside = {line["name"]: line for line in found["diagnostics"]}
    assert beside["wrong"]["label_disagreement"] > 0.2 > beside["good"]["label_disagreement"]
    assert found["kind"] == "labels"


def test_prints_a_table_without_shares(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = [str(folder / f"{name}.jsonl") for name in ("good", "wrong")]
    arguments = ["--reference", str(folder / "real.jsonl"), "--embedding-field", "x"]
    arguments += ["--label-field", "y", "--no-shares", "--figures", str(tmp_path), "--draws", "40"]
    assert command.main(["compare", *files, *arguments]) == 0
    printed = capsys.readouterr().out
    assert "P(trained best)" in printed
    assert "precision" not in printed
    assert "good ranks first" in printed
    for name in ("ranking", "score_by_rows", "pairs"):
        assert (tmp_path / f"{name}.png").stat().st_size > 3000


CONDITIONS = {
    "irrelevant_share > 0.1 with 0.9": ["off"],
    "irrelevant_share>0.1 with .9": ["off"],
    "good: irrelevant_share > 0.1 with 0.9": [],
    "off: precision < 0.9 with 0.9": ["off"],
    "coverage < 0.5 with 0.9": [],
    "p_best > 0.5": ["good"],
    "rank_mean > 2.5": ["wrong"],
    "label_disagreement > 0.2": ["wrong"],
    "score < -9 with 0.9": [],
    "rows < 100": [],
}


def test_conditions_hold_for_the_versions_they_should(run: Any) -> None:
    asked = [part for condition in CONDITIONS for part in ("--fail-if", condition)]
    status, out, _ = run("good off wrong --reference real", "--json", *asked)
    found = json.loads(out)["fail_if"]
    # `good` and `off` have the same labels: which of them is first is not what is asked.
    found["p_best > 0.5"] = CONDITIONS["p_best > 0.5"]
    assert found == CONDITIONS
    assert status == 1


def test_status_is_one_only_where_a_condition_holds(run: Any) -> None:
    for condition, expected in (("rank_mean > 1.9", 1), ("rank_mean > 9", 0)):
        status, _, _ = run("good wrong --reference real --no-shares", "--fail-if", condition)
        assert status == expected


def test_every_name_of_a_condition_can_be_asked_and_is_in_the_help(
    run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    conditions = [f"{name} > 1e9 with 0.5" for name in DRAWN] + [f"{n} > 1e9" for n in NUMBERS]
    asked = [part for condition in conditions for part in ("--fail-if", condition)]
    status, out, err = run("good off --reference real --anchor third", "--json", *asked)
    assert status == 0, err
    assert json.loads(out)["fail_if"] == {condition: [] for condition in conditions}
    assert "cannot be answered" not in out
    assert command.main(["compare", "--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*DRAWN, *NUMBERS))


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("irrelevant_share", "Expected a condition as"),
        ("irrelevant_share >= 0.1 with 0.9", "Expected a condition as"),
        ("irrelevant_share > 0.1", "Expected a condition with a probability"),
        ("irrelevant_share > 0.1 with 1.5", "probability above 0, up to 1"),
        ("irrelevant_share > 0.1 with 0", "probability above 0, up to 1"),
        ("irrelevant_share > - with 0.5", "Expected numbers"),
        ("wrong > 0.1 with 0.9", "Expected one of score"),
        ("p_bets > 0.1", "did you mean 'p_best'"),
        ("other: p_best > 0.1", "Expected one of the versions"),
    ],
)
def test_conditions_that_cannot_be_read_are_refused_before_the_work(
    condition: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=message):
        check_condition(condition, ["good", "off"])
    arguments = ["absent.npy", "more.npy", "--reference", "absent.npy", "--fail-if", condition]
    assert command.main(["compare", *arguments]) == 2
    assert "Expected a file" not in capsys.readouterr().err


def test_conditions_about_what_is_not_computed_are_refused(run: Any) -> None:
    status, _, err = run(
        "good off --reference real --no-shares", "--fail-if", "precision < 1 with 1"
    )
    assert status == 2
    assert "Expected one of" in err
    assert "kl_gap" not in names_for(shares=True, anchor=False, labels=True)
    assert "label_disagreement" not in names_for(shares=True, anchor=True, labels=False)


def test_a_share_that_cannot_be_told_answers_no_condition(run: Any) -> None:
    condition = "two: precision < 0.9 with 0.9"
    status, out, _ = run("good two --reference real", "--json", "--fail-if", condition)
    assert status == 0
    assert json.loads(out)["fail_if"] == {condition: []}


BAD = {
    "good --reference real": "at least 2 versions",
    "good good --reference real": "versions of different names",
    "good absent --reference real": "absent",
    "good short --reference real": "dimension",
    "good lone --reference real": "at least 2 rows",
    "good off --reference lone": "at least 2 rows",
    "elsewhere elsewhere2 --reference real": "Expected a file",
    "good unlabelled --reference real": "missing ones alone",
    "good off --reference real --against absent.json": "absent.json",
    "third --reference real --against broken.json": "stored results in JSON",
    "third --reference real --against other.json": "stored results of --store",
    "good off --reference real --draws 1": "draws",
    "good off --reference real --equivalent-nats -1": "equivalent",
    "good off --reference real --report nowhere/r.html": "cannot write",
    "good off --reference real --store nowhere/s.json": "cannot write",
    "good off --reference real --stream": "expected vectors alone",
    "good off --reference real --prompt-field x": "got one of them",
    "good off --reference real --generator-field none": "none",
    "good copy --reference bare": "copies of one set",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_ends_with_one_line(line: str, run: Any) -> None:
    status, out, err = run(line)
    assert (status, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert BAD[line] in err


@pytest.mark.parametrize(
    ("line", "fields", "message"),
    [
        ("good off --reference real", "--embedding-field x --label-field z", "a field 'z'"),
        (
            "good off --reference real",
            "--embedding-field x --label-field name",
            "set 'good', which looks like an identifier",
        ),
        ("good bare --reference real", "--embedding-field x --label-field y", "every set or in"),
        ("good off --reference bare", "--embedding-field z", "a field 'z'"),
    ],
)
def test_bad_labels_end_with_one_line(line: str, fields: str, message: str, run: Any) -> None:
    status, _, err = run(line, fields=fields)
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert message in err


def audit(out: str) -> dict[str, dict[str, Any]]:
    return {entry["statement"]: entry for entry in json.loads(out)["audit"]}


def test_labels_as_text_and_as_numbers_are_one(run: Any) -> None:
    status, out, _ = run("text wrong --reference real --no-shares", "--json")
    assert status == 0
    numbers = json.loads(run("good wrong --reference real --no-shares", "--json")[1])
    assert json.loads(out)["ranking"][0]["score"] == numbers["ranking"][0]["score"]


def test_one_label_only_is_refused(run: Any, folder: Path) -> None:
    lines = (folder / "one.jsonl").read_text()
    (folder / "one more.jsonl").write_text(lines)
    arguments = ["compare", "one.jsonl", "one more.jsonl", "--reference", "bare.jsonl"]
    assert command.main([*arguments, "--embedding-field", "x", "--label-field", "y"]) == 2


def test_what_misleads_is_in_the_audit(run: Any) -> None:
    _, out, _ = run("good copy leaked two --reference real --no-shares", "--json")
    found = audit(out)
    assert "good, copy" in found["no two sets are copies of each other"]["message"]
    assert "leaked" in found["no set has rows of the real rows that judge it"]["message"]
    assert "two" in found["every set has enough rows to be ranked"]["message"]
    lines = {line["name"]: line for line in json.loads(out)["ranking"]}
    assert lines["good"]["score"] == lines["copy"]["score"]
    assert lines["good"]["p_best"] == lines["copy"]["p_best"]
    assert lines["good"]["rank_mean"] == lines["copy"]["rank_mean"]


def test_labels_of_one_side_alone_are_named(run: Any) -> None:
    _, out, _ = run("good one --reference real --no-shares", "--json")
    assert audit(out)["every set has the labels of the real rows"]["verdict"] == "violated"
    _, out, _ = run("good elsewhere --reference real --no-shares", "--json")
    assert audit(out)["the real rows have the labels of the sets"]["verdict"] == "violated"
    _, out, _ = run("good wrong --reference bare --no-shares", "--json")
    entry = next(e for name, e in audit(out).items() if "consensus" in name)
    assert (entry["verdict"], entry["voters"]) == ("violated", 2)


def test_two_hundred_versions_in_a_minute(tmp_path: Path, capsys: Any) -> None:
    random = np.random.default_rng(0)
    for name in [*map(str, range(201)), "real"]:
        np.save(tmp_path / f"{name}.npy", random.normal(size=(25, 3)))
    files = [str(tmp_path / f"{k}.npy") for k in range(201)]
    arguments = ["--reference", str(tmp_path / "real.npy"), "--no-shares", "--json", *FEW]
    assert command.main(["compare", *files, *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["ranking"]) == 201
    assert len(found["differences"]) == 2 * 200  # each with the best


def test_stored_results_rank_one_version_and_store_it(run: Any, tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert run("good wrong --reference real --no-shares", "--store", str(first))[0] == 0
    status, out, _ = run(
        "third --reference real --no-shares --json",
        *("--against", str(first), "--store", str(second), "--figures", str(tmp_path)),
    )
    assert status == 0
    assert {line["name"] for line in json.loads(out)["ranking"]} == {"good", "wrong", "third"}
    assert (tmp_path / "series.png").exists()
    assert list(json.loads(second.read_text())["sets"]) == ["good", "wrong", "third"]
    status, _, err = run("off --reference bare --no-shares", "--against", str(first))
    assert (status, "reference of the stored results" in err) == (2, True)
    status, _, err = run("good --reference real --no-shares", "--against", str(first))
    assert (status, "names that the stored results lack" in err) == (2, True)
    other = json.loads(first.read_text())
    other["digests"]["settings"] = "another"
    first.write_text(json.dumps(other))
    status, _, err = run("third --reference real --no-shares", "--against", str(first))
    assert (status, "settings of the stored results" in err) == (2, True)
    other["digests"]["embedding"] = "another"
    first.write_text(json.dumps(other))
    status, _, err = run("third --reference real --no-shares", "--against", str(first))
    assert (status, "embedding of the stored results" in err) == (2, True)


def test_streams_are_compared(tmp_path: Path, capsys: Any) -> None:
    random = np.random.default_rng(0)
    for name, shift in (("near", 0), ("far", 1), ("real", 0)):
        np.save(tmp_path / f"{name}.npy", random.normal(shift, 1, (900, 3)))
    arguments = [str(tmp_path / "near.npy"), str(tmp_path / "far.npy"), "--stream", *FEW, "--json"]
    arguments += ["--reference", str(tmp_path / "real.npy"), "--sample-rows", "300"]
    assert command.main(["compare", *arguments, "--chunk-rows", "200"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [line["name"] for line in found["ranking"]] == ["near", "far"]
    assert found["settings"]["sample_rows"] == {"reference": 300, "near": 300, "far": 300}


# ---- the report ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared() -> Any:
    def texts(count: int, seed: int, wrong: float) -> list[dict[str, Any]]:
        found = rows(count, seed, wrong=wrong)
        return [{**row, "y": f"{HOSTILE} {row['y']}"} for row in found]

    made = {f"good {HOSTILE}": texts(80, 1, 0.0), "wrong": texts(80, 2, 0.4)}
    fields = Fields(embedding="x", label="y", id="name")
    return compare(made, texts(80, 9, 0.0), fields=fields, draws=40).asked(["p_best > 0.5"])


def test_the_report_says_what_the_comparison_says(compared: Any) -> None:
    page = render(compared)
    text = unescape(page)
    for line in (*compared.headline, *compared.notes):
        assert line in text
    for check in compared.checks:
        assert check.statement in text
        assert check.message in text
    for heading in ("Ranking", "Who is better than whom", "Beside the score", "Conditions"):
        assert f"<h2>{heading}</h2>" in page
    assert "Versions over time" not in page
    worst = compared.influence[compared.influence["version"] == "wrong"].sort_values("influence")
    assert f"{worst.iloc[0]['id']}, label" in text
    assert "94 % interval" in page
    assert "50 % interval" in render(compared, hdi_prob=0.5)
    with pytest.raises(ValueError, match="hdi_prob"):
        render(compared, hdi_prob=2)


def test_the_report_escapes_and_needs_nothing_else(compared: Any) -> None:
    page = render(compared)
    assert HOSTILE not in page
    assert page.count("<script>") == 1
    assert "<script>alert" not in page
    # Namespaces of SVG are names, not addresses that anything is fetched from.
    fetched = re.findall(r"""(?:src|href|url\()\s*=?\s*["']?(\w+:[^"')\s]{0,40})""", page)
    assert all(address.startswith("data:") for address in fetched), fetched
    assert page.count("<svg") == 3
    assert render(compared) == page


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_of_the_report_is_cut_off(compared: Any, tmp_path: Path, width: int) -> None:
    page = tmp_path / "report.html"
    page.write_text(render(compared), encoding="utf-8")
    measured = browse(tmp_path, page.as_uri(), width, script=MEASURE)
    assert measured["width"], measured["out"]
    for nothing in ("out", "cut", "empty", "unnamed", "links"):
        assert measured[nothing] == [], nothing


def test_markdown_has_the_answer_the_conditions_and_no_markup_of_users(compared: Any) -> None:
    text = markdown.of_comparison(compared)
    assert compared.headline[0].split(":")[1] in unescape(text.replace("\\", ""))
    assert "- ✗ `p_best > 0.5`: holds for good " in text
    assert "<script>" not in text
    assert "&lt;script>" in text
    assert text.count("<details>") == text.count("</details>") == 2


def test_the_command_writes_the_report_with_a_series(run: Any, tmp_path: Path) -> None:
    stored, page = tmp_path / "one.json", tmp_path / "report.html"
    assert run("good wrong --reference real", "--store", str(stored))[0] == 0
    status, _, _ = run("third --reference real", "--against", str(stored), "--report", str(page))
    assert status == 0
    written = page.read_text(encoding="utf-8")
    assert "Versions over time" in written
    assert written.count("<svg") == 4
