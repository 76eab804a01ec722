"""Alignment by event time. Pure: it imports nothing but the types and the ledger, and is useful alone."""

from streamfuse.sync.clock_doctor import ClockPolicy
from streamfuse.sync.synchronizer import Synchronizer
from streamfuse.sync.watermark import StreamPolicy
from streamfuse.sync.windows import Anchored, Session, Sliding, Tumbling

__all__ = ["Anchored", "ClockPolicy", "Session", "Sliding", "StreamPolicy", "Synchronizer", "Tumbling"]
