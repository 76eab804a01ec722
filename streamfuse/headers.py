"""The headers of one record, read as CloudEvents 1.0 attributes (Kafka protocol binding, binary mode)."""

from __future__ import annotations

import re

from streamfuse.errors import InvalidRecord
from streamfuse.types import Headers as Headers

_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*")
_DIGITS = re.compile(r"-?[0-9]{1,19}")


class Attributes:
    """Reads what the headers say; each method raises InvalidRecord with a sentence where that is not believable.

    Names are taken without regard to case; of two headers with one name the last holds.
    """

    def __init__(self, headers: Headers) -> None:
        self._headers = {name.lower(): value for name, value in headers}

    @property
    def cloud_event(self) -> bool:
        """Whether this is a CloudEvent, with all that it requires; False where there is no `ce_` header at all."""
        version = self.text("ce_specversion")
        if version == "1.0":
            for name in ("ce_id", "ce_source", "ce_type"):
                self.required(name)
            return True
        if version is None and not any(name.startswith("ce_") for name in self._headers):
            return False
        raise InvalidRecord(f"expected ce_specversion 1.0, found {version!r}; send CloudEvents 1.0, or no ce_ header at all")

    def text(self, name: str) -> str | None:
        value = self._headers.get(name)
        if value is None:
            return None
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise InvalidRecord(f"expected header {name} in UTF-8, found {value[:40]!r}") from None

    def required(self, name: str) -> str:
        value = self.text(name)
        if not value:
            raise InvalidRecord(f"expected header {name}, which every CloudEvent has, found {value!r}")
        return value

    def integer(self, name: str, least: int, most: int, otherwise: str | None = None) -> int | None:
        value = self.text(name)
        if value is None:
            value = otherwise
        if value is None:
            return None
        if not _DIGITS.fullmatch(value) or not least <= int(value) <= most:
            raise InvalidRecord(f"expected {name} to be a whole number from {least} to {most}, found {value[:40]!r}")
        return int(value)

    def media_type(self) -> tuple[str | None, dict[str, str]]:
        """The `content-type` in lower case and its parameters; None where there is none."""
        content_type = self.text("content-type")
        if content_type is None:
            return None, {}
        kind, *rest = (part.strip() for part in content_type.split(";"))
        kind = kind.lower()
        if not _MEDIA_TYPE.fullmatch(kind):
            raise InvalidRecord(f"expected content-type to be a media type such as image/jpeg, found {content_type[:80]!r}")
        if kind.startswith("application/cloudevents"):
            raise InvalidRecord("expected CloudEvents in binary mode, found structured mode; send the attributes as ce_ headers")
        pairs = (part.partition("=") for part in rest)
        return kind, {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
