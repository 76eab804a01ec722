"""What a committed offset carries besides itself: the offset never read so far, and the watermarks of its keys.

Kafka keeps a string of up to 4,096 bytes with each committed offset, of which our clients leave 4,095. Ours is JSON
`{"v":1,"s":seen,"w":{key:ns}}`; where that is too long, the same, compressed by zlib, in base 85 behind a `~`; and where the watermarks
stand in their compacted topic, their version there in the place of them: `{"v":1,"s":seen,"c":version}`.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from streamfuse.errors import InvalidRecord

MAX_BYTES = 4095  # the broker's default, `offset.metadata.max.bytes`, less the end mark that our clients set
MAX_KEYS = 2000  # so many never fit, whatever they are; packing more would only cost time
_MAX_PLAIN = 512
_MAX_INFLATED = 1024 * 1024


class CommitMetadata(NamedTuple):
    """`version` is that of the watermarks in their topic, 0 where they are here."""

    seen: int
    watermarks: dict[str, int]
    version: int = 0


def encode_metadata(seen: int, watermarks: Mapping[str, int], expendable: Sequence[str] = ()) -> tuple[str, int]:
    """The metadata, and how many watermarks it had no room for.

    The `expendable` keys go first, in their order, then the others in the order of the mapping: keep first what costs most to lose.
    """
    if len(watermarks) <= MAX_KEYS and len(text := _pack(seen, watermarks)) <= MAX_BYTES:
        return text, 0
    last = set(expendable)
    by_worth = [*(key for key in watermarks if key not in last), *reversed(expendable)][:MAX_KEYS]
    fits, too_many = 0, len(by_worth) + 1
    while too_many - fits > 1:  # what fits is found by halving: compressed length is not a sum
        half = (fits + too_many) // 2
        if len(_pack(seen, {key: watermarks[key] for key in by_worth[:half]})) <= MAX_BYTES:
            fits = half
        else:
            too_many = half
    kept = {key: watermarks[key] for key in by_worth[:fits]}
    return _pack(seen, kept), len(watermarks) - fits


def encode_reference(seen: int, version: int) -> str:
    """The metadata where the watermarks stand in their topic, in this version."""
    return json.dumps({"v": 1, "s": seen, "c": version}, separators=(",", ":"))


def decode_metadata(text: str) -> CommitMetadata | None:
    """None for an empty one: the offset was committed by another tool. Raises InvalidRecord for what we did not write."""
    if not text:
        return None
    try:
        document = json.loads(_inflate(text[1:]) if text.startswith("~") else text)
        if document["v"] != 1:
            raise ValueError(f"version {document['v']!r}")
        watermarks = {str(key): int(watermark) for key, watermark in document.get("w", {}).items()}
        return CommitMetadata(int(document["s"]), watermarks, int(document.get("c", 0)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, zlib.error) as error:
        raise InvalidRecord(f"expected commit metadata of StreamFuse, found {text[:80]!r} ({error})") from None


def _pack(seen: int, watermarks: Mapping[str, int]) -> str:
    text = json.dumps({"v": 1, "s": seen, "w": dict(watermarks)}, separators=(",", ":"))
    if len(text) <= _MAX_PLAIN:
        return text
    return "~" + base64.b85encode(zlib.compress(text.encode(), 9)).decode()


def _inflate(text: str) -> bytes:
    inflater = zlib.decompressobj()
    data = inflater.decompress(base64.b85decode(text), _MAX_INFLATED)
    if inflater.unconsumed_tail:
        raise ValueError(f"more than {_MAX_INFLATED} bytes")
    return data
