"""StreamFuse aligns live video, sound and text by event time, and runs a fusion model on the aligned windows."""

from typing import TYPE_CHECKING

from streamfuse.sync import Anchored, ClockPolicy, Session, Sliding, StreamPolicy, Synchronizer, Tumbling
from streamfuse.types import MILLISECOND, SECOND, Cursor, Packet, Position, Prediction, Window

if TYPE_CHECKING:
    from streamfuse.subscription import Subscription, subscribe
else:

    def __getattr__(name):  # what is not needed to align is imported when it is asked for
        if name not in ("Subscription", "subscribe"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from streamfuse import subscription

        return getattr(subscription, name)


__version__ = "0.1.0"

__all__ = [
    "MILLISECOND",
    "SECOND",
    "Anchored",
    "ClockPolicy",
    "Cursor",
    "Packet",
    "Position",
    "Prediction",
    "Session",
    "Sliding",
    "StreamPolicy",
    "Subscription",
    "Synchronizer",
    "Tumbling",
    "Window",
    "subscribe",
]
