"""Whatever a table holds is read back as it was; whatever a file holds is read or refused."""

import csv
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from rbpp.data.read import read_tables
from rbpp.data.rows import Fields, Reading, read_rows

EXAMPLES = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NUMBER = st.floats(-1e9, 1e9, allow_subnormal=False).map(lambda value: round(value, 6) + 0.25e-6)
TEXT = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=30).filter(str.strip)


@st.composite
def tables(draw):
    """Numbers (n, d), not all rows the same."""
    width, rows = draw(st.integers(2, 5)), draw(st.integers(3, 12))
    found = draw(st.lists(st.lists(NUMBER, min_size=width, max_size=width), min_size=rows))
    numbers = np.asarray(found)
    assume(len(np.unique(numbers, axis=0)) > 1)
    return numbers


@EXAMPLES
@given(tables(), st.sampled_from([",", ";", "\t", "|", " "]), st.booleans(), st.booleans())
@pytest.mark.parametrize("ending", ["csv", "tsv", "txt"])
def test_numbers_are_what_was_written(ending, numbers, delimiter, named, by_comma):
    """Whatever stands between them, above them, and before their decimals."""
    frame = pd.DataFrame(numbers, columns=[f"x{place}" for place in range(numbers.shape[1])])
    decimal = "," if by_comma and delimiter != "," else "."
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x.{ending}"
        options = {"sep": delimiter, "decimal": decimal, "index": False, "header": named}
        frame.to_csv(path, float_format="%.8f", **options)
        places = [f"column {place + 1}" for place in range(numbers.shape[1])]
        reading = Reading(columns=tuple(frame.columns) if named else tuple(places))
        rows = read_rows(path, "anchor", Fields(reading=reading))
    np.testing.assert_allclose(rows.embedding, numbers, atol=1e-7)


def _csv(texts):
    file = io.StringIO(newline="")
    csv.writer(file).writerows([["said"], *([text] for text in texts)])
    return file.getvalue().encode()


TEXTS = {
    "x.jsonl": lambda texts: "".join(json.dumps({"said": t}) + "\n" for t in texts).encode(),
    "x.json": lambda texts: json.dumps([{"said": t} for t in texts], ensure_ascii=False).encode(),
    "y.json": lambda texts: json.dumps({"said": texts, "n": texts}).encode("utf-16"),
    "x.csv": _csv,
}


@EXAMPLES
@given(st.lists(TEXT, min_size=2, max_size=8))
@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_what_was_written(name, texts):
    assume(len(set(texts)) > 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(TEXTS[name](texts))
        assert read_rows(path, "anchor", Fields(text="said")).text == texts


@EXAMPLES
@given(st.one_of(st.binary(max_size=300), TEXT.map(str.encode)))
@pytest.mark.parametrize(
    "name", ["x.jsonl", "x.json", "x.csv", "x.tsv", "x.txt", "x.npy", "x.npz", "x.parquet", "x.gz"]
)
def test_any_bytes_are_read_or_refused_by_name(name, content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        said = name
        try:
            read_tables(path)
        except ValueError as error:
            said = str(error)
        assert name in said
        assert "\n" not in said
