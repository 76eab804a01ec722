"""What is true of a window: a stream of text that carries the labels."""

from __future__ import annotations

from streamfuse.errors import UndecodablePayload
from streamfuse.models.decode import decode, decode_text
from streamfuse.types import Encoded, Packet, Window


def true_label(window: Window, stream: str, failed: list[tuple[Packet, str]]) -> str | None:
    """The words of the stream that cover most of the window, None where there are none. Packets that are no text go to `failed`."""
    covered: dict[str, int] = {}
    for packet in window.packets.get(stream, ()):
        try:
            decode(packet, "text", max_pixels=0)
        except UndecodablePayload as error:
            failed.append((packet, str(error)))
            continue
        overlap = min(packet.end, window.end) - max(packet.event_time, window.start)
        covered[words(packet)] = covered.get(words(packet), 0) + max(overlap, 0)
    return max(covered, key=lambda label: covered[label], default=None)


def words(packet: Packet) -> str:
    """What a packet of text says."""
    payload = packet.payload
    return (decode_text(payload.data) if isinstance(payload, Encoded) else str(payload)).strip()
