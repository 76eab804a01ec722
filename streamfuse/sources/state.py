"""Keeps the cursor of a source that reads files, so that its next run goes on where this one stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import anyio.to_thread

from streamfuse.documents import cursor_from_json, cursor_to_json
from streamfuse.durable import replace_whole
from streamfuse.errors import InvalidRecord, SourceError
from streamfuse.types import Cursor


class State:
    """The cursor of one source, in memory and, with a `path`, in a file of JSON that is replaced as a whole.

    `owner` names the source in the file; a file that another source keeps is refused. `owns` tells the source's
    partitions from others'. Beside the cursor the file holds `start`, the event time of the recording's first instant:
    the watermarks mean nothing without it.
    """

    def __init__(self, path: Path | None, owner: str, owns: Callable[[str], bool]) -> None:
        self.cursor = Cursor()
        self.start: int | None = None
        self._path = path
        self._owner = owner
        self._owns = owns
        self._keys: set[str] = set()

    def add_keys(self, keys: Iterable[str]) -> None:
        """Keys of this source; watermarks of others are not its business."""
        self._keys.update(keys)

    def load(self) -> bool:
        """Read the file; False where there is none, or none is kept. Raises SourceError for one that can't be used."""
        if self._path is None or not self._path.exists():
            return False
        advice = "correct it, or delete it to begin at the first record"
        try:
            text = self._path.read_bytes()
            cursor = cursor_from_json(text)
        except OSError as error:
            raise SourceError(f"expected the state in {self._path}, which can't be read: {error}") from None
        except InvalidRecord as error:
            raise SourceError(f"the state in {self._path} is damaged: {error}; {advice}") from None
        document = json.loads(text)
        owner, start = document.get("source"), document.get("start")
        if owner != self._owner:
            raise SourceError(f"the state in {self._path} is that of {owner!r}, not of {self._owner!r}; give each source its own file")
        if start is not None and type(start) is not int:
            raise SourceError(f"the state in {self._path} is damaged: start: expected ns, found {start!r}; {advice}")
        offsets = {p: o for p, o in cursor.offsets.items() if self._owns(p)}
        self.cursor = Cursor(offsets, {k: w for k, w in cursor.watermarks.items() if w is not None})
        self.start = start
        self.add_keys(self.cursor.watermarks)
        return True

    async def commit(self, cursor: Cursor) -> None:
        """Bring the cursor up to date with what `cursor` says of this source, and make it durable. Raises
        SourceError."""
        offsets = {p: o for p, o in cursor.offsets.items() if self._owns(p)}
        watermarks = {k: w for k, w in cursor.watermarks.items() if k in self._keys}
        if not offsets and not watermarks:
            return
        self.cursor = self.cursor.merge(Cursor(offsets, watermarks))
        if self._path is not None:
            await anyio.to_thread.run_sync(self._write, self._path, self._document())

    def _document(self) -> str:
        document = json.loads(cursor_to_json(self.cursor))
        return json.dumps({**document, "source": self._owner, "start": self.start}, indent=1) + "\n"

    def _write(self, path: Path, document: str) -> None:
        try:
            replace_whole(path, document.encode())
        except OSError as error:
            raise SourceError(
                f"the state can't be written to {path}: {error}; make room, or let `state` name a place that is writable"
            ) from None
