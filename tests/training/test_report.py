"""What a report says in words, and that its page needs nothing else and can't be made to run what names hold."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamfuse.training.compare import Comparison, DataFacts, compare
from streamfuse.training.evaluate import Method, Run
from streamfuse.training.report import write_report
from streamfuse.training.report.content import build_report
from streamfuse.training.report.markdown import to_markdown
from streamfuse.training.report.numbers import SPACE, amount, bare, difference, digits, told, with_deviation
from streamfuse.training.report.page import to_page
from streamfuse.training.report.svg import ticks
from streamfuse.training.report.words import in_short
from tests.training.examined import examined, sure_of

TRUTH = [0, 1, 2, 0, 1, 2, 0, 1] * 5


def method(name: str, errs: int = 0, seeds: int = 2, held: bool = True, **more: Any) -> Method:
    """It errs on the first `errs` rows, the same with every seed."""
    answers = [(label + 1) % 3 if i < errs else label for i, label in enumerate(TRUTH)]
    test = examined(sure_of(answers), TRUTH, noised=[sure_of(answers), sure_of([0] * len(TRUTH))], **more)
    history = [{"loss": 1.0 / (epoch + 1), "validation": {"loss": 1.1}} for epoch in range(3)]
    return Method(name, "gated", "has weight 0", [Run(seed, test, test if held else None, history) for seed in range(seeds)])


def made(*methods: Method) -> Comparison:
    return compare(methods, DataFacts("made rows", "test"))


def short(*methods: Method) -> str:
    return " ".join(in_short(made(*methods))).replace(SPACE, " ")


# --- words ---------------------------------------------------------------------------------------------------------------------------


def test_no_significant_difference_is_said_in_words() -> None:
    said = short(method("one", errs=10), method("two", errs=10))
    assert "No significant difference: no other method is told apart from one on these rows" in said


def test_a_significant_difference_is_said_with_who_it_beats() -> None:
    said = short(method("good"), method("bad", errs=30), method("equal"))
    assert "It is significantly better than bad; to equal there is no significant difference." in said
    assert "It is significantly better than every other method (bad)." in short(method("good"), method("bad", errs=30))


def test_what_carries_the_answer_and_what_is_missed_is_said() -> None:
    said = short(method("m", subsets={"image": sure_of(TRUTH), "audio": sure_of([0] * len(TRUTH), of=0.34)}))
    assert "image carries the answer and audio hardly counts (image 100 % and audio 0 % of what moves the answers)" in said
    assert "alone, image reaches 100.0 % and audio reaches 37.5 %" in said
    assert "Fusion brings nothing over image alone (0.0 points)." in said
    assert "without image −62.5 points and without audio 0.0 points" in said
    assert "The fusion treats it so: has weight 0." in said


def test_without_validation_no_choice_is_made_and_no_temperature_told() -> None:
    said = short(method("one", held=False), method("two", errs=30, held=False))
    assert "No method is chosen, because there is no validation part" in said
    assert "temperature" not in said


def test_a_test_without_truth_says_that_nothing_can_be_said() -> None:
    test = examined(sure_of([0, 1]), [-1, -1])
    assert in_short(made(Method("m", "", "", [Run(0, test)]))) == ["Nothing can be said: no test row has a known target of label."]


def test_one_seed_is_told_as_one() -> None:
    assert "drawn over 40 rows of one seed" in short(method("m", seeds=1))


# --- pages ---------------------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would load, run and show."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.loads: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "link", "img", "br", "input"):
            self.open.append(tag)
        own = dict(attrs)
        self.loads += [value for name in ("src", "href", "xlink:href", "data", "action") if (value := own.get(name)) and value[0] != "#"]
        self.loads += [name for name in own if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"


@pytest.fixture(scope="module")
def page() -> str:
    return to_page(build_report(made(method("one"), method("two", errs=12), method("three", errs=5))))


def test_a_page_needs_nothing_else(page: str) -> None:
    found = Page(page)
    assert found.loads == []
    assert found.open == []
    assert not re.search(r"https?:|url\(|@import", page)
    assert found.tags.count("script") == 1


def test_a_page_has_what_a_person_looks_for(page: str) -> None:
    titles = re.findall(r"<h[23]>(.*?)</h[23]>", page)
    for wanted in ("Scores", "Is the difference significant?", "When modalities are missing", "Under noise", "How it learned"):
        assert wanted in titles
    for wanted in ("Confusion", "Reliability", "ROC", "Precision and recall", "noise on image", "Validation loss"):
        assert wanted in titles
    assert page.count("<svg") >= 9
    assert "prefers-color-scheme:dark" in page
    assert 'name="viewport"' in page


def test_every_number_in_a_drawing_is_one(page: str) -> None:
    for drawing in re.findall(r"<svg.*?</svg>", page):
        assert not re.search(r"nan|inf|None", re.sub(r"<t(ext|itle).*?</t(ext|itle)>", "", drawing))


def test_names_are_shown_and_never_run() -> None:
    name = '<script>alert("x")</script>'
    comparison = made(method(name, names=("<b>", "a|b", "*c*")), method("two", errs=30, names=("<b>", "a|b", "*c*")))
    found = build_report(comparison)
    page = to_page(found)
    assert Page(page).tags.count("script") == 1
    assert "&lt;script&gt;" in page
    assert ">&lt;b&gt;<" in page
    text = to_markdown(found)
    assert "<script>" not in text
    assert "a\\|b" in text


def test_every_row_of_a_markdown_table_has_its_columns() -> None:
    width = 0
    for line in to_markdown(build_report(made(method("one"), method("two", errs=12)))).splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert cells == 0 or width in (0, cells)
        width = cells


def test_results_are_json_without_a_number_that_is_none(tmp_path: Path) -> None:
    write_report(tmp_path, made(method("one")))
    found = json.loads((tmp_path / "results.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    task = found["methods"][0]["tasks"]["label"]
    assert task["scores"]["accuracy"]["values"] == [1.0, 1.0]
    assert [one["shown"] for one in task["subsets"]] == [[], ["audio"], ["image"], ["image", "audio"]]
    assert found["in_short"][0].startswith("one reaches accuracy")


def test_estimates_have_a_report_too() -> None:
    truth = np.random.default_rng(0).normal(size=(30, 1)).astype(np.float32)
    test = examined(truth * 0.9, truth, kind="regression", names=("cm",))
    found = build_report(made(Method("m", "gated", "zeros", [Run(0, test, test)])))
    assert "MAE" in found.short[0]
    assert "Estimates" in to_page(found)


# --- numbers -------------------------------------------------------------------------------------------------------------------------


def test_shares_are_told_in_percent_and_all_else_as_it_is() -> None:
    assert told("accuracy", 0.8914) == f"89.1{SPACE}%"
    assert told("mae", 0.31234) == "0.312"
    assert told("accuracy", None) == "–"
    assert with_deviation("f1_macro", 0.5, 0.0123) == f"50.0{SPACE}±{SPACE}1.2{SPACE}%"
    assert bare("accuracy", 0.5, None) == "50.0"


def test_differences_have_a_sign_unless_they_are_nothing() -> None:
    assert difference("accuracy", -0.1234) == f"−12.3{SPACE}points"
    assert difference("accuracy", -0.0001) == f"0.0{SPACE}points"
    assert difference("mae", 0.5) == "+0.500"


def test_numbers_keep_three_digits_that_count() -> None:
    assert [digits(value) for value in (0, 0.00012, 0.1234, 1, 99.96, 12345)] == ["0.000", "1.2e-04", "0.123", "1.00", "100", "12,345"]
    assert [amount(value) for value in (12, 1500, 3_400_000, 7.2e9)] == ["12", "1.5 k", "3.4 M", "7.2 G"]


def test_axes_have_round_numbers() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(61.3, 74.9) == [62.5, 65.0, 67.5, 70.0, 72.5]
