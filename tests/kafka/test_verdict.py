"""The judge of the fault tests sees what it is there to see."""

from __future__ import annotations

from dataclasses import replace

from streamfuse.types import Prediction, WindowId
from tests.kafka.verdict import judge


def prediction(end: int, revision: int = 0, **changed: object) -> Prediction:
    made = Prediction("room", end - 2, end, revision, "yes", {"yes": 0.9, "no": 0.1}, {}, {"audio": 0.4}, {"audio": 5}, "m", "d", end)
    return replace(made, **changed)  # type: ignore[arg-type]


RUN = [prediction(1), prediction(2), prediction(2, 1), prediction(2, 2), prediction(3)]


def test_an_uninterrupted_run_is_what_it_should_be() -> None:
    verdict = judge(RUN, RUN)
    assert verdict.violations("exactly_once") == []
    assert verdict.windows == 4  # of the second window, the first and the last revision


def test_a_window_that_is_not_there_is_lost() -> None:
    assert judge(RUN[:-1], RUN).lost == [WindowId("room", 1, 3, 0)]


def test_a_window_without_its_last_revision_is_lost() -> None:
    assert judge([p for p in RUN if p.revision < 2], RUN).lost == [WindowId("room", 0, 2, 2)]


def test_a_revision_between_the_first_and_the_last_may_be_missing_and_may_differ() -> None:
    assert judge([p for p in RUN if p.revision != 1], RUN).violations("exactly_once") == []
    other = prediction(2, 1, packets={"audio": 4})
    assert judge([*RUN, other], RUN).violations("at_least_once") == []


def test_any_revision_that_comes_twice_is_twice() -> None:
    verdict = judge([*RUN, prediction(2, 1)], RUN)
    assert verdict.violations("at_least_once") == []
    (told,) = verdict.violations("exactly_once")
    assert "1 came twice" in told


def test_a_repeat_that_says_something_else_is_a_violation() -> None:
    verdict = judge([*RUN, prediction(3, scores={"yes": 0.8, "no": 0.2})], RUN)
    assert verdict.different == [WindowId("room", 1, 3, 0)]
    assert verdict.violations("at_least_once") != []


def test_a_window_with_other_packets_or_other_scores_is_wrong() -> None:
    for changed in ({"packets": {"audio": 4}}, {"absent": {"text": "late"}}, {"scores": {"yes": 0.8, "no": 0.2}}):
        assert judge([*RUN[:-1], prediction(3, **changed)], RUN).violations("at_least_once") != []


def test_the_last_digits_of_a_score_may_differ() -> None:
    assert judge([*RUN[:-1], prediction(3, scores={"yes": 0.90001, "no": 0.09999})], RUN).violations("exactly_once") == []


def test_a_window_or_a_revision_that_no_run_makes_is_wrong() -> None:
    assert len(judge([*RUN, prediction(4)], RUN).wrong) == 1
    assert len(judge([*RUN, prediction(3, 1)], RUN).wrong) == 1
