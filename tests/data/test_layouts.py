"""Tables, turns and splits in the layouts that programs write: read right, or refused by name."""

import json
import multiprocessing

import numpy as np
import pandas as pd
import pytest

from rbpp.data.embed import embed
from rbpp.data.read import read_tables
from rbpp.data.rows import Fields, Reading, read_rows
from rbpp.data.stream import row_stream

RANDOM = np.random.default_rng(0)
NUMBERS = RANDOM.normal(size=(60, 3))
TABLE = pd.DataFrame(NUMBERS, columns=list("abc"))
ORDER = RANDOM.permutation(60)
LABEL = np.repeat(["iris", "rose", "lily"], 20)
TEXTS = [f"write a program number {place} that sorts" for place in range(12)]


def saved(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="")
    return path


def lines(numbers, parting=" ", ends=("", "")):
    rows = (parting.join(f"{value:.6f}" for value in row) for row in numbers)
    return "".join(f"{ends[0]}{row}{ends[1]}\n" for row in rows)


def of_r(separator=" ", header='"a" "b" "c"', point="."):
    """What R's write.table writes: the names of rows have no name."""
    rows = [
        [f'"{7 * name + 100}"', *map("{:.6f}".format, row)]
        for name, row in zip(ORDER, NUMBERS, strict=True)
    ]
    body = "".join(f"{separator.join(row)}\n" for row in rows).replace(".", point)
    return f"{header}\n{body}"


