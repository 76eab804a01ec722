"""The eleven rules of time, one after the other, and what the windows are. Times are small integers of ns; clocks are trusted."""

from __future__ import annotations

import pytest

from streamfuse.sync import Anchored, ClockPolicy, Session, Sliding, StreamPolicy, Synchronizer, Tumbling
from streamfuse.sync.windows import Shape
from streamfuse.types import SECOND, Absence, Cursor, Loss, Offsets, Outcome, Packet, Position, Resume, Revoke, Window

TRUST = ClockPolicy(policy="trust")


def sync(
    shape: Shape | None = None,
    *,
    out_of_orderness: int = 0,
    idle: int | None = None,
    hold: int | None = None,
    lateness: int = 0,
    optional: tuple[str, ...] = (),
    streams: tuple[str, ...] = ("video", "audio"),
) -> Synchronizer:
    policies = {s: StreamPolicy(s not in optional, out_of_orderness, idle) for s in streams}
    return Synchronizer(policies, shape or Tumbling(10), max_hold=hold, allowed_lateness=lateness, clock=TRUST, side_output=True)


def times(window: Window) -> dict[str, list[int]]:
    return {stream: [p.event_time for p in found] for stream, found in window.packets.items()}


def spans(windows: list[Window]) -> list[tuple[int, int]]:
    return [(w.start, w.end) for w in windows]


# --- rule 1 ------------------------------------------------------------------------------------------------------------------------------


def test_rule_1_a_streams_watermark_stays_behind_its_newest_and_never_goes_back() -> None:
    s = sync(out_of_orderness=3)
    s.add("video", 10)
    assert s.watermarks()[""]["video"] == 7
    s.add("video", 8)
    assert s.watermarks()[""]["video"] == 7


# --- rule 2 ------------------------------------------------------------------------------------------------------------------------------


def test_rule_2_a_key_goes_as_far_as_its_slowest_stream() -> None:
    s = sync()
    s.add("video", 1)
    assert s.add("video", 25) == []
    assert spans(s.add("audio", 12)) == [(0, 10)]


def test_rule_2_keys_do_not_hold_each_other_back() -> None:
    s = sync()
    s.add("video", 1, key="slow")
    s.add("video", 1, key="quick")
    s.add("video", 11, key="quick")
    assert [w.key for w in s.add("audio", 11, key="quick")] == ["quick"]


def test_rule_2_an_idle_stream_does_not_hold_its_key() -> None:
    s = sync(idle=5)
    s.add("audio", 1)
    s.elapse(5)
    s.add("video", 2)
    assert spans(s.add("video", 10)) == [(0, 10)]


# --- rule 3 ------------------------------------------------------------------------------------------------------------------------------


def test_rule_3_a_window_is_emitted_once_in_order_of_end() -> None:
    s = sync()
    for time in (1, 12, 25):
        s.add("video", time)
    assert spans(s.add("audio", 40)) == [(0, 10), (10, 20)]
    assert spans(s.add("video", 40)) == [(20, 30)]
    assert s.add("video", 41) == []


def test_rule_3_a_window_is_half_open() -> None:
    s = sync(streams=("video",))
    s.add("video", 0)
    (window,) = s.add("video", 10)
    assert times(window) == {"video": [0]}


# --- rule 4: see test_properties ---------------------------------------------------------------------------------------------------------


def test_rule_4_what_is_in_time_is_for_its_own_stream_to_say() -> None:
    for order in (("audio", "video"), ("video", "audio")):
        s = sync()
        windows = []
        for stream in order:
            for time in (1, 15, 2) if stream == "video" else (3, 15):
                windows += s.add(stream, time)
        windows += s.finish()
        assert [times(w) for w in windows] == [{"video": [1], "audio": [3]}, {"video": [15], "audio": [15]}]
        assert s.ledger.accounts["video"].late == 1


# --- rule 5 ------------------------------------------------------------------------------------------------------------------------------


def test_rule_5_the_hold_bounds_the_wait() -> None:
    s = sync(hold=7)
    s.add("audio", 1)
    s.add("video", 2)
    s.add("video", 10)
    assert s.until_next() == 7
    assert s.elapse(6) == []
    (window,) = s.elapse(1)
    assert times(window) == {"video": [2], "audio": [1]}


def test_rule_5_a_held_window_says_that_a_stream_was_late() -> None:
    s = sync(hold=7)
    s.add("video", 2)
    s.add("audio", -5)
    s.add("video", 10)
    windows = s.elapse(7)
    assert windows[-1].absent == {"audio": Absence.LATE}
    s.add("audio", 3)
    assert s.ledger.accounts["audio"].late == 1


