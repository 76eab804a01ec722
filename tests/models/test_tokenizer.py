"""Any text becomes ids and comes back the same, and the same texts always teach the same tokenizer."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfuse.models.tokenizer import BYTES, FIRST_MERGE, Tokenizer, learn

CORPUS = [
    "the cat sat on the mat, and the other cat sat there too",
    "今天天气很好,我们去公园。今天天气不好,我们在家。",
    "a_b = 12345; c_d = 12345",
]


@given(st.text())
def test_any_text_comes_back_the_same(text: str) -> None:
    for tokenizer in (Tokenizer(), learn(CORPUS, 300), learn([text, text], 300)):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.lists(st.text(max_size=20), max_size=8), st.randoms())
def test_order_of_the_texts_does_not_matter(texts: list[str], chance: object) -> None:
    shuffled = list(texts)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert learn(texts, 290).merges == learn(shuffled, 290).merges


@given(st.lists(st.text(alphabet="abc", max_size=12), min_size=1, max_size=8))
def test_each_merge_is_of_the_pair_that_was_most_frequent_then(texts: list[str]) -> None:
    merges = learn(texts, 265).merges
    for i, merge in enumerate(merges):
        words = [Tokenizer(merges[:i]).encode(text) for text in texts]
        counts: dict[tuple[int, int], int] = {}
        for ids in words:
            for pair in pairwise(ids):
                counts[pair] = counts.get(pair, 0) + 1
        assert counts[merge] == max(counts.values()) >= 2
        assert merge == min(pair for pair, count in counts.items() if count == counts[merge])


def test_first_merges_are_worked_out_by_hand() -> None:
    a, b, c = (BYTES + ord(letter) for letter in "abc")
    assert learn(["abc", "abc", "ab"]).merges == ((a, b), (FIRST_MERGE, c))


def test_frequent_words_become_one_token_in_chinese_too() -> None:
    tokenizer = learn([CORPUS[1]] * 3, 400)
    assert len(tokenizer.encode("今天天气")) < 4
    assert len(Tokenizer().encode("今天天气")) == 12


def test_merges_do_not_reach_over_words() -> None:
    tokenizer = learn(["of the of the of the"] * 9)
    assert all(" " not in tokenizer.decode([i])[1:] for i in range(FIRST_MERGE, tokenizer.size))


def test_padding_begin_and_end_are_nothing_in_the_text() -> None:
    assert Tokenizer().decode([1, BYTES + ord("a"), 2, 0, 0]) == "a"


def test_no_id_of_a_text_is_one_of_them() -> None:
    assert min(learn(CORPUS).encode("".join(CORPUS) + "\0")) >= BYTES


def test_character_cut_in_two_is_replaced() -> None:
    assert Tokenizer().decode(Tokenizer().encode("天")[:2]) == "�"


def test_lone_surrogate_becomes_a_question_mark() -> None:
    assert Tokenizer().decode(Tokenizer().encode("a\ud800b")) == "a?b"


def test_written_merges_are_read_back() -> None:
    tokenizer = learn(CORPUS, 320)
    assert Tokenizer.read(tokenizer.written()).merges == tokenizer.merges
    assert tokenizer.size == 259 + len(tokenizer.merges)


def test_vocabulary_is_never_greater_than_asked() -> None:
    assert learn(CORPUS * 9, 270).size == 270
    assert learn(["ab"], 270).size == 259


@pytest.mark.parametrize(
    "merges", ["100", "100-101-102", "a-b", "-1-5", "100_101", "１００-101", "1-100", "100-259", "100-101 261-5", "9" * 40 + "-100"]
)
def test_damaged_merges_are_refused(merges: str) -> None:
    with pytest.raises(ValueError, match=r"^expected"):
        Tokenizer.read(merges)


def test_vocabulary_smaller_than_the_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 259"):
        learn(CORPUS, 100)


def test_text_without_any_space_costs_no_more_than_its_length() -> None:
    tokenizer = learn(["ab" * 40], 300)
    text = "ab" * 20_000
    assert tokenizer.decode(tokenizer.encode(text)) == text
