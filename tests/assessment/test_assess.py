"""Assessments of rows whose truth is known, and what every option changes."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from rbpp import command, shipped
from rbpp.assessment.answers import advice
from rbpp.assessment.assess import assess
from rbpp.assessment.sources import Fields, Representation
from rbpp.inference_data import group_datasets, term_table

CENTRES = np.random.default_rng(0).normal(size=(5, 6)) * 4


def rows_of(components, count, seed):
    """Rows of well-apart clusters; component 3 is only the task's, 4 only the generator's."""
    random = np.random.default_rng(seed)
    which = random.choice(components, count)
    return CENTRES[which] + random.normal(size=(count, 6)), which


ANCHOR, _ = rows_of([0, 1], 80, 1)
TARGET, _ = rows_of([0, 1, 2, 3], 240, 2)
SYNTHETIC, PART = rows_of([0, 1, 2, 4], 200, 3)
OPTIONS = {"chains": 2, "draws": 60}


@pytest.fixture(scope="module")
def found():
    return assess(ANCHOR, SYNTHETIC, target=TARGET, **OPTIONS)


def interval(assessment, name):
    term = term_table(assessment.idata)[name]
    return term["hdi_low"], term["hdi_high"]


@pytest.mark.parametrize(
    ("term", "truth"),
    [
        ("irrelevant_share", (PART == 4).mean()),
        ("uncovered_share", 0.25),
        ("novel_share", (PART == 2).mean()),
    ],
)
def test_shares_are_covered(found, term, truth):
    low, high = interval(found, term)
    assert low - 0.03 <= truth <= high + 0.03
    assert high - low < 0.3


def test_effective_components_lie_between_the_clusters_and_the_components(found):
    low, high = interval(found, "effective_components")
    assert 4 < low < high < len(found.components)


def test_total_variation_is_that_of_the_clusters(found):
    assert term_table(found.idata)["total_divergence"]["mean"] == pytest.approx(0.27, abs=0.08)
    assert found.table()["total_divergence"]["hdi_low"] >= 0.15


def test_kl_gap_prefers_what_covers_the_task():
    """Anchors of half the task against synthetic data of all of it."""
    made, _ = rows_of([0, 1, 2, 3], 240, 5)
    found = assess(ANCHOR, made, target=TARGET, **OPTIONS)
    terms = found.table()
    assert terms["kl_gap_coverage"]["hdi_low"] > 0
    assert terms["kl_synthetic"]["mean"] < terms["kl_anchor"]["mean"]
    # What the anchors lack puts no upper end to the divergence, and the audit says so.
    assert terms["kl_gap_coverage"]["hdi_high"] is None
    assert found.numbers["kl_anchor_coverage"].lower.value > 0
    line = next(c for c in found.checks if c.statement == "kl_anchor_coverage has both ends")
    assert line.verdict == "undecided"


def test_rows_say_which_are_off_task_and_novel(found):
    synthetic = found.rows[found.rows.source == "synthetic"]
    assert roc_auc_score(PART == 4, synthetic.off_task) > 0.99
    assert roc_auc_score(PART == 2, synthetic.novel) > 0.95
    assert len(found.rows) == 80 + 240 + 200
    columns = found.rows[["off_task", "novel", "uncovered", "component_probability"]]
    assert columns.stack().dropna().between(0, 1).all()
    assert found.rows[found.rows.source == "target"].uncovered.notna().all()


def test_components_have_their_parts(found):
    table = found.components
    heavy = table[table[["share_anchor", "share_target", "share_synthetic"]].max(axis=1) > 0.1]
    assert {"shared", "irrelevant", "uncovered", "unsampled"} <= set(heavy.part)
    assert table[["share_synthetic"]].sum().item() == pytest.approx(1)
    for name in ("nearest", "keywords"):
        assert table[name].map(lambda value: isinstance(value, list)).all()


def test_inference_data_has_chains_draws_and_weights(found):
    posterior = group_datasets(found.idata)["posterior"]
    assert (posterior.sizes["chain"], posterior.sizes["draw"]) == (2, 60)
    np.testing.assert_allclose(posterior["source_weights"].sum("component"), 1)
    assert set(posterior["source"].values) == {"anchor", "target", "synthetic"}


def test_answers_and_audit_are_complete(found):
    assert len(found.answers) == 7
    for line in found.answers:
        assert set(line) == {"question", "sentence", "probability", "verdict"}
        assert line["verdict"] in ("good", "bad", "unclear")
    # Without classes both upper ends say what they do not count.
    assert "another class of the task is not counted" in found.answers[0]["sentence"]
    assert "if what it misses is unlike it" in found.answers[1]["sentence"]
    assert {"enough rows", "projection", "beyond two halves of the task"} <= {
        line.statement for line in found.checks
    }


def test_the_same_seed_repeats_and_another_does_not(found):
    again = assess(ANCHOR, SYNTHETIC, target=TARGET, **OPTIONS)
    pd.testing.assert_frame_equal(again.rows, found.rows)
    other = assess(ANCHOR, SYNTHETIC, target=TARGET, seed=1, **OPTIONS)
    first, second = (term_table(item.idata)["irrelevant_share"]["mean"] for item in (found, other))
    assert first != second
    assert first == pytest.approx(second, abs=0.03)


def test_without_a_target_the_anchors_stand_in_and_the_audit_says_so():
    found = assess(ANCHOR, SYNTHETIC, **OPTIONS)
    terms = found.table()
    assert "novel_share" not in terms
    assert "kl_gap" not in terms
    line = next(line for line in found.checks if line.statement == "target data")
    assert line.verdict == "unknown"
    assert "cannot be told" in line.message
    low, high = interval(found, "irrelevant_share")  # all beyond the anchors counts: 2 and 4
    assert low - 0.06 <= np.isin(PART, [2, 4]).mean() <= high + 0.06


def test_two_halves_of_one_data_set_are_not_called_different():
    both, _ = rows_of([0, 1, 2, 3], 500, 4)
    found = assess(None, both[:250], target=both[250:], **OPTIONS)
    assert interval(found, "irrelevant_share")[1] < 0.1
    assert found.numbers["irrelevant_share_at_least"].value == 0
    assert found.numbers["uncovered_share_at_least"].value == 0
    for name in ("total_divergence", "kl_synthetic", "kl_synthetic_coverage"):
        assert interval(found, name)[0] < 0.03, name
    assert "bad" not in {line["verdict"] for line in found.answers}


def test_curation_and_unprompted_rows_have_their_terms():
    output = np.concatenate([SYNTHETIC, rows_of([4], 100, 6)[0]])
    unprompted, _ = rows_of([0, 1, 2, 3, 4], 200, 7)
    terms = term_table(
        assess(
            ANCHOR, SYNTHETIC, target=TARGET, output=output, unprompted=unprompted, **OPTIONS
        ).idata
    )
    assert terms["irrelevant_share_output"]["mean"] > terms["irrelevant_share"]["mean"] + 0.1
    assert 0.15 < terms["curation_divergence"]["mean"] < 0.35
    assert 0.1 < terms["task_divergence"]["mean"] < 0.35
    assert "generation_divergence" in terms
    assert "entropy_output" in terms


def test_rows_of_one_group_count_once():
    """Ten rows a group, all of one component: an interval up to √10 as wide as of lone rows."""
    random = np.random.default_rng(0)
    topics = random.choice([0, 1, 2, 4], 40, p=[0.1, 0.1, 0.2, 0.6]).repeat(10)
    names = [f"x{place}" for place in range(6)]
    frame = pd.DataFrame(CENTRES[topics] + random.normal(size=(400, 6)), columns=names)
    frame["prompt"] = np.repeat(np.arange(40), 10).astype(str)
    alone = assess(None, frame[names], target=TARGET, **OPTIONS)
    grouped = assess(None, frame, target=TARGET, fields=Fields(group="prompt"), **OPTIONS)
    width = [np.diff(interval(item, "irrelevant_share")).item() for item in (alone, grouped)]
    assert width[1] > 1.5 * width[0]
    assert "entropy_synthetic" in alone.table()
    line = next(c for c in grouped.checks if c.statement == "entropy of the synthetic rows")
    assert line.message.startswith("40 independent rows")
    assert any(line.statement == "groups of synthetic" for line in grouped.checks)


def test_paired_prompts_and_outputs_have_their_information():
    """Gaussian pairs of correlation 0.8 in one of three dimensions: −½ log(1 − 0.64) per row."""
    random = np.random.default_rng(10)
    prompt = random.normal(size=(200, 3))
    output = random.normal(size=(200, 3))
    output[:, 0] = 0.8 * prompt[:, 0] + 0.6 * output[:, 0]
    rows = [
        {"row": row.tolist(), "p": one.tolist(), "o": two.tolist()}
        for row, one, two in zip(SYNTHETIC, prompt, output, strict=True)
    ]
    found = assess(
        [{"row": row.tolist()} for row in ANCHOR],
        rows,
        fields=Fields(embedding="row", prompt="p", output="o"),
        **OPTIONS,
    )
    terms = term_table(found.idata)
    per_row = terms["information_prompt_output"]["mean"] / 200
    assert per_row == pytest.approx(0.51, abs=0.2)
    assert "information_gain" in terms
    assert any(line.statement == "paired prompt and output" for line in found.checks)


def test_dimension_and_components_are_the_users():
    found = assess(
        ANCHOR,
        SYNTHETIC,
        target=TARGET,
        representation=Representation(dimension=3),
        components=7,
        **OPTIONS,
    )
    assert found.settings["dimension"] == 3
    assert len(found.components) == 7
    assert found.settings["explained_variance"] < 1


def test_five_anchors_are_enough_to_run_and_too_few_to_be_sure():
    found = assess(ANCHOR[:5], SYNTHETIC, target=TARGET, **OPTIONS)
    line = next(line for line in found.checks if line.statement == "enough rows")
    assert line.verdict == "violated"
    assert line.measured["few"] == {"anchor": 5}


def test_text_has_keywords_and_examples():
    random = np.random.default_rng(0)
    subjects = {0: "sort list number array", 1: "poem sea moon love"}

    def texts(subject, count):
        words = subjects[subject].split()
        return [" ".join(random.choice(words, 6)) + f" {place}" for place in range(count)]

    found = assess(texts(0, 60), texts(0, 60) + texts(1, 40), target=texts(0, 80), **OPTIONS)
    off = found.components[found.components.part == "irrelevant"].iloc[0]
    assert set(off.keywords[:4]) <= {"poem", "sea", "moon", "love"}
    assert any(word in off.nearest[0] for word in ("poem", "sea", "moon", "love"))
    assert found.rows.text.notna().all()


BAD = {
    "no real rows": (lambda: assess(None, SYNTHETIC), "Expected anchor or target rows"),
    "no synthetic rows": (lambda: assess(ANCHOR), "Expected synthetic rows"),
    "another dimension": (
        lambda: assess(ANCHOR[:, :3], SYNTHETIC),
        "Expected embeddings of dimension 3",
    ),
    "too many components": (
        lambda: assess(ANCHOR, SYNTHETIC, components=1000),
        "Expected components from 1 to the 280 rows",
    ),
    "too many dimensions": (
        lambda: assess(ANCHOR, SYNTHETIC, representation=Representation(dimension=7)),
        "Expected a dimension from 1 to the 6",
    ),
    "half a draw": (
        lambda: assess(ANCHOR, SYNTHETIC, draws=2.5),
        "Expected draws to be a whole number of 2 or more",
    ),
    "half a dimension": (
        lambda: assess(ANCHOR, SYNTHETIC, representation=Representation(dimension=2.5)),
        "vary; got 2.5",
    ),
    "one draw": (
        lambda: assess(ANCHOR, SYNTHETIC, draws=1),
        "Expected draws to be a whole number of 2 or more",
    ),
    "a prompt alone": (
        lambda: assess(ANCHOR, SYNTHETIC, fields=Fields(prompt="p")),
        "prompt field and an output field",
    ),
    "nan": (
        lambda: assess(ANCHOR, np.where(np.arange(6) == 2, np.nan, SYNTHETIC)),
        "Expected finite numbers; got nan (200 of 200 rows",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    run, message = BAD[name]
    with pytest.raises(ValueError) as error:
        run()
    assert message in str(error.value)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    paths = {}
    for name, rows in (("anchor", ANCHOR), ("target", TARGET), ("synthetic", SYNTHETIC)):
        paths[name] = str(folder / f"{name}.npy")
        np.save(paths[name], rows)
    return paths


SHORT = ["--chains", "2", "--draws", "40", "--quiet"]


def test_command_prints_json_and_writes_the_rows(files, capsys, tmp_path):
    rows, data = tmp_path / "rows.parquet", tmp_path / "found.nc"
    arguments = [f"--{role}={path}" for role, path in files.items()]
    arguments += ["--rows", str(rows), "--output", str(data), "--json"]
    arguments += ["--figures", str(tmp_path)]
    assert command.main(["assess", *arguments, *SHORT]) == 0
    printed = json.loads(capsys.readouterr().out)
    term = printed["terms"]["irrelevant_share"]
    assert set(term) == {"mean", "sd", "hdi_low", "hdi_high", "mcse"}
    assert len(printed["answers"]) == 7
    assert set(printed["references"]) >= {"irrelevant_share", "total_divergence"}
    assert printed["settings"]["rows"] == {"anchor": 80, "target": 240, "synthetic": 200}
    kept = pd.read_parquet(rows)
    assert (kept[kept.source == "synthetic"].off_task < 0.5).mean() == pytest.approx(0.75, abs=0.1)
    assert data.exists()
    assert {"map.png", "shares.png"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("given", "roles"),
    [
        ("--real a --generated s --holdout t", {"anchor": "a", "synthetic": "s", "target": "t"}),
        ("--seeds a --filtered s --generated g", {"anchor": "a", "synthetic": "s", "output": "g"}),
        ("--target t --generated s", {"synthetic": "s", "target": "t"}),
    ],
)
def test_files_have_the_names_that_users_have_for_them(given, roles):
    program = shipped.load(command.programs_folder() / "assess.py", "rbpp.inference.assess")
    arguments = command.parser_of("assess").parse_args(given.split())
    found = program._sources(arguments)
    assert {role: path for role, path in found.items() if path is not None} == roles


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--synthetic"),
        (["--synthetic", "{synthetic}"], "--anchor or --target"),
        (["--anchor", "none.npy", "--synthetic", "{synthetic}"], "none.npy"),
        (
            ["--anchor", "{anchor}", "--synthetic", "{synthetic}", "--text-field", "headline"],
            "Expected a field 'headline'",
        ),
        # Before the work: files that are absent are not missed.
        (["--rows", "absent/x.parquet"], "--rows: cannot write absent/x.parquet"),
        (["--rows", "x.csv"], "Expected a name that ends with .parquet; got 'x.csv'"),
        (["--report", "absent/x.html"], "--report: cannot write absent/x.html"),
        (["--report", "."], "--report: expected a file to write; got the folder ."),
        (["--demo", "--open"], "--open: expected --report FILE.html with it; got none"),
    ],
)
def test_command_ends_with_one_line_on_bad_input(files, arguments, message, capsys):
    filled = [part.format(**files) for part in arguments]
    assert command.main(["assess", *filled, *SHORT]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert len(printed.err.strip().splitlines()) == 1


def test_planted_role_play_is_found_in_real_text(shared_data):
    """20 % role-play among code tasks, TF-IDF: within the interval, and told apart row by row."""
    code = pd.read_json(shared_data / "code_alpaca_2k.json")["instruction"].unique().tolist()
    play = pd.read_json(shared_data / "gpt4_roleplay.json")["instruction"].tolist()[:100]
    found = assess(None, code[:400] + play, target=code[400:900], **OPTIONS)
    low, high = interval(found, "irrelevant_share")
    assert low <= 0.2 <= high
    synthetic = found.rows[found.rows.source == "synthetic"]
    assert roc_auc_score(np.arange(500) >= 400, synthetic.off_task) > 0.97


@pytest.mark.slow
def test_demo_finds_its_own_truth():
    """The whole command, in a process of its own as a user runs it."""
    done = subprocess.run(
        [sys.executable, "-m", "rbpp", "assess", "--demo", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    audit = json.loads(done.stdout)["audit"]
    verdicts = {line["statement"]: line["verdict"] for line in audit}
    assert verdicts["true off-task share"] == "holds"


def test_total_variation_is_no_less_than_what_is_claimed_of_a_share(found):
    least = max(found.numbers[f"{n}_share_at_least"].value for n in ("irrelevant", "uncovered"))
    assert least > 0.1
    assert float(found.idata["posterior"]["total_divergence"].min()) >= least


TASKS = [
    f"sort a list of {n} {word} by {key}"
    for n in range(4, 9)
    for word in ("numbers", "names", "files", "dates", "words", "users")
    for key in ("size", "age", "name", "length", "value")
]


def test_the_same_file_twice_reads_nothing_and_says_so():
    found = assess(TASKS[:40], TASKS[40:], target=TASKS[40:], **OPTIONS)
    for name in ("irrelevant_share", "uncovered_share", "total_divergence", "kl_synthetic"):
        assert float(abs(found.idata["posterior"][name]).max()) == 0, name
    line = next(c for c in found.checks if c.statement == "synthetic rows are other rows")
    assert line.verdict == "violated"
    assert "the same" in found.headline[4]


def test_copies_within_count_once_and_are_reported():
    """Five tasks of the target's kind, forty times each: on the task, and little of it."""
    five = TASKS[3::31][:5]
    found = assess(None, five * 40, target=[t for t in TASKS if t not in five], **OPTIONS)
    line = next(c for c in found.checks if c.statement == "rows of synthetic are distinct")
    assert line.verdict == "violated"
    assert line.measured["distinct"] == 5
    assert "5 are distinct" in found.headline[5]
    assert found.table()["irrelevant_share_at_least"]["mean"] == 0
    assert found.table()["uncovered_share"]["mean"] > 0.5


