"""Rows of sites: the columns of an array are coordinates, those of a table have to be."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rbpp.posterior.rows import read_site

NORMAL = np.random.default_rng(0).normal(size=(60, 2))
LABELLED = np.column_stack([NORMAL, np.arange(60) % 2])


def test_columns_of_an_array_are_taken_as_they_are(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, LABELLED)
    assert np.array_equal(read_site(path, "synthetic"), LABELLED)
    np.save(path, NORMAL[:, 0])
    assert read_site(path, "synthetic").shape == (60, 1)


def test_a_table_with_a_label_is_refused_with_a_way_that_there_is(tmp_path):
    path = tmp_path / "rows.csv"
    pd.DataFrame(LABELLED, columns=list("abc")).astype({"c": int}).to_csv(path, index=False)
    with pytest.raises(
        ValueError, match=r"rows\.csv, field 'c': .*array, \.npy, are taken"
    ) as raised:
        read_site(path, "synthetic")
    assert "ignore=" not in str(raised.value)


def test_what_is_not_finite_is_named_by_row_and_column(tmp_path):
    rows = NORMAL.copy()
    rows[3, 1] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    with pytest.raises(ValueError, match=r"rows\.npy, row 4, field 'column 2'"):
        read_site(tmp_path / "rows.npy", "synthetic")