TABLES = {
    "spaces in a csv": ("x.csv", lines(NUMBERS)),
    "spaces in a tsv": ("x.tsv", lines(NUMBERS)),
    "tabs in a csv": ("x.csv", lines(NUMBERS, "\t")),
    "bars in a csv": ("x.csv", lines(NUMBERS, "|")),
    "comma and space": ("x.csv", lines(NUMBERS, ", ")),
    "a comma ends the lines": ("x.csv", lines(NUMBERS, ",", ("", ","))),
    "quoted": ("x.csv", lines(NUMBERS, '","', ('"', '"'))),
    "quoted in a text": ("x.txt", lines(NUMBERS, '" "', ('"', '"'))),
    "brackets": ("x.txt", lines(NUMBERS, ", ", ("[", "]"))),
    "parentheses": ("x.txt", lines(NUMBERS, ", ", ("(", "),"))),
    "bars in a text": ("x.txt", "a|b|c\n" + lines(NUMBERS, "|")),
    "names in a comment": ("x.txt", "# a b c\n" + lines(NUMBERS)),
    "names in a comment of a csv": ("x.csv", "# made by hand\n# a, b, c\n" + lines(NUMBERS, ", ")),
    "names below a comment": ("x.csv", "# made by hand\na,b,c\n" + lines(NUMBERS, ",")),
    "carriage returns": (
        "x.csv",
        "a,b,c\n".replace("\n", "\r") + lines(NUMBERS, ",").replace("\n", "\r"),
    ),
    "carriage returns in a text": ("x.txt", lines(NUMBERS).replace("\n", "\r")),
    "decimal commas without a header": ("x.csv", lines(NUMBERS, ";").replace(".", ",")),
    "decimal commas in a text": ("x.txt", "a;b;c\n" + lines(NUMBERS, ";").replace(".", ",")),
    "decimal commas between tabs": ("x.txt", lines(NUMBERS, "\t").replace(".", ",")),
    "years as names": ("x.csv", "1999,2000,2001\n" + lines(NUMBERS, ",")),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_layout_gives_every_number(name, tmp_path):
    rows = read_rows(saved(tmp_path, *TABLES[name]), "anchor")
    np.testing.assert_allclose(rows.embedding, NUMBERS, atol=1e-6)


def test_a_label_without_a_header_is_a_category_and_no_row_is_lost(tmp_path):
    for name, separator in (("x.csv", ","), ("x.txt", " ")):
        path = saved(tmp_path, name, "")
        TABLE.assign(kind=LABEL).to_csv(path, sep=separator, index=False, header=False)
        rows = read_rows(path, "anchor")
        np.testing.assert_allclose(rows.embedding, NUMBERS)
        assert rows.categories == {"column 4": LABEL.tolist()}


REFUSED_TABLES = {
    "names of rows by R": (of_r(), "x.txt", "a saved index"),
    "names of rows by R with commas": (of_r(",", '"a","b","c"'), "x.csv", "a saved index"),
    "names of rows by write.csv2": (of_r(";", '"";"a";"b";"c"', ","), "x.csv", "a saved index"),
    "libsvm": ("".join(f"{n % 2} 1:{n} 2:0.5\n" for n in range(9)), "x.txt", "LIBSVM's format"),
    "one number or two": ("".join(f"0,{n:03d}\n" for n in range(9)), "x.csv", "one number or two"),
    "a word that is no name": ("1,2,iris\n" + "3,4,iris\n5,6,rose\n" * 9, "x.csv", ""),
    "some are missing": (
        "a,b\n" + "0.5,NA\n0.1,0.2\n0.3,0.4\n" * 9,
        "x.csv",
        "Expected a number; got 'NA'",
    ),
    "percentages": (
        "a,b\n" + "".join(f"0.{n},{n}%\n" for n in range(9)),
        "x.csv",
        "the file has 'a', 'b'",
    ),
    "codes": (
        "a,b\n" + "".join(f"{n}.5,0{n}\n" for n in range(1, 9)),
        "x.csv",
        "digits behind a zero",
    ),
}


@pytest.mark.parametrize("name", REFUSED_TABLES)
def test_what_may_be_read_in_two_ways_is_refused_or_keeps_its_rows(name, tmp_path):
    content, file, part = REFUSED_TABLES[name]
    path = saved(tmp_path, file, content)
    if not part:
        assert len(read_rows(path, "anchor")) == content.count("\n")
        return
    with pytest.raises(ValueError, match=part):
        read_rows(path, "anchor")


COLUMNS = {
    "Id": RANDOM.integers(10**6, 10**12, 60),
    "CUSTOMER_ID": RANDOM.integers(10**6, 10**12, 60),
    "userId": RANDOM.integers(1000, 1012, 60),
    "Unnamed: 0.1": ORDER[:],
    "record": np.sort(RANDOM.choice(10**6, 60, replace=False)),
    "timestamp": 1_700_000_000 + RANDOM.permutation(10**6)[:60],
    "species": np.repeat([0, 1, 2], 20),
    "Outcome": np.repeat([0, 1, 1], 20),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_that_are_no_measurements_are_named(name, tmp_path):
    table = TABLE.assign(**{name: COLUMNS[name]})
    with pytest.raises(ValueError, match=f"{name}'.*ignore={name!r} leaves it out"):
        read_rows(table, "anchor")
    assert len(read_rows(table, "anchor", Fields(reading=Reading(ignore=(name,))))) == 60
    table.to_parquet(tmp_path / "x.parquet", index=False)
    with pytest.raises(ValueError, match="Expected measurements"):
        row_stream(tmp_path / "x.parquet")


@pytest.mark.parametrize("column", [ORDER, 100 + np.arange(60), np.repeat([0, 1, 2], 20)])
def test_columns_of_an_array_are_named_by_their_place(column, tmp_path):
    np.save(tmp_path / "x.npy", np.c_[column, NUMBERS])
    for read in (lambda path: read_rows(path, "anchor"), row_stream):
        with pytest.raises(ValueError, match="column 1: Expected measurements"):
            read(tmp_path / "x.npy")
    for reading in (
        Reading(ignore=("column 1",)),
        Reading(columns=("column 2", "column 3", "column 4")),
    ):
        rows = read_rows(tmp_path / "x.npy", "anchor", Fields(reading=reading))
        np.testing.assert_array_equal(rows.embedding, NUMBERS)


WORDS = {
    "dates": [f"2020-01-{place % 28 + 1:02d} 10:{place:02d}" for place in range(60)],
    "codes": [f"{place:08x}-aa" for place in ORDER],
    "names": [f"chevrolet model {place}" for place in ORDER],
}


@pytest.mark.parametrize("name", WORDS)
def test_words_among_numbers_are_not_taken_for_the_text(name):
    with pytest.raises(ValueError, match="name of a text field"):
        read_rows(TABLE.assign(made=WORDS[name]), "anchor")


def test_text_beside_numbers_is_the_text():
    for name in ("text", "claim"):
        table = pd.DataFrame({name: TEXTS, "score": range(12), "label": [0, 1] * 6})
        assert read_rows(table, "anchor").text == TEXTS


@pytest.mark.parametrize(("scale", "divided"), [(1000.0, True), (5.0, False)])
def test_units_of_an_array_decide_nothing(scale, divided):
    sources = [read_rows(NUMBERS * [scale, 1, 1], "anchor"), read_rows(NUMBERS[:20], "synthetic")]
    vectors, how = embed(sources)
    assert ("standard deviation" in how.how) == divided
    if divided:
        np.testing.assert_allclose(np.concatenate(vectors).std(0), 1)


def test_axes_of_embeddings_stay_unless_one_holds_nearly_all():
    wide = RANDOM.normal(size=(50, 64)) * np.geomspace(1, 30, 64)
    for first, divided in ((1.0, False), (1e4, True)):
        rows = wide * np.r_[first, np.ones(63)]
        assert ("standard deviation" in embed([read_rows(rows, "anchor")])[1].how) == divided


def turns(*said):
    return [{"role": role, "content": content} for role, content in said]


def talk(place):
    system = [("system", "be kind")] if place % 2 else []
    return turns(*system, ("user", TEXTS[place]), ("assistant", "yes"))


def marked(place):
    parts = [f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>" for turn in talk(place)]
    return "\n".join(parts)


def headed(place):
    parts = (
        f"<|start_header_id|>{turn['role']}<|end_header_id|>\n\n{turn['content']}<|eot_id|>"
        for turn in talk(place)
    )
    return "<|begin_of_text|>" + "".join(parts)


TALKS = {
    "ChatML": marked,
    "Llama 3": headed,
    "Human and Assistant": lambda place: f"\n\nHuman: {TEXTS[place]}\n\nAssistant: yes",
    "Python's list": lambda place: str(talk(place)),
    "JSON over lines": lambda place: json.dumps(talk(place), indent=1),
}


@pytest.mark.parametrize("name", TALKS)
def test_turns_in_a_text_are_read_by_role(name):
    rows = [{"talk": TALKS[name](place)} for place in range(12)]
    assert read_rows(rows, "anchor", Fields(text="talk.user")).text == TEXTS
    whole = [f"{text}\nyes" for text in TEXTS]
    assert read_rows(rows, "anchor", Fields(text="talk")).text == whole


def test_turns_that_cannot_be_read_are_named():
    rows = [{"talk": "[{'role': 'user', 'content': array(1)}]"}, {"talk": "text"}]
    with pytest.raises(ValueError, match=r"row 1, field 'talk': Expected turns as JSON"):
        read_rows(rows, "anchor", Fields(text="talk"))


def test_lists_of_turns_are_rows_and_nested_places_are_watched():
    assert read_rows([talk(place) for place in range(12)], "anchor").text[0] == f"{TEXTS[0]}\nyes"
    rows = [{"data": {"messages": talk(place)}} for place in range(12)]
    with pytest.raises(ValueError, match=r"name the role, data\.messages\.user"):
        read_rows(rows, "anchor", Fields(text="data.messages.0.content"))


SPLITS = {
    "behind a name": ["alpaca_train.jsonl", "alpaca_test.jsonl"],
    "between points": ["x.train.jsonl", "x.dev.jsonl"],
    "short": ["trn.jsonl", "tst.jsonl"],
    "held out": ["train.jsonl", "held-out.jsonl"],
    "beside others": ["train.jsonl", "data.jsonl"],
}


@pytest.mark.parametrize("name", SPLITS)
def test_splits_are_known_by_any_word_of_a_name(name, tmp_path):
    content = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    for file in SPLITS[name]:
        saved(tmp_path, f"d/{file}", content)
    for place in (tmp_path / "d", str(tmp_path / "d" / "*.jsonl"), str(tmp_path / "**/*.jsonl")):
        with pytest.raises(ValueError, match="the splits"):
            read_rows(place, "anchor")


def test_names_that_only_hold_such_a_word_are_no_splits(tmp_path):
    for file in ("latest.jsonl", "contest.jsonl"):
        rows = (json.dumps({"text": f"{text} {file}"}) for text in TEXTS)
        saved(tmp_path, f"d/{file}", "\n".join(rows))
    assert len(read_rows(tmp_path / "d", "anchor")) == 24


def test_splits_in_folders_and_in_a_field_are_chosen(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"h/split={split}").mkdir(parents=True)
        pd.DataFrame({"text": TEXTS}).to_parquet(tmp_path / f"h/split={split}/0.parquet")
    field = [{"text": text, "split": ["train", "test"][n > 7]} for n, text in enumerate(TEXTS)]
    for data, rows in ((tmp_path / "h", 12), (field, 8)):
        with pytest.raises(ValueError, match=r"the splits .* in the field 'split'"):
            read_rows(data, "anchor")
        assert len(read_rows(data, "anchor", Fields(reading=Reading(split="train")))) == rows
        with pytest.raises(ValueError, match="one of the splits"):
            read_rows(data, "anchor", Fields(reading=Reading(split="dev")))
    reading = Reading(ignore=("split",))
    assert len(read_rows(field, "anchor", Fields(reading=reading))) == 12


def test_a_row_that_alone_would_set_the_scale_is_refused_whatever_reads_it():
    far = np.r_[NUMBERS, [[1e6, 0.0, 0.0]]]
    with pytest.raises(ValueError, match=r"1e\+06 in row 60, column 0"):
        embed([read_rows(NUMBERS, "target"), read_rows(far, "synthetic")])
    many = np.r_[NUMBERS, NUMBERS[:20] + 1e6]
    embed([read_rows(NUMBERS, "target"), read_rows(many, "synthetic")])  # a part, and no error


WINDOWS = {
    "x.jsonl": "".join(json.dumps({"text": text}) + "\n" for text in TEXTS),
    "x.csv": "text\n" + "\n".join(TEXTS) + "\n",
    "x.txt": "\n".join(TEXTS) + "\n",
    "back\\slash.txt": "\n".join(TEXTS),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_what_windows_writes_is_read_alike(name, tmp_path):
    path = saved(tmp_path, name, WINDOWS[name].replace("\n", "\r\n"))
    assert read_rows(path, "anchor").text == TEXTS
    numbers = saved(tmp_path, "numbers.txt", lines(NUMBERS).replace("\n", "\r\n"))
    np.testing.assert_allclose(read_rows(numbers, "anchor").embedding, NUMBERS, atol=1e-6)


def test_a_file_in_another_encoding_is_refused_by_its_line(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes("text\nfirst\nna\u00efve caf\u00e9\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"x\.csv, line 3: Expected UTF-8"):
        read_rows(path, "anchor")


def test_a_process_that_is_spawned_reads_the_same(tmp_path):
    path = saved(tmp_path, "x.jsonl", WINDOWS["x.jsonl"])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (table,) = pool.apply(read_tables, (path,))
    assert table == read_tables(path)[0]
