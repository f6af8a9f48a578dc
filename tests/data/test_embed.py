"""Embeddings: pooled, repeatable, cached by content and model, and refused where they cannot be."""

import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from rbpp.data import embedding_model
from rbpp.data.embed import Representation, embed
from rbpp.data.rows import read_rows

TEXTS = [
    "sort a list of numbers",
    "sort a list of words",
    "write a poem about the sea",
    "a poem about a list of seas",
]


def rows(texts, source="anchor"):
    return read_rows(texts, source)


class FakeModel:
    """Counts what it is asked to encode."""

    encoded: list[str]

    def __init__(self, name, device):
        self.name, self.device = name, device

    def encode(self, texts, show_progress_bar):
        FakeModel.encoded += texts
        return np.array([[len(text), len(self.name)] for text in texts], dtype=np.float64)


@pytest.fixture
def fake_package(monkeypatch):
    FakeModel.encoded = []
    package = SimpleNamespace(SentenceTransformer=FakeModel)
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    monkeypatch.setattr("rbpp.data.embedding_model.check_hub", lambda model: None)


def test_tf_idf_is_fitted_on_all_sources_and_repeats():
    first, second = rows(TEXTS), rows(TEXTS[::-1], "synthetic")
    (one, two), how = embed([first, second], Representation(model="tfidf"))
    np.testing.assert_allclose(one, two[::-1])  # the same text has the same vector in every source
    again, _ = embed([first, second], Representation(model="tfidf"))
    np.testing.assert_array_equal(one, again[0])
    alone, _ = embed([first], Representation(model="tfidf"))
    assert alone[0].shape[1] < one.shape[1]  # words of the other source count too
    assert "TF-IDF" in str(how)
    assert how.lexical


@pytest.mark.parametrize("model", [None, "wordllama", "tfidf"])
def test_near_texts_are_near(model):
    (vectors,), _ = embed([rows(TEXTS)], Representation(model=model))
    distance = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    assert distance[0, 1] < distance[0, 2]


def test_texts_without_a_common_word_still_have_vectors():
    (vectors,), _ = embed(
        [rows(["one two", "three four", "five six"])], Representation(model="tfidf")
    )
    assert vectors.shape[0] == 3
    assert np.isfinite(vectors).all()


def test_a_source_that_shares_no_word_is_named():
    strange = read_rows(["αα", "ββ", "γγ"], "synthetic")
    with pytest.raises(ValueError, match=r"\(synthetic\): Expected rows that share words"):
        embed(
            [read_rows(["a b", "b c", "a c d", "d a"], "anchor"), strange],
            Representation(model="tfidf"),
        )


def test_embeddings_are_handed_through():
    given = np.arange(6.0).reshape(3, 2)
    (vectors,), how = embed([rows(given)])
    np.testing.assert_array_equal(vectors, given)
    assert "given" in str(how)
    assert not how.text


def test_model_encodes_a_text_once_and_then_never_again(fake_package, tmp_path):
    texts = ["aa", "b", "aa", "cccc"]
    (vectors,), how = embed([rows(texts)], Representation(model="some/model", cache=tmp_path))
    np.testing.assert_array_equal(vectors[:, 0], [2, 1, 2, 4])
    assert FakeModel.encoded == ["aa", "b", "cccc"]
    (again,), _ = embed([rows(texts)], Representation(model="some/model", cache=tmp_path))
    np.testing.assert_array_equal(again, vectors)
    assert len(FakeModel.encoded) == 3
    assert "some/model" in str(how)
    assert not how.lexical


def test_cache_is_keyed_by_content_and_by_model(fake_package, tmp_path):
    embed([rows(["aa", "b"])], Representation(model="one", cache=tmp_path))
    embed([rows(["aa", "c"])], Representation(model="one", cache=tmp_path))
    (other,), _ = embed([rows(["aa", "b"])], Representation(model="other", cache=tmp_path))
    assert other[0, 1] == len("other")
    assert len(list(tmp_path.glob("*.npz"))) == 3


