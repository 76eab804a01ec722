"""A subscription gives each window's latest revision once, wherever it reads from."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import assert_type, get_args, get_type_hints

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

import streamfuse
from streamfuse.codecs import Record, prediction_to_json
from streamfuse.config import KafkaConnection
from streamfuse.errors import ConfigError, SourceError
from streamfuse.sieve import Latest, Sieve
from streamfuse.subscription import REMEMBER, ConnectionOptions
from streamfuse.testing import predict
from streamfuse.topics import Topics
from streamfuse.types import SECOND, Prediction, Window, WindowId


def prediction(window: int, revision: int = 0, key: str = "room-1") -> Prediction:
    return predict(Window(key, window * SECOND, (window + 1) * SECOND, {}, {}, revision))


def record(one: Prediction, offset: int = 0) -> Record:
    return Record("predictions", 0, offset, one.key.encode(), prediction_to_json(one).encode(), (), 0)


def lines(predictions: Iterable[Prediction]) -> str:
    return "".join(f"{prediction_to_json(one)}\n" for one in predictions)


# --- each window's latest revision, once ---------------------------------------------------------------------------------------------

windows = st.builds(prediction, st.integers(0, 3), st.integers(0, 3), st.sampled_from(["room-1", "room-2"]))


def sifted(sieve: Sieve, predictions: Iterable[Prediction], known: bool = False) -> list[Prediction]:
    return [found for one in predictions if (found := sieve.sift(record(one), known)) is not None]


@given(st.lists(windows))
def test_each_window_comes_in_ever_later_revisions_up_to_its_latest(published: list[Prediction]) -> None:
    sieve = Sieve(remember=100)
    came = sifted(sieve, published)
    assert sieve.repeats == len(published) - len(came)
    for key, start in {(one.key, one.start) for one in published}:
        revisions = [one.revision for one in came if (one.key, one.start) == (key, start)]
        assert revisions == sorted(set(revisions))
        assert revisions[-1] == max(one.revision for one in published if (one.key, one.start) == (key, start))


@given(st.lists(windows))
def test_what_comes_are_the_records_that_are_later_than_all_before(published: list[Prediction]) -> None:
    def is_news(number: int) -> bool:
        one = published[number]
        return all(one.revision > before.revision for before in published[:number] if before.id[:3] == one.id[:3])

    assert sifted(Sieve(remember=100), published) == [one for number, one in enumerate(published) if is_news(number)]


@given(st.lists(windows), st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=4))
def test_restarts_repeat_nothing_but_what_was_in_hand(published: list[Prediction], runs: list[tuple[int, bool]]) -> None:
    """Each run takes some predictions and stops, having processed the last one or not."""
    place = 0
    came: list[Prediction] = []
    in_hand: list[Prediction] = []
    for take, processed in [*runs, (len(published), True)]:
        sieve = Sieve(remember=100)
        assert sifted(sieve, published[:place], known=True) == []
        taken = 0
        while place < len(published) and taken < take:
            one = published[place]
            if sieve.sift(record(one)) is not None:
                came.append(one)
                taken += 1
                if taken == take and not processed:
                    in_hand.append(one)
                    break
            place += 1
    repeated = list(came)
    for one in sifted(Sieve(remember=100), published):
        assert one in repeated
        repeated.remove(one)
    assert repeated == in_hand


def test_a_window_is_forgotten_when_enough_others_came_since() -> None:
    latest = Latest(remember=2)
    first, second, third = (WindowId("room", n, n + 1, 0) for n in range(3))
    assert [latest.is_news(window) for window in (first, second, first, third)] == [True, True, False, True]
    assert latest.is_news(first) is False  # a repeat keeps it among the last that came
    assert latest.is_news(second) is True


def test_a_subscription_remembers_20_000_windows() -> None:
    latest = Latest(REMEMBER)
    numbers = [*range(20_000), 0, 20_000, 1, 0]
    repeats = [number for number in numbers if not latest.is_news(WindowId("room", number, number + 1, 0))]
    assert repeats == [0, 0]


def test_remembering_nothing_lets_every_record_come() -> None:
    published = [prediction(0, 1), prediction(0, 1), prediction(0, 0)]
    assert sifted(Sieve(remember=0), published) == published


def test_a_key_is_asked_for_by_the_record_and_by_the_prediction() -> None:
    sieve = Sieve(key="room-1", remember=10)
    assert sifted(sieve, [prediction(0, key="room-2"), prediction(0)]) == [prediction(0)]
    without_key = Record("predictions", 0, 0, None, prediction_to_json(prediction(1, key="room-2")).encode(), (), 0)
    assert sieve.sift(without_key) is None
    assert sieve.repeats == 0


@given(st.lists(st.one_of(windows, st.binary(max_size=40), st.none())))
def test_broken_records_are_counted_and_change_nothing(values: list[Prediction | bytes | None]) -> None:
    told: list[Record] = []
    sieve = Sieve(remember=100, on_invalid=lambda record, error: told.append(record))
    records = [
        record(value, offset) if isinstance(value, Prediction) else Record("predictions", 0, offset, b"room-1", value, (), 0)
        for offset, value in enumerate(values)
    ]
    came = [found for one in records if (found := sieve.sift(one)) is not None]
    assert came == sifted(Sieve(remember=100), [value for value in values if isinstance(value, Prediction)])
    assert [one.offset for one in told] == [offset for offset, value in enumerate(values) if not isinstance(value, Prediction)]
    assert sieve.invalid == len(told)


def test_broken_records_are_told_ever_more_seldom(caplog: pytest.LogCaptureFixture) -> None:
    sieve = Sieve()
    for offset in range(100):
        sieve.sift(Record("predictions", 0, offset, b"room-1", b"{", (), 0))
    assert [message.partition(" is no prediction")[0] for message in caplog.messages] == [
        f"predictions/0 at offset {offset}" for offset in (0, 1, 3, 7, 15, 31, 63)
    ]


# --- a file --------------------------------------------------------------------------------------------------------------------------


async def read(subscription: streamfuse.Subscription, count: int | None = None) -> list[Prediction]:
    """So many predictions, or all until the end."""
    came: list[Prediction] = []
    with anyio.fail_after(30):
        async for one in subscription:
            came.append(one)
            if len(came) == count:
                break
    return came


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "predictions.jsonl"
    path.write_text(lines([prediction(0), prediction(1), prediction(0), prediction(0, 1), prediction(0, key="room-2")]))
    return path


@pytest.mark.anyio
async def test_a_file_is_read_from_its_beginning_to_its_end(file: Path) -> None:
    subscription = streamfuse.subscribe(file, key="room-1")
    assert await read(subscription) == [prediction(0), prediction(1), prediction(0, 1)]
    assert subscription.repeats == 1
    assert subscription.record is not None
    assert (subscription.record.offset, subscription.record.value) == (3, prediction_to_json(prediction(0, 1)).encode())


@pytest.mark.anyio
async def test_a_text_names_a_file_where_no_broker_can_be_meant(file: Path) -> None:
    assert len(await read(streamfuse.subscribe(str(file)))) == 4


@pytest.mark.anyio
async def test_a_file_can_be_followed(file: Path) -> None:
    async with streamfuse.subscribe(file, follow=True) as predictions:
        assert len(await read(predictions, 4)) == 4
        text = lines([prediction(7)])
        with file.open("a") as out:
            out.write(text[:50])
        with anyio.move_on_after(0.01) as too_early:
            await anext(predictions)
        assert too_early.cancelled_caught
        with file.open("a") as out:
            out.write(text[50:])
        assert await read(predictions, 1) == [prediction(7)]


@pytest.mark.anyio
async def test_blank_lines_are_nothing_and_broken_ones_do_not_end_it(file: Path) -> None:
    file.write_text(f"\n{{\n\n{lines([prediction(0)])}{lines([prediction(1)]).strip()}")
    told: list[tuple[int, str]] = []
    predictions = streamfuse.subscribe(file, on_invalid=lambda record, error: told.append((record.offset, str(error))))
    assert await read(predictions) == [prediction(0), prediction(1)]
    assert predictions.invalid == 1
    assert told[0][0] == 1
    assert "expected a prediction as JSON" in told[0][1]


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/nowhere/predictions.jsonl", "/"])
async def test_a_file_that_can_not_be_read_is_told(path: str) -> None:
    with pytest.raises(SourceError, match="can't read"):
        await read(streamfuse.subscribe(path))


STANDARD_INPUT = """
import asyncio, streamfuse