def test_rule_5_the_reasons_are_told_apart() -> None:
    s = sync(streams=("video", "gap", "idle", "shed", "undecodable", "clock"), idle=50, optional=("shed", "undecodable", "clock"))
    s.add("video", 1)
    s.add("gap", 20)
    for stream, reason in (("shed", Outcome.SHED), ("undecodable", Outcome.UNDECODABLE), ("clock", Outcome.QUARANTINED)):
        s.add(stream, -20)
        s.push(Loss(stream, "", reason, "for the test", None, 5))
    s.elapse(49)
    s.add("video", 2)
    s.add("gap", 21)
    s.elapse(1)
    windows = s.add("video", 15)
    assert windows[-1].absent == {stream: Absence(stream) for stream in ("gap", "idle", "shed", "undecodable", "clock")}


# --- rule 6 ------------------------------------------------------------------------------------------------------------------------------


def test_rule_6_without_waiting_no_stream_becomes_idle_and_no_hold_ends() -> None:
    s = sync(idle=5, hold=5)
    s.add("audio", 0)
    for time in range(0, 1000, 10):
        assert s.add("video", time) == []
    assert spans(s.add("audio", 10)) == [(0, 10)]


# --- rule 7 ------------------------------------------------------------------------------------------------------------------------------


def test_rule_7_open_windows_close_when_all_streams_are_idle() -> None:
    s = sync(idle=5)
    s.add("video", 4)
    s.add("audio", 4)
    assert s.elapse(5) == [], "the window's end has not come yet"
    assert spans(s.elapse(1)) == [(0, 10)]


def test_rule_7_no_packet_is_needed_to_close_a_window_under_a_hold() -> None:
    s = sync(hold=3)
    s.add("video", 4)
    assert s.until_next() == 9
    assert spans(s.elapse(9)) == [(0, 10)]
    assert s.until_next() is None


# --- rule 8 ------------------------------------------------------------------------------------------------------------------------------


def test_rule_8_a_packet_is_late_when_every_window_that_it_belongs_to_is_closed() -> None:
    s = sync(Sliding(10, 5), streams=("video",))
    s.add("video", 1)
    assert spans(s.add("video", 12)) == [(-5, 5), (0, 10)]
    s.add("video", 8)  # [0, 10) is closed, [5, 15) is not
    s.add("video", 3)  # both are closed
    assert s.ledger.accounts["video"].late == 1
    (window,) = s.add("video", 15)
    assert times(window) == {"video": [8, 12]}


def test_rule_8_a_late_packet_revises_its_window_within_the_allowed_lateness() -> None:
    s = sync(lateness=20, streams=("video",))
    s.add("video", 1)
    (first,) = s.add("video", 12)
    (revised,) = s.add("video", 3)
    assert (first.revision, revised.revision) == (0, 1)
    assert times(revised) == {"video": [1, 3]}
    (again,) = s.add("video", 2)
    assert (again.revision, times(again)) == (2, {"video": [1, 2, 3]})


def test_rule_8_past_the_allowed_lateness_it_goes_to_the_side_output() -> None:
    s = sync(lateness=5, streams=("video",))
    s.add("video", 1)
    s.add("video", 15)
    assert s.add("video", 3) == []
    (loss,) = s.take_losses()
    assert (loss.reason, loss.event_time) == (Outcome.LATE, 3)
    assert "max_out_of_orderness" in loss.detail


# --- rule 9 ------------------------------------------------------------------------------------------------------------------------------


def test_rule_9_the_end_of_input_closes_the_windows() -> None:
    s = sync()
    s.add("video", 1)
    (window,) = s.finish()
    assert window.absent == {"audio": Absence.IDLE}


def test_rule_9_a_stream_that_has_ended_does_not_hold_the_others() -> None:
    s = sync()
    s.add("video", 1)
    s.add("audio", 1)
    s.finish("audio")
    assert spans(s.add("video", 12)) == [(0, 10)]


# --- rule 10 -----------------------------------------------------------------------------------------------------------------------------