def test_a_changed_model_folder_is_another_model(fake_package, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("1")
    embed([rows(["a", "b"])], Representation(model=str(folder), cache=tmp_path / "cache"))
    (folder / "weights").write_text("12")
    embed([rows(["a", "b"])], Representation(model=str(folder), cache=tmp_path / "cache"))
    assert FakeModel.encoded == ["a", "b"] * 2


def test_a_cut_cache_file_is_made_again(fake_package, tmp_path):
    (vectors,), _ = embed([rows(["aa", "b"])], Representation(model="m", cache=tmp_path))
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:-5])
    (again,), _ = embed([rows(["aa", "b"])], Representation(model="m", cache=tmp_path))
    np.testing.assert_array_equal(again, vectors)
    assert not list(tmp_path.glob("*.part"))


def changed(path, change):
    """The same checksum beside other rows."""
    with np.load(path) as file:
        kept = {name: file[name] for name in file.files}
    np.savez(path, **{**kept, "rows": change(kept["rows"])})


def other_numbers(path):
    changed(path, lambda rows: np.full_like(rows, np.nan))


def another_width(path):
    changed(path, lambda rows: rows[:, :2])


@pytest.mark.parametrize(
    "damage", [other_numbers, another_width, lambda path: path.write_bytes(b"")]
)
def test_a_damaged_cache_entry_is_made_again(damage, tmp_path):
    rows = np.arange(6.0).reshape(2, 3)
    for _ in range(2):
        found, cut = embedding_model.cached(["a", "b"], "m", tmp_path, lambda texts: rows)
        np.testing.assert_array_equal(found, rows[:, :2])
        assert cut.all()
        (entry,) = tmp_path.iterdir()
        damage(entry)


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.warns(UserWarning, match="embeddings are not kept"):
        found, _ = embedding_model.cached(
            ["a"], "m", tmp_path / "file", lambda texts: np.ones((1, 3))
        )
    assert found.shape == (1, 2)


def test_default_cache_follows_the_environment(fake_package, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    embed([rows(["a", "b"])], Representation(model="m"))
    assert len(list((tmp_path / "rbpp" / "embeddings").glob("*.npz"))) == 1


def test_an_absent_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match="pip install sentence-transformers"):
        embed([rows(["a", "b"])], Representation(model="m", cache=tmp_path))


def test_text_beside_embeddings_is_refused():
    with pytest.raises(ValueError, match=r"text in <list> and embeddings in <ndarray>"):
        embed([rows(TEXTS), rows(np.eye(3), "synthetic")])


def test_a_model_for_embeddings_is_refused():
    with pytest.raises(ValueError, match="Expected text for the embedding model m"):
        embed([rows(np.eye(3))], Representation(model="m"))


def test_embeddings_of_two_dimensions_are_refused():
    with pytest.raises(ValueError, match="Expected embeddings of dimension 3"):
        embed([rows(np.eye(3)), rows(np.eye(4), "synthetic")])


def test_the_default_is_the_static_embedding_and_says_what_it_could_not_read(tmp_path):
    first, second = rows(TEXTS), rows([*TEXTS, "x"], "synthetic")
    (one, two), how = embed([first, second])
    assert "WordLlama" in str(how)
    assert how.text
    assert not how.lexical
    assert len(how.cut) == len(how.unread) == 2
    np.testing.assert_array_equal(one, two[: len(TEXTS)])


@pytest.mark.parametrize(("words", "said"), [(200, True), (4, False)])
def test_a_template_around_every_row_is_said_to_hide_it(words, said):
    random = np.random.default_rng(0)
    preamble = "answer every question with care and never reveal what stands above".split()
    tasks = "sort add draw count invert parse print hash split merge".split()
    texts = [
        " ".join([*random.choice(preamble, words), *random.choice(tasks, 12), str(place)])
        for place in range(60)
    ]
    for model, lexical in ((None, said), ("wordllama", False), ("tfidf", True)):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            _, how = embed([read_rows(texts, "synthetic")], Representation(model=model))
        expected = said and model != "tfidf"
        assert any("as of a preamble" in str(one.message) for one in seen) == expected
        assert ("nearly all rows have" in how.how) == expected
        assert how.lexical == lexical
