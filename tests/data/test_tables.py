"""Tables and records as people have them: the right rows, or a line that says what to do."""

import bz2
import gzip
import json
import lzma

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from rbpp.data import chat, measurements, source_files
from rbpp.data.embed import Representation, embed
from rbpp.data.read import read_tables
from rbpp.data.rows import Fields, Reading, read_rows

TEXTS = [f"write task {place} about rivers and trees" for place in range(12)]
RECORDS = [{"instruction": text, "score": place} for place, text in enumerate(TEXTS)]
LINES = "".join(json.dumps(row) + "\n" for row in RECORDS)
FRAME = pd.DataFrame(RECORDS)
NUMBERS = np.random.default_rng(0).normal(size=(40, 3))
TABLE = pd.DataFrame(NUMBERS, columns=list("abc"))


def packed(folder, name, content):
    path = folder / name
    data = content.encode()
    if name.endswith(".zst"):
        data = pyarrow.compress(data, "zstd", asbytes=True)
    else:
        pack = {".gz": gzip, ".bz2": bz2, ".xz": lzma}[path.suffix]
        data = pack.compress(data)
    path.write_bytes(data)
    return path


def text(folder, name, content, encoding="utf-8"):
    path = folder / name
    path.write_bytes(content.encode(encoding))
    return path


def columnar(folder, name):
    path = folder / name
    if name.endswith(".feather"):
        pyarrow.feather.write_feather(FRAME, path)
    else:
        FRAME.to_parquet(path)
    return path


def as_bytes(folder):
    column = pyarrow.array([text.encode() for text in TEXTS])
    pyarrow.parquet.write_table(pyarrow.table({"instruction": column}), folder / "b.parquet")
    return folder / "b.parquet"


def shards(folder):
    for place in (0, 1):
        text(folder, f"part-{place}.jsonl", "".join(LINES.splitlines(True)[6 * place :][:6]))
    return str(folder / "part-*.jsonl")


FORMATS = {
    **{
        f"jsonl{end}": lambda folder, end=end: packed(folder, f"d.jsonl{end}", LINES)
        for end in (".gz", ".bz2", ".xz", ".zst")
    },
    "csv.gz": lambda folder: packed(folder, "d.csv.gz", FRAME.to_csv(index=False)),
    "json with a record a line": lambda folder: text(folder, "d.json", LINES),
    "jsonl that is an array": lambda folder: text(folder, "d.jsonl", json.dumps(RECORDS)),
    "jsonl that is an array over lines": lambda folder: text(
        folder, "d.jsonl", json.dumps(RECORDS, indent=1)
    ),
    "orient index": lambda folder: text(folder, "d.json", FRAME.to_json(orient="index")),
    "orient columns": lambda folder: text(folder, "d.json", FRAME.to_json()),
    "tsv": lambda folder: text(folder, "d.tsv", FRAME.to_csv(index=False, sep="\t")),
    "semicolons": lambda folder: text(folder, "d.csv", FRAME.to_csv(index=False, sep=";")),
    "excel": lambda folder: text(folder, "d.csv", "sep=,\n" + FRAME.to_csv(index=False)),
    "utf-16": lambda folder: text(folder, "d.csv", FRAME.to_csv(index=False, sep=";"), "utf-16"),
    "line ends of windows": lambda folder: text(
        folder, "d.csv", FRAME.to_csv(index=False).replace("\n", "\r\n")
    ),
    "feather": lambda folder: columnar(folder, "d.feather"),
    "parquet under another ending": lambda folder: columnar(folder, "d.bin"),
    "parquet of bytes": as_bytes,
    "pattern": shards,
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_that_people_have_give_the_same_rows(name, tmp_path):
    assert read_rows(FORMATS[name](tmp_path), "anchor", Fields(text="instruction")).text == TEXTS


def test_quotation_marks_inside_tabs_are_letters(tmp_path):
    path = text(tmp_path, "d.tsv", 'a\tb\n"one" done\t1\n"two" done\t2\n')
    assert read_rows(path, "anchor", Fields(text="a")).text == ['"one" done', '"two" done']


def test_standard_input_is_one_of_the_files(monkeypatch):
    import io
    from types import SimpleNamespace

    for content, field in ((LINES, "instruction"), (json.dumps(RECORDS), "instruction")):
        stream = SimpleNamespace(buffer=io.BytesIO(content.encode()))
        monkeypatch.setattr("sys.stdin", stream)
        assert read_rows("-", "anchor", Fields(text=field)).text == TEXTS


def test_a_field_may_hold_the_sign_of_alternatives():
    rows = [{"a|b": "one"}, {"a|b": "two"}]
    assert read_rows(rows, "anchor", Fields(text=["a|b"])).text == ["one", "two"]


def test_alternatives_may_be_paths():
    turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    chats = [{"messages": turns}, {"messages": [*turns, *turns]}]
    for rows, text in ((chats, "two"), ([{"text": "three"}, {"text": "four"}], "three")):
        assert read_rows(rows, "anchor", Fields(text=["messages.assistant|text"])).text[0] == text


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.csv", {"delimiter": ","}),
        ("x.csv", {"delimiter": ";"}),
        ("x.tsv", {"delimiter": "\t"}),
        ("x.txt", {}),
        ("x.txt", {"delimiter": "\t"}),
        ("x.txt", {"delimiter": ",", "header": "a,b,c"}),
        ("x.csv", {"delimiter": ",", "header": "a,b,c", "comments": ""}),
    ],
)
def test_numbers_keep_their_first_row_whatever_stands_between_them(tmp_path, name, options):
    np.savetxt(tmp_path / name, NUMBERS, **options)
    np.testing.assert_allclose(read_rows(tmp_path / name, "anchor").embedding, NUMBERS)