def test_an_embedding_that_sees_style_alone_gives_no_share():
    """Three coordinates of content, and one in which one side alone is spread, to either side.

    The answers, the terms, the rows, the checks and what to do all say so; marks settle it.
    """
    random = np.random.default_rng(0)
    task = np.eye(3)[random.integers(0, 3, 400)] + 0.1 * random.normal(size=(400, 3))
    wrote = np.repeat([0.0, 2.0], 200) * random.choice([-1, 1], 400) + 0.01 * random.normal(
        size=400
    )
    rows = np.concatenate([task, wrote[:, None]], 1)
    found = assess(None, rows[200:], target=rows[:200], **OPTIONS)
    said = {answer["question"]: answer for answer in found.answers}
    assert "sees style only" in said["Is any of it off-task?"]["sentence"]
    assert "sees style only" in said["What does it miss?"]["sentence"]
    assert "none is given" in said["Is it in another style?"]["sentence"]
    assert "no row is known" in said["Which rows should go?"]["sentence"]
    shares = ("irrelevant_share", "uncovered_share", "novel_share")
    assert not [name for name in found.table() if name.startswith(shares)]
    assert found.synthetic["off_task"].isna().all()
    assert found.rows["uncovered"].isna().all()
    line = next(c for c in found.checks if c.statement == "style can be told from content")
    assert line.verdict == "violated"
    assert advice(found)[0] == "unclear"
    marked = assess(None, rows[200:], target=rows[:200], marks={0: True, 5: False}, **OPTIONS)
    assert 0 < marked.table()["irrelevant_share"]["mean"] < 1


