"""StreamFuse aligns live video, sound and text by event time, and runs a fusion model on the aligned windows."""

from streamfuse.sync import Anchored, ClockPolicy, Session, Sliding, StreamPolicy, Synchronizer, Tumbling
from streamfuse.types import MILLISECOND, SECOND, Cursor, Packet, Position, Prediction, Window

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
    "Synchronizer",
    "Tumbling",
    "Window",
]
