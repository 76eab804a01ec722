"""The headers of one record, read as CloudEvents 1.0 attributes (Kafka protocol binding, binary mode)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from streamfuse.errors import InvalidRecord
from streamfuse.types import Headers as Headers

_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*")
_DIGITS = re.compile(r"-?[0-9]{1,19}")


def by_name(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, bytes | None]:
    """Their values by their names in lower case; of two headers with one name the last holds."""
    return {name.lower(): value for name, value in headers}


def refuse_attributes(headers: Iterable[str]) -> None:
    """Raises InvalidRecord where one of these names is a CloudEvents attribute's: without `ce_specversion` it means nothing."""
    for name in headers:
        if name.startswith("ce_"):
            raise _half_event(None)


def _half_event(version: str | None) -> InvalidRecord:
    return InvalidRecord(f"expected ce_specversion 1.0, found {version!r}; send CloudEvents 1.0, or no ce_ header at all")


def is_media_type(text: str) -> bool:
    """Whether this has the form of a media type, in lower case and without parameters."""
    return _MEDIA_TYPE.fullmatch(text) is not None


class Attributes:
    """Reads what the headers say (`by_name`); each method raises InvalidRecord with a sentence where that is not believable."""

    def __init__(self, headers: Mapping[str, bytes | None]) -> None:
        self._headers = headers

    @property
    def cloud_event(self) -> bool:
        """Whether this is a CloudEvent, with all that it requires; False where there is no `ce_` header at all."""
        version = self.text("ce_specversion")
        if version == "1.0":
            for name in ("ce_id", "ce_source", "ce_type"):
                self.required(name)
            return True
        if version is not None:
            raise _half_event(version)
        refuse_attributes(self._headers)
        return False

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
        if not is_media_type(kind):
            raise InvalidRecord(f"expected content-type to be a media type such as image/jpeg, found {content_type[:80]!r}")
        if kind.startswith("application/cloudevents"):
            raise InvalidRecord("expected CloudEvents in binary mode, found structured mode; send the attributes as ce_ headers")
        pairs = (part.partition("=") for part in rest)
        return kind, {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
