"""Static embeddings: the same numbers as the packages', and languages without spaces are seen."""

from __future__ import annotations

import json
import logging
import random

import numpy as np
import pytest

from rbpp.data.static_embedding import POTION, potion_folder, static_embedding

pytest.importorskip("wordllama", reason="the wheel that carries the default table")

# Two topics, form and words, in languages that put no spaces between words.
TOPICS = {
    "Chinese": (
        ("请计算{}与{}的和", "素数 分数 矩阵 向量 角度 整数 多项式 级数"),
        ("请写一首关于{}和{}的诗", "秋天 江河 月光 水手 悲伤 花园 冬天 恋人"),
    ),
    "Japanese": (
        ("{}と{}の合計を計算してください", "素数 分数 行列 整数 角度 多項式 平均 級数"),
        ("{}と{}についての詩を書いてください", "秋 川 月 海 悲しみ 庭 冬 恋人"),
    ),
    "Thai": (
        ("จงคำนวณผลรวมของ{}และ{}", "จำนวนเฉพาะ เศษส่วน เมทริกซ์ เวกเตอร์ มุม จำนวนเต็ม พหุนาม อนุกรม"),
        ("จงแต่งบทกวีเกี่ยวกับ{}และ{}", "ฤดูใบไม้ร่วง แม่น้ำ แสงจันทร์ กะลาสี ความเศร้า สวน ฤดูหนาว คนรัก"),
    ),
}


def phrases(form: str, words: str, count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [form.format(*draw.sample(words.split(), 2)) for _ in range(count)]


@pytest.mark.parametrize("language", TOPICS)
def test_two_topics_are_told_apart_without_spaces(language):
    """Nearest mean of the topic, on phrases of other words than the means were made from."""
    means, held_out = [], []
    for form, words in TOPICS[language]:
        first, second = words.split()[:4], words.split()[4:]
        means.append(static_embedding(phrases(form, " ".join(first), 20, 0)).vectors.mean(0))
        held_out.append(static_embedding(phrases(form, " ".join(second), 20, 1)).vectors)
    for topic, rows in enumerate(held_out):
        nearer = np.linalg.norm(rows[:, None] - np.stack(means), axis=-1).argmin(1)
        assert (nearer == topic).mean() == 1.0


def test_vectors_are_those_of_the_package():
    """The files are read without the package, whose import sets up the logging of the process."""
    import pathlib

    handlers, level = list(logging.root.handlers), logging.root.level
    try:
        import wordllama

        package = pathlib.Path(wordllama.__file__).parent
        model = wordllama.WordLlama.load(cache_dir=package, disable_download=True)
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
    texts = ["What is the weather in Paris?", "你好,世界", "x", "print('hello')\n"]
    peer = model.embed(texts, norm=True)
    assert np.abs(static_embedding(texts).vectors - peer).max() < 1e-5


def test_rows_are_at_unit_length_and_empty_ones_are_said():
    found = static_embedding(["a row", "", "another row"])
    assert np.allclose(np.linalg.norm(found.vectors, axis=1), [1, 0, 1], atol=1e-6)
    assert found.unread.tolist() == [1]
    assert found.cut.tolist() == []


def test_potion_is_that_of_model2vec_and_says_what_it_cuts():
    folder = potion_folder()
    if folder is None:
        pytest.skip("mostlyai-qa, whose wheel carries potion-base-8M, is not installed")
    model2vec = pytest.importorskip("model2vec")
    texts = ["What is the weather in Paris?", "a table of numbers", "word " * 600 + "river " * 600]
    found = static_embedding(texts, POTION)
    peer = model2vec.StaticModel.from_pretrained(folder).encode(texts)
    peer /= np.linalg.norm(peer, axis=1, keepdims=True)
    assert np.abs(found.vectors - peer).max() < 1e-4
    assert found.cut.tolist() == [2]
    assert np.array_equal(static_embedding(texts, folder).vectors, found.vectors)


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="Expected one text or more"):
        static_embedding([])
    with pytest.raises(ValueError, match=r"got no model\.safetensors"):
        static_embedding(["a"], tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({}))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        static_embedding(["a"], tmp_path)