def test_counts_of_words_give_no_share_where_styles_differ():
    other = [f"please, could you kindly give {task}, thanks so much!" for task in TASKS]
    options = {"representation": Representation(model="tfidf"), **OPTIONS}
    found = assess(None, other, target=TASKS, **options)
    assert "irrelevant_share" not in found.table()
    assert "embedding of what rows are about" in found.answers[0]["sentence"]
    assert found.synthetic.off_task.isna().all()


def test_marks_settle_the_share(tmp_path, found):
    sheet = tmp_path / "sheet.csv"
    found.ask(sheet, 20)
    frame = pd.read_csv(sheet)
    assert list(frame.columns) == ["row", "id", "text", "off_task", "digest"]
    frame["off_task"] = (PART[frame["row"]] == 4).astype(int)
    frame.to_csv(sheet, index=False)
    marked = assess(ANCHOR, SYNTHETIC, target=TARGET, marks=sheet, **OPTIONS)
    low, high = interval(marked, "irrelevant_share")
    assert low <= (PART == 4).mean() <= high
    assert marked.settings["marks"] == 20
    assert "from the marks" in marked.headline[0]
    assert "marks" in {check.statement for check in marked.checks}


def test_labels_that_are_wrong_or_missing_are_found():
    random = np.random.default_rng(3)
    labels = np.array([f"class {part}" for part in random.choice(4, 300)])
    places = np.array([int(name[-1]) for name in labels])
    real = pd.DataFrame(CENTRES[places] + random.normal(size=(300, 6)), columns=list("abcdef"))
    real["kind"] = labels
    made = real.iloc[:150].copy()
    made[list("abcdef")] += random.normal(size=(150, 6)) * 0.1
    made = made[made.kind != "class 3"].reset_index(drop=True)
    wrong = random.choice(len(made), 10, replace=False)
    made.loc[wrong, "kind"] = [f"class {(int(name[-1]) + 1) % 3}" for name in made.kind[wrong]]
    found = assess(None, made, target=real.iloc[150:], fields=Fields(label="kind"), **OPTIONS)
    synthetic = found.synthetic.reset_index(drop=True)
    assert roc_auc_score(np.isin(np.arange(len(made)), wrong), synthetic.wrong_label) > 0.98
    table = found.labels.set_index("label")
    assert table.p_missing["class 3"] > 0.9
    assert table.p_too_few.drop("class 3").max() < 0.5
    check = next(c for c in found.checks if c.statement.startswith("labels"))
    assert check.verdict == "violated"
    assert "missing: class 3" in check.message
    most = found.numbers["irrelevant_share_at_most_with_classes"].value
    assert most >= found.numbers["irrelevant_share_at_most"].value
    assert "if another class of the task counts too" in found.answers[0]["sentence"]
    assert "if a class that it leaves out counts too" in found.answers[1]["sentence"]


