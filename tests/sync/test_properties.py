"""What must hold for any input: interleaving does not matter, a crash loses and doubles nothing, the ledger balances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from streamfuse.sync import Anchored, ClockPolicy, Session, Sliding, StreamPolicy, Synchronizer, Tumbling
from streamfuse.sync.windows import Shape
from streamfuse.types import Cursor, Item, Loss, Outcome, Packet, Position, Resume, Window, WindowId

STREAMS = ("video", "audio", "text")
TRUST = ClockPolicy(policy="trust")

shapes: st.SearchStrategy[Shape] = st.one_of(
    st.builds(Tumbling, size=st.integers(1, 20), offset=st.integers(0, 5)),
    st.builds(Sliding, size=st.integers(1, 20), hop=st.integers(1, 20)),
    st.builds(Session, gap=st.integers(1, 10), max_size=st.none() | st.integers(1, 30)),
    st.builds(Anchored, primary=st.just("video"), tolerance=st.integers(0, 5), take=st.sampled_from(["nearest", "all"])),
)
stamps = st.lists(st.tuples(st.integers(0, 80), st.sampled_from([0, 0, 1, 3, 12])), max_size=12)
recordings = st.fixed_dictionaries({(stream, key): stamps for stream in STREAMS for key in ("a", "b")})


def packets(recording: dict[tuple[str, str], list[tuple[int, int]]]) -> dict[str, list[Packet]]:
    """Per partition (one a stream, both keys in it) its packets in order of offset."""
    logs: dict[str, list[Packet]] = {stream: [] for stream in STREAMS}
    for (stream, key), times in recording.items():
        for time, duration in times:
            log = logs[stream]
            log.append(Packet(stream, key, time, duration, "", Position(stream, len(log)), time, f"{key}{len(log)}"))
    return logs


def interleave(logs: dict[str, list[Packet]], order: Sequence[int]) -> list[Packet]:
    """One of the possible merges that keep the order within each partition."""
    left = {stream: list(log) for stream, log in logs.items() if log}
    merged = []
    turn = 0
    while left:
        names = sorted(left)
        name = names[order[turn % len(order)] % len(names)] if order else names[0]
        merged.append(left[name].pop(0))
        if not left[name]:
            del left[name]
        turn += 1
    return merged


def batches(merged: Sequence[Packet], size: int) -> list[Sequence[Packet]]:
    return [merged[at : at + size] for at in range(0, len(merged), size)]


orders = st.lists(st.integers(0, 5), min_size=1, max_size=40)


def synchronizer(shape: Shape, out_of_orderness: int, lateness: int = 0) -> Synchronizer:
    policy = StreamPolicy(max_out_of_orderness=out_of_orderness)
    return Synchronizer(dict.fromkeys(STREAMS, policy), shape, allowed_lateness=lateness, clock=TRUST, side_output=True)


def run(sync: Synchronizer, items: Sequence[Item]) -> list[Window]:
    windows = []
    for item in items:
        windows += sync.push(item)
        assert not any(sync.unaccounted().values())
    windows += sync.finish()
    assert not any(sync.unaccounted().values())
    assert not any(sync.buffered().values())
    return windows


def contents(windows: Sequence[Window]) -> dict[WindowId, dict[str, list[Position]]]:
    assert len({w.id for w in windows}) == len(windows)
    return {w.id: {stream: [p.position for p in found] for stream, found in w.packets.items()} for w in windows}


def newest(windows: Sequence[Window]) -> dict[tuple[str, int, int], dict[str, list[Position]]]:
    return {(w.key, w.start, w.end): {s: [p.position for p in found] for s, found in w.packets.items()} for w in windows}


@settings(max_examples=300, deadline=None)
@given(recordings, shapes, st.integers(0, 15), orders, orders)
def test_any_interleaving_gives_the_same_windows(
    recording: dict[tuple[str, str], list[tuple[int, int]]], shape: Shape, out_of_orderness: int, one: list[int], other: list[int]
) -> None:
    logs = packets(recording)
    first = run(synchronizer(shape, out_of_orderness), interleave(logs, one))
    second = run(synchronizer(shape, out_of_orderness), interleave(logs, other))
    assert contents(first) == contents(second)


@settings(max_examples=300, deadline=None)
@given(recordings, shapes, st.integers(0, 15), orders, st.integers(1, 40))
def test_batches_give_the_same_windows_as_single_packets(
    recording: dict[tuple[str, str], list[tuple[int, int]]], shape: Shape, out_of_orderness: int, order: list[int], size: int
) -> None:
    merged = interleave(packets(recording), order)
    single = run(synchronizer(shape, out_of_orderness), merged)
    together = synchronizer(shape, out_of_orderness)
    windows = [window for batch in batches(merged, size) for window in together.push_all(batch)] + together.finish()
    assert contents(windows) == contents(single)
    assert not any(together.unaccounted().values())


@settings(max_examples=300, deadline=None)
@given(recordings, shapes, st.integers(0, 10), st.integers(1, 30), orders, orders)
def test_any_interleaving_gives_the_same_latest_revisions(
    recording: dict[tuple[str, str], list[tuple[int, int]]],
    shape: Shape,
    out_of_orderness: int,
    lateness: int,
    one: list[int],
    other: list[int],
) -> None:
    if isinstance(shape, Session):
        shape = Session(shape.gap)  # what a cut session takes in late depends on when it was cut
    logs = packets(recording)
    first = run(synchronizer(shape, out_of_orderness, lateness), interleave(logs, one))
    second = run(synchronizer(shape, out_of_orderness, lateness), interleave(logs, other))
    assert newest(first) == newest(second)


@settings(max_examples=300, deadline=None)
@given(recordings, shapes, st.integers(0, 15))
def test_each_key_gets_its_windows_in_order_of_end(
    recording: dict[tuple[str, str], list[tuple[int, int]]], shape: Shape, out_of_orderness: int
) -> None:
    windows = run(synchronizer(shape, out_of_orderness), interleave(packets(recording), [0, 1, 2, 1]))
    for key in ("a", "b"):
        ends = [w.end for w in windows if w.key == key]
        assert ends == sorted(ends)


crashes = st.lists(st.tuples(orders, st.integers(0, 200), st.integers(0, 200)), min_size=1, max_size=3)


@settings(max_examples=500, deadline=None)
@given(recordings, shapes, st.integers(0, 15), st.sampled_from([0, 0, 8]), crashes, orders, st.sampled_from([1, 1, 2, 5, 20]))
def test_crashes_after_any_packets_lose_and_double_nothing(
    recording: dict[tuple[str, str], list[tuple[int, int]]],
    shape: Shape,
    out_of_orderness: int,
    lateness: int,
    lives: list[tuple[list[int], int, int]],
    last: list[int],
    size: int,
) -> None:
    """Each life ends after so many packets, when so many of its windows are durable."""
    if lateness and isinstance(shape, Session):
        shape = Session(shape.gap)
    logs = packets(recording)
    whole = run(synchronizer(shape, out_of_orderness, lateness), interleave(logs, last))

    kept: list[Window] = []
    cursor = Cursor()
    for order, crash, durable in lives:
        life = synchronizer(shape, out_of_orderness, lateness)
        published = life.push(Resume(cursor))
        for batch in batches(interleave(_rest(logs, cursor), order)[:crash], size):
            published += life.push_all(batch)
        commits = [i + 1 for i, w in enumerate(published) if w.cursor is not None and i < durable]
        for window in published[: commits[-1]] if commits else []:
            kept.append(window)
            cursor = cursor.merge(window.cursor or Cursor())

    after = synchronizer(shape, out_of_orderness, lateness)
    resumed = run(after, [Resume(cursor), *interleave(_rest(logs, cursor), last)])
    if lateness:
        # How many revisions a window gets depends on how the late packets interleave with its end; what it ends up with does not.
        assert newest([*kept, *resumed]) == newest(whole)
    else:
        assert contents([*kept, *resumed]) == contents(whole)
        late = Counter(loss.position for loss in after.take_losses() if loss.reason is Outcome.LATE)
        assert all(count == 1 for count in late.values())


def _rest(logs: dict[str, list[Packet]], cursor: Cursor) -> dict[str, list[Packet]]:
    """What is read again from the cursor on."""
    return {stream: log[cursor.offsets[stream].needed :] if stream in cursor.offsets else log for stream, log in logs.items()}


items = st.lists(
    st.one_of(
        st.tuples(
            st.just("packet"),
            st.sampled_from(STREAMS),
            st.integers(-(10**12), 10**13),
            st.integers(-5, 4 * 10**12),
            st.integers(0, 3 * 10**9),
        ),
        st.tuples(st.just("near"), st.sampled_from(STREAMS), st.integers(0, 5 * 10**9), st.integers(0, 10**9), st.integers(0, 10**8)),
        st.tuples(st.just("loss"), st.sampled_from(STREAMS), st.integers(0, 10**10), st.just(0), st.just(0)),
        st.tuples(st.just("wait"), st.just(""), st.integers(0, 10**10), st.just(0), st.just(0)),
        st.tuples(st.just("again"), st.just(""), st.integers(0, 20), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=500, deadline=None)
@given(
    items,
    shapes.map(lambda s: _seconds(s)),
    st.sampled_from([0, 10**9]),
    st.sampled_from([None, 10**8]),
    st.sampled_from(["reanchor", "quarantine", "trust"]),
)
def test_the_ledger_balances_for_any_input(
    script: list[tuple[str, str, int, int, int]], shape: Shape, lateness: int, hold: int | None, policy: str
) -> None:
    sync = Synchronizer(
        {
            "video": StreamPolicy(max_out_of_orderness=10**8, idle_timeout=10**9, lag=10**7),
            "audio": StreamPolicy(idle_timeout=2 * 10**9),
            "text": StreamPolicy(required=False),
        },
        shape,
        max_hold=hold,
        allowed_lateness=lateness,
        clock=ClockPolicy(policy=policy),  # type: ignore[arg-type]
        forget_after=20 * 10**9,
    )
    given_packets: list[Packet] = []
    offsets: Counter[str] = Counter()
    now = 0
    received = 0
    for kind, stream, number, duration, delay in script:
        if kind == "wait":
            now += number
            sync.elapse(number)
        elif kind == "again" and given_packets:
            sync.push(given_packets[number % len(given_packets)])
            received += 1
        elif kind == "loss":
            sync.push(Loss(stream, "a", Outcome.SHED, "full", Position(stream, offsets[stream]), number))
            offsets[stream] += 1
            received += 1
        elif kind in ("packet", "near"):
            time = number if kind == "packet" else now + number
            packet = Packet(stream, "a", time, duration, "", Position(stream, offsets[stream]), now + delay)
            offsets[stream] += 1
            received += 1
            given_packets.append(packet)
            sync.push(packet)
        assert not any(sync.unaccounted().values())
        assert sum(account.received for account in sync.ledger.accounts.values()) == received
    sync.finish()
    assert not any(sync.unaccounted().values())
    assert not any(sync.buffered().values())


def _seconds(shape: Shape) -> Shape:
    """The same shape with its small numbers as tenths of seconds, so that a packet of an hour is in a bounded number of windows."""
    tenth = 10**8
    if isinstance(shape, Tumbling):
        return Tumbling((shape.size + 10) * tenth, shape.offset * tenth)
    if isinstance(shape, Sliding):
        return Sliding(shape.size * tenth, (shape.hop + 10) * tenth)
    if isinstance(shape, Session):
        return Session(shape.gap * tenth, None if shape.max_size is None else (shape.max_size + 10) * tenth)
    assert isinstance(shape, Anchored)
    return Anchored(shape.primary, shape.tolerance * tenth, shape.take)