def clocked(policy: ClockPolicy | None = None) -> Synchronizer:
    policies = {"video": StreamPolicy(max_out_of_orderness=SECOND // 10), "audio": StreamPolicy(max_out_of_orderness=SECOND // 10)}
    return Synchronizer(policies, Tumbling(SECOND), clock=policy, side_output=True)


def stepped(s: Synchronizer, step: float, seconds: int = 10) -> list[Window]:
    """Video at 10 Hz whose clock is set by `step` seconds after 4 s, beside audio whose clock is fine."""
    windows = []
    for tenth in range(seconds * 10):
        now = tenth * SECOND // 10
        at = now + (int(step * SECOND) if tenth >= 40 else 0)
        windows += s.push(Packet("video", "a", at, 0, "", Position("video", tenth), now))
        windows += s.push(Packet("audio", "a", now, 0, "", Position("audio", tenth), now))
        assert not any(s.unaccounted().values())
    return windows + s.finish()


@pytest.mark.parametrize("step", [2.0, -2.0, 30.0, -30.0])
def test_rule_10_a_clock_that_steps_is_re_anchored_and_nothing_is_lost(step: float) -> None:
    s = clocked()
    windows = stepped(s, step)
    assert s.clock_steps == 1
    assert [(w.start // SECOND, len(w.packets["video"]), len(w.packets["audio"])) for w in windows] == [(n, 10, 10) for n in range(10)]
    assert s.ledger.accounts["video"].used == 100


def test_rule_10_a_step_is_flagged_within_a_second() -> None:
    s = clocked()
    stepped(s, -2.0, seconds=5)
    assert s.clock_steps == 1


def test_rule_10_a_lone_absurd_stamp_is_quarantined_and_stalls_nothing() -> None:
    s = clocked()
    windows = []
    for tenth in range(50):
        now = tenth * SECOND // 10
        at = now + 5 * SECOND if tenth == 20 else now
        windows += s.push(Packet("video", "a", at, 0, "", Position("video", tenth), now))
        windows += s.push(Packet("audio", "a", now, 0, "", Position("audio", tenth), now))
    assert s.ledger.accounts["video"].quarantined == 1
    assert s.clock_steps == 0
    assert [w.start // SECOND for w in windows] == [0, 1, 2, 3]


@pytest.mark.parametrize("year", [1970, 2100])
def test_rule_10_event_times_in_1970_and_2100_are_quarantined_and_say_clock(year: int) -> None:
    s = clocked()
    now = 1_800_000_000 * SECOND
    absurd = SECOND if year == 1970 else 4_102_444_800 * SECOND
    s.push(Packet("audio", "a", now, 0, "", Position("audio", 0), now))
    s.push(Packet("video", "a", absurd, 0, "", Position("video", 0), now + 1))
    (loss,) = s.take_losses()
    assert loss.reason is Outcome.QUARANTINED
    assert "set the producer's clock" in loss.detail
    (window,) = s.finish()
    assert window.absent == {"video": Absence.CLOCK}


def test_rule_10_a_burst_after_an_outage_is_no_step() -> None:
    s = clocked()
    for tenth in range(80):
        now = tenth * SECOND // 10
        arrival = now if not 20 <= tenth < 50 else 5 * SECOND + tenth
        s.push(Packet("video", "a", now, 0, "", Position("video", tenth), arrival))
        s.push(Packet("audio", "a", now, 0, "", Position("audio", tenth), arrival))
    assert s.clock_steps == 0
    s.finish()
    assert s.ledger.accounts["video"].used == 80


def test_rule_10_under_quarantine_a_stepped_clock_is_refused_until_it_is_back() -> None:
    s = clocked(ClockPolicy(policy="quarantine"))
    stepped(s, -2.0)
    assert s.ledger.accounts["video"].used == 40
    assert s.ledger.accounts["video"].quarantined == 60


# --- rule 11: see test_properties --------------------------------------------------------------------------------------------------------


def test_rule_11_a_duplicate_is_counted_and_used_once() -> None:
    s = sync(streams=("video",))
    packet = Packet("video", "", 1, 0, "", Position("video", 0), 1, "camera#1")
    s.push(packet)
    s.push(Packet("video", "", 1, 0, "", Position("video", 1), 1, "camera#1"))
    s.push(packet)
    (window,) = s.finish()
    assert times(window) == {"video": [1]}
    assert s.ledger.accounts["video"].duplicate == 2
    assert s.unaccounted() == {"video": 0}


# --- windows -----------------------------------------------------------------------------------------------------------------------------


def test_a_long_packet_is_in_every_window_that_it_overlaps() -> None:
    s = sync(streams=("audio",))
    s.add("audio", 5, duration=20)
    assert spans(s.finish()) == [(0, 10), (10, 20), (20, 30)]


def test_a_packet_is_in_every_sliding_window_that_covers_it() -> None:
    s = sync(Sliding(10, 5), streams=("video",))
    s.add("video", 12)
    assert spans(s.finish()) == [(5, 15), (10, 20)]


def test_a_session_ends_with_a_gap() -> None:
    s = sync(Session(10), streams=("video",))
    for time in (0, 6, 14, 40):
        s.add("video", time)
    assert [(w.start, w.end, times(w)["video"]) for w in s.finish()] == [(40, 51, [40])]
    s = sync(Session(10), streams=("video",))
    windows = [w for time in (0, 6, 14, 40) for w in s.add("video", time)]
    assert [(w.start, w.end, times(w)["video"]) for w in windows] == [(0, 25, [0, 6, 14])]


def test_a_session_that_never_pauses_is_cut() -> None:
    s = sync(Session(5, max_size=10), streams=("video",))
    windows = [w for time in range(25) for w in s.add("video", time)] + s.finish()
    assert spans(windows) == [(0, 10), (10, 20), (20, 30)]
    assert sum(len(times(w)["video"]) for w in windows) == 25


def test_an_anchored_window_takes_the_nearest_of_the_others() -> None:
    s = sync(Anchored("video", tolerance=5))
    for time in (1, 8, 11, 30):
        s.add("audio", time)
    s.add("video", 10)
    (window,) = s.add("video", 24)
    assert (window.start, window.end, times(window)) == (5, 16, {"video": [10], "audio": [11]})


def test_an_anchored_window_can_take_all_within_its_span() -> None:
    s = sync(Anchored("video", tolerance=5, take="all"))
    for time in (1, 8, 11, 30):
        s.add("audio", time)
    s.add("video", 10)
    assert times(s.add("video", 24)[0]) == {"video": [10], "audio": [8, 11]}


def test_a_packet_with_a_duration_is_nearest_to_the_anchors_inside_it() -> None:
    s = sync(Anchored("video", tolerance=5))
    s.add("audio", 6, duration=8)
    s.add("audio", 14)
    s.add("video", 12)
    (window,) = s.finish()
    assert times(window) == {"video": [12], "audio": [6]}


def test_lag_is_taken_off_the_event_time() -> None:
    s = Synchronizer({"audio": StreamPolicy(lag=3)}, Tumbling(10), clock=TRUST)
    s.add("audio", 12)
    (window,) = s.finish()
    assert (window.start, times(window)) == (0, {"audio": [9]})


def test_an_optional_stream_joins_but_is_not_waited_for() -> None:
    s = sync(optional=("audio",))
    s.add("audio", 1)
    s.add("video", 2)
    (window,) = s.add("video", 10)
    assert times(window) == {"video": [2], "audio": [1]}
    (window,) = s.add("video", 20)
    assert window.absent == {"audio": Absence.IDLE}


# --- cursors, keys -----------------------------------------------------------------------------------------------------------------------


def at(stream: str, time: int, offset: int, key: str = "a") -> Packet:
    return Packet(stream, key, time, 0, "", Position(stream, offset), time, f"{stream}{offset}")


@pytest.mark.parametrize("time", [-(2**62) - 1, 2**62 + 1, -62_135_596_800 * SECOND, 253_402_300_799 * SECOND])
def test_an_event_time_of_another_age_is_quarantined_also_where_clocks_are_trusted(time: int) -> None:
    s = sync(streams=("video",))
    s.add("video", 1)
    assert s.add("video", time) == []
    assert s.ledger.accounts["video"].quarantined == 1
    assert "years 1824 to 2116" in s.take_losses()[0].detail
    assert spans(s.finish()) == [(0, 10)]


def test_the_cursor_names_the_first_record_that_is_still_needed() -> None:
    s = sync(Sliding(10, 5), streams=("video",))
    windows = [w for offset, time in enumerate((1, 4, 7, 12)) for w in s.push(at("video", time, offset))]
    cursor = windows[-1].cursor
    assert cursor is not None
    assert cursor.offsets["video"] == (2, 4), "the packet at 7 is in [5, 15) too"
    assert cursor.watermarks == {"a": 10}


def test_what_was_accounted_for_before_a_restart_is_not_late_after_it() -> None:
    s = sync(streams=("video",))
    windows = [w for offset, time in enumerate((1, 2, 14, 3, 12)) for w in s.push(at("video", time, offset))]
    cursor = windows[-1].cursor
    assert cursor is not None
    after = sync(streams=("video",))
    after.push(Resume(cursor))
    for offset, time in list(enumerate((1, 2, 14, 3, 12)))[cursor.offsets["video"].needed :]:
        after.push(at("video", time, offset))
    assert after.ledger.accounts["video"].late == 1, "3 came after the cursor was taken"


@pytest.mark.parametrize(
    ("reason", "told"), [(Outcome.UNDECODABLE, [8]), (Outcome.QUARANTINED, [8]), (Outcome.SHED, [3, 8])], ids=lambda value: str(value)
)
def test_a_refused_record_that_is_read_again_after_a_restart_is_counted_again_and_not_told_again(reason: Outcome, told: list[int]) -> None:
    s = sync(streams=("video",))
    s.push(Resume(Cursor({"video": Offsets(2, 7)})))
    for offset in (3, 8):
        s.push(Loss("video", "a", reason, "for the test", Position("video", offset)))
    assert [loss.position and loss.position.offset for loss in s.take_losses()] == told
    assert s.ledger.accounts["video"].counts()[reason] == 2
    assert not any(s.unaccounted().values())


def test_a_second_crash_does_not_lose_the_revision_that_the_first_delayed() -> None:
    logs = {"video": (1, 11, 21), "audio": (1, 11, 21, 15)}  # 15 came late
    late = (("video", 0), ("audio", 0), ("audio", 1), ("audio", 2), ("audio", 3), ("video", 1))
    lives = [
        late,  # [0, 10) is closed and durable when the late packet has been read
        (("video", 0), ("video", 1), ("video", 2), ("audio", 0), ("audio", 1), ("audio", 2)),  # [10, 20) closes before it is back
        (*late, ("video", 2)),
    ]
    cursor = Cursor()
    found = {}
    for read in lives:
        life = sync(lateness=10)
        life.push(Resume(cursor))
        for stream, number in read:
            if stream not in cursor.offsets or number >= cursor.offsets[stream].needed:
                for window in life.push(at(stream, logs[stream][number], number)):
                    found[window.start] = times(window)
                    cursor = cursor.merge(window.cursor or Cursor())
    assert found[10] == {"video": [11], "audio": [11, 15]}


def test_records_that_are_gone_do_not_hold_the_cursor_for_ever() -> None:
    s = sync(lateness=10)
    s.push(Resume(Cursor({"video": Offsets(0, 0), "audio": Offsets(0, 0), "gone": Offsets(2, 7)})))
    closing = [at("video", 1, 0), at("audio", 1, 0), at("video", 11, 1), at("audio", 11, 1)]
    assert [w.cursor for p in closing for w in s.push(p)] == [None]
    assert s.cursor() == Cursor()
    s.elapse(60 * SECOND)
    assert s.cursor().watermarks == {"a": 11}


def test_a_revoked_partition_takes_its_keys_along() -> None:
    s = sync()
    s.push(at("video", 1, 0, "a"))
    s.push(at("audio", 1, 0, "b"))
    s.push(Revoke(frozenset({"video"})))
    assert [w.key for w in s.finish()] == ["b"]
    assert s.ledger.accounts["video"].revoked == 1
    assert not any(s.unaccounted().values())


def test_a_key_that_is_silent_for_long_is_forgotten() -> None:
    s = Synchronizer({"video": StreamPolicy(idle_timeout=5)}, Tumbling(10), forget_after=100, clock=TRUST)
    s.add("video", 1, key="gone")
    s.elapse(60)
    s.add("video", 1, key="new")
    s.elapse(60)
    assert s.keys == 1


def test_a_packet_of_an_unknown_stream_is_quarantined() -> None:
    s = sync()
    s.add("vidoe", 1)
    (loss,) = s.take_losses()
    assert loss.reason is Outcome.QUARANTINED
    assert "sync.streams" in loss.detail


def test_settings_that_can_not_work_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one stream must be required"):
        sync(optional=("video", "audio"))
    with pytest.raises(ValueError, match="primary"):
        sync(Anchored("camera", 5))
    with pytest.raises(ValueError, match="positive"):
        Tumbling(0)


def test_optional_streams_make_no_windows_of_their_own() -> None:
    s = sync(optional=("audio",))
    s.add("video", 5)
    s.add("audio", 5, duration=50)
    assert [(w.start, times(w)) for w in s.finish()] == [(0, {"video": [5], "audio": [5]})]
    s = sync(optional=("audio",))
    s.add("audio", 5)
    assert s.finish() == []
    assert s.ledger.accounts["audio"].unmatched == 1