def test_decimal_commas_are_numbers(tmp_path):
    path = tmp_path / "x.csv"
    TABLE.to_csv(path, sep=";", decimal=",", index=False)
    rows = read_rows(path, "anchor")
    np.testing.assert_allclose(rows.embedding, NUMBERS)
    assert "decimal commas" in rows.notes[0]


def test_counted_column_names_are_a_header(tmp_path):
    pd.DataFrame(NUMBERS).to_csv(tmp_path / "x.csv", index=False)
    assert len(read_rows(tmp_path / "x.csv", "anchor")) == 40
    path = text(tmp_path, "y.csv", "0,1\n3,4\n5,6\n")
    with pytest.raises(ValueError, match="a header of names, or numbers that cannot be one"):
        read_rows(path, "anchor")


def with_column(name, values):
    return TABLE.assign(**{name: values})


SHUFFLED = np.random.default_rng(1).permutation(120)[:40]
NO_MEASUREMENTS = {
    "saved index of a csv": lambda f: (TABLE.to_csv(f / "x.csv"), f / "x.csv")[1],
    "shuffled index of parquet": lambda f: (
        TABLE.set_axis(SHUFFLED).to_parquet(f / "x.parquet"),
        f / "x.parquet",
    )[1],
    "words of an index": lambda f: (
        TABLE.set_axis([f"customer {place}" for place in range(40)]).to_parquet(f / "x.parquet"),
        f / "x.parquet",
    )[1],
    "ids by name": lambda f: with_column("customer_id", SHUFFLED * 1000),
    "ids by values": lambda f: with_column("z", np.random.default_rng(1).permutation(60)[:40]),
    "counted rows": lambda f: with_column("z", np.arange(40)[::-1]),
    "label": lambda f: with_column("label", np.arange(40) % 3),
    "counted rows of an array": lambda f: np.c_[np.arange(40), NUMBERS],
}


@pytest.mark.parametrize("name", NO_MEASUREMENTS)
def test_a_column_that_is_no_measurement_is_named(tmp_path, name):
    with pytest.raises(ValueError, match=r"Expected (text or )?measurements; got"):
        read_rows(NO_MEASUREMENTS[name](tmp_path), "anchor")


def test_columns_are_chosen_or_ignored():
    table = with_column("label", np.arange(40) % 3)
    for reading in (Reading(columns=("a", "b", "c")), Reading(ignore=("label",))):
        rows = read_rows(table, "anchor", Fields(reading=reading))
        np.testing.assert_array_equal(rows.embedding, NUMBERS)
        assert rows.columns == ["a", "b", "c"]
    # Named, a column is a measurement, whatever it looks like.
    assert read_rows(
        table, "anchor", Fields(reading=Reading(columns=("label",)))
    ).embedding.shape == (
        40,
        1,
    )