async def main():
    async for prediction in streamfuse.subscribe("-"):
        print(prediction.start)

asyncio.run(main())
"""


@pytest.mark.parametrize("command", ["python < FILE", "cat FILE | python", "python < /dev/null"])
def test_standard_input_is_a_file_too(file: Path, command: str) -> None:
    line = command.replace("python", f"\"{sys.executable}\" -c '{STANDARD_INPUT}'").replace("FILE", f'"{file}"')
    ran = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    assert ran.stdout.split() == ([] if "null" in command else ["0", str(SECOND), "0", "0"])


# --- in-process topics ---------------------------------------------------------------------------------------------------------------


async def publish(topics: Topics, predictions: Sequence[Prediction]) -> None:
    for one in predictions:
        await topics.publish("predictions", one.key.encode(), prediction_to_json(one).encode())


@pytest.mark.anyio
async def test_an_in_process_topic_ends_when_it_is_closed() -> None:
    topics = Topics()
    await publish(topics, [prediction(0)])
    early = streamfuse.subscribe(topics, start="earliest")
    async with streamfuse.subscribe(topics) as late:
        await publish(topics, [prediction(1), prediction(1), prediction(1, 1)])
        topics.close()
        assert await read(late) == [prediction(1), prediction(1, 1)]
    assert await read(early) == [prediction(0), prediction(1), prediction(1, 1)]


@pytest.mark.anyio
async def test_a_closed_subscription_holds_back_no_publisher() -> None:
    topics = Topics(max_records=1)
    await publish(topics, [prediction(0)])
    predictions = streamfuse.subscribe(topics)
    async with predictions:
        pass
    with anyio.fail_after(5):
        await publish(topics, [prediction(1), prediction(2)])
    assert await read(predictions) == []


@pytest.mark.anyio
async def test_a_subscription_that_is_left_closes_itself() -> None:
    topics = Topics(max_records=2)
    await publish(topics, [prediction(0), prediction(1)])
    async for one in streamfuse.subscribe(topics, start="earliest"):
        assert one == prediction(0)
        break
    gc.collect()
    with anyio.fail_after(5):
        await publish(topics, [prediction(number) for number in range(2, 7)])


# --- iterating -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_closing_ends_the_iteration_of_a_task_that_waits() -> None:
    predictions = streamfuse.subscribe(Topics())
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:

            async def iterate() -> None:
                async for one in predictions:
                    raise AssertionError(one)

            tasks.start_soon(iterate)
            for _ in range(3):
                await checkpoint()
            await predictions.aclose()


@pytest.mark.anyio
async def test_a_wait_that_is_cancelled_loses_nothing() -> None:
    topics = Topics()
    async with streamfuse.subscribe(topics) as predictions:
        with anyio.move_on_after(0.01):
            await anext(predictions)
        await publish(topics, [prediction(0)])
        assert await anext(predictions) == prediction(0)


@pytest.mark.anyio
async def test_a_second_task_is_refused() -> None:
    async with streamfuse.subscribe(Topics()) as predictions, anyio.create_task_group() as tasks:
        tasks.start_soon(anext, predictions)
        for _ in range(3):
            await checkpoint()
        with pytest.raises(RuntimeError, match="give each a subscription of its own"):
            await anext(predictions)
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_it_goes_on_where_a_loop_was_left(file: Path) -> None:
    async with aclosing(streamfuse.subscribe(file)) as predictions:
        assert await read(predictions, 1) == [prediction(0)]
        assert await read(predictions) == [prediction(1), prediction(0, 1), prediction(0, key="room-2")]


@pytest.mark.anyio
async def test_what_comes_has_a_type(file: Path) -> None:
    async for one in streamfuse.subscribe(file):
        assert_type(one, Prediction)


@pytest.mark.anyio
async def test_only_a_group_can_commit(file: Path) -> None:
    async with streamfuse.subscribe(file) as predictions:
        with pytest.raises(SourceError, match="which keeps no place"):
            await predictions.commit()


# --- options -------------------------------------------------------------------------------------------------------------------------


def test_the_options_of_a_connection_are_those_of_the_config() -> None:
    fields = {name: field for name, field in KafkaConnection.model_fields.items() if name != "bootstrap"}
    options = get_type_hints(ConnectionOptions)
    assert options.keys() == fields.keys()
    for name in ("transport", "security", "mechanism"):
        assert get_args(options[name]) == get_args(fields[name].annotation)


def test_what_does_not_go_together_is_refused_with_the_option_at_fault(file: Path) -> None:
    brokers = KafkaConnection(bootstrap="localhost:9092")
    calls: dict[str, Callable[[], object]] = {
        "group": lambda: streamfuse.subscribe(file, group="g"),
        "security": lambda: streamfuse.subscribe(Topics(), security="ssl"),
        "start": lambda: streamfuse.subscribe(file, start=datetime.now(UTC)),
        "follow": lambda: streamfuse.subscribe("localhost:9092", follow=True),
        "username": lambda: streamfuse.subscribe(brokers, username="u"),
        "remember": lambda: streamfuse.subscribe(file, remember=-1),
    }
    for option, call in calls.items():
        with pytest.raises(ConfigError) as refused:
            call()
        assert [problem.path for problem in refused.value.problems] == [option]


def test_a_time_needs_its_zone() -> None:
    with pytest.raises(ConfigError, match="start: expected a time with its zone"):
        streamfuse.subscribe("localhost:9092", start=datetime(2026, 5, 1))


def test_a_wrong_option_of_the_connection_is_told_without_the_password() -> None:
    with pytest.raises(ConfigError) as refused:
        streamfuse.subscribe("localhost:9092", security="tls", password="hush")  # type: ignore[arg-type]
    assert [problem.path for problem in refused.value.problems] == ["security"]
    assert "hush" not in str(refused.value)