def test_entropies_do_not_depend_on_the_synthetic_rows(found):
    """Units of the input: rows twice as large have n d log 2 more."""
    made, _ = rows_of([4], 200, 8)
    first, other, larger = (
        one.table()["entropy_anchor"]["mean"]
        for one in (
            found,
            assess(ANCHOR, made, target=TARGET, **OPTIONS),
            assess(2 * ANCHOR, 2 * SYNTHETIC, target=2 * TARGET, **OPTIONS),
        )
    )
    assert first == pytest.approx(other, rel=1e-6)
    assert larger - first == pytest.approx(80 * 6 * np.log(2), rel=0.01)


def test_rows_that_follow_each_other_are_said_to():
    order = np.argsort(PART)
    found = assess(ANCHOR, SYNTHETIC[order], target=TARGET, **OPTIONS)
    line = next(c for c in found.checks if "synthetic do not depend" in c.statement)
    assert line.verdict == "undecided"
    assert "group=…" in line.message


def test_the_command_asks_and_takes_marks(files, tmp_path, capsys, monkeypatch):
    sheet = tmp_path / "sheet.csv"
    arguments = [f"--{role}={path}" for role, path in files.items()]
    assert command.main(["assess", *arguments, "--ask", str(sheet), "--ask-rows", "6", *SHORT]) == 0
    answers = iter(["y\n", "n\n", "b\n", "y\n", "maybe\n", "s\n", "q\n"])
    monkeypatch.setattr("sys.stdin.readline", lambda: next(answers), raising=False)
    assert command.main(["mark", str(sheet)]) == 0
    assert "2 of 6 rows are marked, 2 off the task" in capsys.readouterr().out
    assert pd.read_csv(sheet).off_task.notna().sum() == 2
    assert command.main(["assess", *arguments, "--marks", str(sheet), "--json", *SHORT]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["marks"]
    sheet.write_text("id\n3\n")
    assert command.main(["mark", str(sheet)]) == 2
    assert "Expected columns row and off_task" in capsys.readouterr().err