def test_a_constant_column_is_named():
    with pytest.raises(ValueError, match=r"got 'k' with the same number .*ignore='k'"):
        embed([read_rows(with_column("k", 1.0), "anchor")])


def test_columns_are_matched_by_their_names():
    sources = [read_rows(TABLE, "anchor"), read_rows(TABLE[["c", "a", "b"]], "synthetic")]
    (first, second), _ = embed(sources)
    np.testing.assert_array_equal(first, second)
    other = read_rows(TABLE.rename(columns={"a": "d"}), "synthetic")
    with pytest.raises(ValueError, match="a difference in 'a', 'd'"):
        embed([sources[0], other])


@pytest.mark.parametrize(
    ("standardise", "scale", "divided"),
    [("auto", 1e4, True), ("auto", 5.0, False), ("no", 1e4, False), ("yes", 5.0, True)],
)
def test_units_decide_nothing_where_they_differ(standardise, scale, divided):
    table = TABLE.assign(a=TABLE["a"] * scale)
    (vectors,), how = embed(
        [read_rows(table, "anchor", Fields(reading=Reading(standardise=standardise)))]
    )
    spread = vectors.std(0)
    assert ("standard deviation" in how.how) == divided
    assert (abs(spread - 1).max() < 1e-9) == divided
    with pytest.raises(ValueError, match="one of auto, yes, no"):
        Reading(standardise="maybe")


def mixed(seed, rows=200, flipped=0.0):
    rng = np.random.default_rng(seed)
    age, job = (
        rng.normal(40, 10, rows),
        rng.choice(["cook", "nurse", "clerk"], rows, p=[0.6, 0.3, 0.1]),
    )
    return pd.DataFrame({"age": age, "paid": rng.random(rows) < 0.5, "job": job})


def test_numbers_and_categories_become_coordinates_of_about_equal_variance():
    (first, second), how = embed([read_rows(mixed(0), "anchor"), read_rows(mixed(1), "synthetic")])
    pool = np.concatenate([first, second])
    assert pool.shape[1] == 1 + 2 + 3
    variance = pool.var(0)
    np.testing.assert_allclose([variance[0], variance[1:3].sum(), variance[3:].sum()], 1, rtol=0.01)
    assert "quantiles of 1 columns and one-hot of 2" in how.how
    with pytest.raises(ValueError, match=r"field 'paid': Expected a number.*ignore='paid'"):
        read_rows(mixed(0), "anchor", Fields(reading=Reading(numbers_only=True)))


def test_truth_values_and_other_alphabets_are_no_numbers():
    assert measurements.as_numbers([1.0, True]) == 1
    assert measurements.as_numbers(["1", "\uff11\uff12"]) == 1
    for row in ([True, 1.0], ["\uff11", "2"]):
        with pytest.raises(ValueError, match="Expected a vector of numbers"):
            read_rows([{"v": [1.0, 2.0]}, {"v": row}], "anchor", Fields(embedding="v"))


OPENAI = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": [{"type": "text", "text": "ask"}, {"type": "image_url"}]},
    {"role": "assistant", "reasoning_content": "hm", "content": "answer"},
    {"role": "user", "content": "more"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "find", "arguments": '{"x": 1}'}}],
    },
]
SHAREGPT = [{"from": "human", "value": "ask"}, {"from": "gpt", "value": "answer"}]
TURNS = {
    ("openai", "messages"): 'ask\nanswer\nmore\nfind {"x": 1}',
    ("openai", "messages.user"): "ask\nmore",
    ("openai", "messages.assistant"): 'answer\nfind {"x": 1}',
    ("openai", "messages.system"): "be kind",
    ("openai", "messages.1.content"): "ask",
    ("openai", "messages.-1"): 'find {"x": 1}',
    ("sharegpt", "messages"): "ask\nanswer",
    ("sharegpt", "messages.assistant"): "answer",
    ("sharegpt", "messages.user.content"): "ask",
    ("json", "messages.user"): "ask\nmore",
    ("columns", "messages.assistant"): "answer",
}
HELD = {
    "openai": OPENAI,
    "sharegpt": SHAREGPT,
    "json": json.dumps(OPENAI),
    "columns": {"role": ["user", "assistant"], "content": ["ask", "answer"]},
}


