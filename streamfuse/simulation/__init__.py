"""Rooms that never were: drawn talkers, made sound, captions and the truth of each instant, all from a seed."""

from streamfuse.simulation.room import Caption, Room
from streamfuse.simulation.timeline import LABELS, Label, Segment

__all__ = ["LABELS", "Caption", "Label", "Room", "Segment"]