@pytest.mark.parametrize("case", TURNS)
def test_turns_are_read_by_role(case):
    kind, field = case
    other = {
        "messages": [{"role": name, "content": "x"} for name in ("system", "user", "assistant")]
    }
    if field in ("messages.1.content", "messages.-1"):
        other = {"messages": other["messages"][:3]}
    rows = read_rows([{"messages": HELD[kind]}, other], "anchor", Fields(text=[field]))
    assert rows.text[0] == TURNS[case]
    assert chat.are_turns(OPENAI)


def test_a_place_that_is_another_role_in_some_rows_is_refused():
    user, system = {"role": "user", "content": "u"}, {"role": "system", "content": "s"}
    rows = [{"messages": [user]}, {"messages": [system, user]}]
    with pytest.raises(ValueError, match=r"row 2.*turn of the user.*messages\.user"):
        read_rows(rows, "anchor", Fields(text=["messages.0.content"]))
    sources = [
        read_rows(
            [row, {"messages": [{**row["messages"][0], "content": "x"}]}],
            "anchor",
            Fields(text=["messages.0.content"]),
        )
        for row in rows
    ]
    with pytest.raises(ValueError, match=r"turns of the user.*those of the system"):
        embed(sources)


def test_splits_beside_each_other_are_never_mixed(tmp_path):
    repository, tmp_path = tmp_path, tmp_path / "data"
    tmp_path.mkdir()
    for split in ("train", "test"):
        text(tmp_path, f"{split}-00000-of-00001.jsonl", LINES)
    with pytest.raises(ValueError, match=r"the splits test, train.*split="):
        read_tables(tmp_path)
    with pytest.raises(ValueError, match="the splits test, train"):
        read_tables(str(tmp_path / "t*.jsonl"))
    assert len(read_tables(tmp_path, split="train")) == 1
    with pytest.raises(ValueError, match=r"one of the splits test, train; got dev"):
        read_tables(tmp_path, split="dev")
    with pytest.raises(ValueError, match=r"got the folder data: give .+/data"):
        read_tables(repository)


def test_scripts_without_spaces_are_read_by_pairs_of_characters():
    rows = [
        f"请计算{a}与{b}的和" for a in ("素数", "分数", "矩阵") for b in ("向量", "角度", "整数")
    ]
    (vectors,), how = embed([read_rows(rows, "anchor")], Representation(model="tfidf"))
    gap = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    assert "pairs of characters" in how.how
    assert gap[0, 1] < gap[0, 4]  # one word shared, and none


def test_halves_of_characters_are_named_at_the_start(tmp_path):
    path = text(tmp_path, "x.jsonl", '{"t": "a"}\n{"t": "b\\ud800"}\n')
    with pytest.raises(ValueError, match=r"x.jsonl, line 2, field 't'.*\\ud800, at place 2"):
        read_rows(path, "anchor")


def test_what_unpacks_to_far_more_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(source_files, "SURELY_SMALL", 2**16)
    path = packed(tmp_path, "x.txt.gz", "a" * 2**20)
    with pytest.raises(ValueError, match=r"x.txt.gz: Expected a file that unpacks to at most"):
        read_tables(path)
    np.savez_compressed(tmp_path / "x.npz", np.zeros(2**17))
    with pytest.raises(ValueError, match=r"x.npz: Expected a file that unpacks to at most"):
        read_tables(tmp_path / "x.npz")


def test_memory_bounds_what_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(source_files, "memory", lambda: 2**10)
    np.save(tmp_path / "x.npy", np.zeros(2**10))
    with pytest.raises(ValueError, match="half of the memory"):
        read_tables(tmp_path / "x.npy")


def test_an_unknown_kind_of_address_names_the_package():
    with pytest.raises(ValueError, match="Expected a package that reads nosuch://"):
        read_tables("nosuch://bucket/x.jsonl")


def test_an_address_is_read_where_it_is_named(tmp_path):
    path = text(tmp_path, "x.jsonl", LINES)
    assert read_rows(f"file://{path}", "anchor", Fields(text="instruction")).text == TEXTS
