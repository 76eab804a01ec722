"""What the settings of a secure connection mean: what is wrong with them, their secrets, the TLS that they ask for, the rights needed."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from streamfuse.config import KafkaConnection
from streamfuse.errors import ConfigError, Problem
from streamfuse.kafka.transport import Refused

Kind = Literal["topic", "group", "transactional-id", "cluster"]
"""Of what a right is; as kafka-acls.sh names it."""

WIRE_LOGS = ("kafka.net.connection", "kafka.protocol.parser")
READABLE_BY_ALL = 0o004

log = logging.getLogger(__name__)


def require_sound(settings: KafkaConnection) -> None:
    """Raises ConfigError with everything that keeps these settings from being used: what contradicts itself, what is missing, what can't be
    read. Warns of secrets that every user of this machine, or of the network, can read."""
    if found := list(_problems(settings)):
        raise ConfigError(found)
    if settings.security == "sasl_plaintext" and settings.mechanism == "PLAIN":
        _warn_of_the_network(settings.bootstrap)
    for file in (settings.password_file, settings.key_file, settings.key_password_file):
        if file is not None and file.stat().st_mode & READABLE_BY_ALL:
            _warn_of(file)


def uses_tls(settings: KafkaConnection) -> bool:
    return settings.security in ("ssl", "sasl_ssl")


def uses_password(settings: KafkaConnection) -> bool:
    return settings.security in ("sasl_plaintext", "sasl_ssl")


def password(settings: KafkaConnection) -> str:
    """Raises ConfigError where there is none. From here on nothing of what goes over the wire is logged, of which it becomes a part."""
    _keep_the_wire_out_of_the_logs()
    found = _secret("password", None if settings.password is None else settings.password.get_secret_value(), settings.password_file)
    return _or_raise("password", found)


def key_password(settings: KafkaConnection) -> str | None:
    """Raises ConfigError where its file can't be read."""
    if settings.key_password is None and settings.key_password_file is None:
        return None
    given = None if settings.key_password is None else settings.key_password.get_secret_value()
    return _or_raise("key_password", _secret("key_password", given, settings.key_password_file))


def tls_context(settings: KafkaConnection) -> ssl.SSLContext:
    """TLS 1.2 or newer; the broker's certificate and its host name are verified. Raises ConfigError where a file can't be used."""
    context, found = _context(settings)
    if found:
        raise ConfigError(found)
    return context


class Rights:
    """What a client does at the brokers, so that it can say which right it lacks. `topics` and `group` are what it has used so far.

    The least that a daemon needs (Describe comes with each): Read on the topics of its streams and on its group, Write on the topics of
    predictions and of dead letters, Read and Write on its topic of watermarks, if there is one. With `exactly_once` the user of the source
    writes the predictions, and needs Write on the transactional ids that begin with the group's name and `-`. Who subscribes needs Read on
    the topic, and on the group if it has one. Brokers before Kafka 3.0 also want IdempotentWrite on the cluster of who writes.
    """

    def __init__(
        self, settings: KafkaConnection, operation: Literal["Read", "Write"], group: str | None = None, transactional_id: str | None = None
    ) -> None:
        self.topics: set[str] = set()
        self.group = group
        self._settings = settings
        self._operation = operation
        self._transactional_id = transactional_id or ""

    def lacking(self, kind: Kind, names: Iterable[str] = ()) -> Refused:
        """The refusal that names the right and how to grant it. `names` are the topics, where they are known; else it may be any."""
        if kind == "group":
            return self._refused("be a member of the group", [self.group or ""], "Read", f"--group {self.group}")
        if kind == "transactional-id":
            name = self._transactional_id
            prefix = name.rpartition("-")[0]  # what follows may be another the next time
            option = f"--transactional-id {prefix}- --resource-pattern-type prefixed" if prefix else f"--transactional-id {name}"
            return self._refused("use the transactional id", [name], "Write", option)
        topics = sorted(set(names) & self.topics or self.topics or names)
        options = " ".join(f"--topic {topic}" for topic in topics or ["TOPIC"])
        if kind == "cluster":  # who may write to no topic may not even begin
            options += " (before Kafka 3.0 also --operation IdempotentWrite --cluster)"
        verb = "read" if self._operation == "Read" else "write to"
        what = "any topic" if not topics else f"the topic{'s' if len(topics) > 1 else ''}"
        return self._refused(f"{verb} {what}", topics, self._operation, options)

    def _refused(self, doing: str, names: Sequence[str], operation: str, options: str) -> Refused:
        grant = f"kafka-acls.sh --add --allow-principal '{self._user}' --operation {operation} {options}"
        return Refused(f"{self._user} has no right to {doing} {', '.join(names)}".rstrip(), f"grant it: {grant}")

    @property
    def _user(self) -> str:
        """As the brokers call it, but for that of a certificate, whose name they may map."""
        if uses_password(self._settings):
            return f"User:{self._settings.username}"
        return "User:ANONYMOUS" if self._settings.certificate_file is None else f"User:(the name in {self._settings.certificate_file})"


# --- what is wrong -----------------------------------------------------------------------------------------------------------------------


def _problems(settings: KafkaConnection) -> Iterator[Problem]:
    yield from _about_passwords(settings)
    yield from _about_certificates(settings)


def _about_passwords(settings: KafkaConnection) -> Iterator[Problem]:
    if not uses_password(settings):
        given = [name for name in ("username", "password", "password_file") if getattr(settings, name) is not None]
        given += ["mechanism"] if "mechanism" in settings.model_fields_set else []
        for name in given:
            secure = "sasl_ssl" if settings.security == "ssl" else "sasl_ssl (or sasl_plaintext)"
            yield Problem(name, f"is not used with security: {settings.security}; set security: {secure}, or remove it")
        return
    if not settings.username:
        yield Problem("username", f"is needed with security: {settings.security}, and missing")
    if settings.password is not None and settings.password_file is not None:
        yield Problem("password", "stands beside password_file; remove one of the two")
        return
    if settings.password is None and settings.password_file is None:
        yield Problem("password_file", f"is needed with security: {settings.security}, and missing; or set password in the environment")
        return
    found = _secret("password", None if settings.password is None else settings.password.get_secret_value(), settings.password_file)
    if isinstance(found, Problem):
        yield found


def _about_certificates(settings: KafkaConnection) -> Iterator[Problem]:
    if not uses_tls(settings):
        for name in ("ca_file", "certificate_file", "key_file", "key_password", "key_password_file"):
            if getattr(settings, name) is not None:
                secure = "sasl_ssl" if uses_password(settings) else "ssl (or sasl_ssl)"
                yield Problem(name, f"is not used with security: {settings.security}; set security: {secure}, or remove it")
        return
    if settings.certificate_file is not None and settings.key_file is None:
        yield Problem("key_file", "is needed with certificate_file, and missing; it may be the same file, if that holds the key too")
    if settings.key_file is not None and settings.certificate_file is None:
        yield Problem("certificate_file", "is needed with key_file, and missing")
    locked = [name for name in ("key_password", "key_password_file") if getattr(settings, name) is not None]
    if locked and settings.key_file is None:
        yield Problem(locked[0], "is not used without key_file; set certificate_file and key_file, or remove it")
    if len(locked) > 1:
        yield Problem("key_password", "stands beside key_password_file; remove one of the two")
        return
    yield from _context(settings)[1]


def _context(settings: KafkaConnection) -> tuple[ssl.SSLContext, list[Problem]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    found = []
    if settings.ca_file is None:
        context.load_default_certs()
    elif unreadable := _unreadable("ca_file", settings.ca_file):
        found.append(unreadable)
    else:
        try:
            context.load_verify_locations(settings.ca_file)
        except ssl.SSLError as error:
            found.append(Problem("ca_file", f"expected certificates in PEM form, found in {settings.ca_file}: {error.reason or error}"))
    if settings.certificate_file is not None and settings.key_file is not None:
        found += _load_own(context, settings, settings.certificate_file, settings.key_file)
    return context, found


def _load_own(context: ssl.SSLContext, settings: KafkaConnection, certificate: Path, key: Path) -> list[Problem]:
    try:
        secret = key_password(settings)
    except ConfigError as error:
        unreadable: list[Problem | None] = [*error.problems]
    else:
        unreadable = []
    unreadable += [_unreadable("certificate_file", certificate), _unreadable("key_file", key)]
    if found := [problem for problem in unreadable if problem is not None]:
        return found
    try:
        context.load_cert_chain(certificate, key, secret or "")  # of a key with a password OpenSSL would ask on the terminal for None
    except ssl.SSLError as error:
        return [_why_not(error, certificate, key, secret is not None)]
    return []


def _why_not(error: ssl.SSLError, certificate: Path, key: Path, unlocked: bool) -> Problem:
    text = key.read_bytes()
    if error.reason == "KEY_VALUES_MISMATCH":
        return Problem(
            "key_file", f"expected the key of the certificate in {certificate}, found another in {key}; set both to the same pair"
        )
    if b"-----BEGIN CERTIFICATE-----" not in certificate.read_bytes():
        return Problem("certificate_file", f"expected a certificate in PEM form, found none in {certificate}; convert it with openssl")
    if b"PRIVATE KEY-----" not in text:
        return Problem("key_file", f"expected a private key in PEM form, found none in {key}; convert it with openssl")
    if b"ENCRYPTED" in text and not unlocked:
        return Problem("key_password_file", f"is needed, as the key in {key} has a password; or set key_password in the environment")
    if b"ENCRYPTED" in text:
        return Problem("key_password", f"expected the password of the key in {key}, found that it does not open it; correct it")
    return Problem(
        "key_file", f"expected a certificate and its key, found that {certificate} and {key} can't be used: {error.reason or error}"
    )


def _secret(name: str, given: str | None, file: Path | None) -> str | Problem:
    if file is None:
        return given or Problem(name, "is empty; set it, or the file that holds it")
    if unreadable := _unreadable(f"{name}_file", file):
        return unreadable
    try:
        text = file.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        found = f"byte {error.object[error.start]:#x} at {error.start}"
        return Problem(f"{name}_file", f"expected a file with the password as UTF-8 text, found {found}; check the path")
    return text or Problem(f"{name}_file", f"expected a file with the password, found {file} empty; write it there")


def _or_raise(name: str, found: str | Problem) -> str:
    if isinstance(found, Problem):
        raise ConfigError([found])
    return found


def _unreadable(name: str, file: Path) -> Problem | None:
    try:
        with file.open("rb"):
            return None
    except OSError as error:
        return Problem(
            name, f"expected a file that can be read, found {file}: {error.strerror}; check the path and the rights of this user"
        )


@cache
def _warn_of_the_network(bootstrap: str) -> None:
    log.warning("the password for %s goes over the network in the clear; set security: sasl_ssl, or a mechanism SCRAM-...", bootstrap)


@cache
def _warn_of(file: Path) -> None:
    log.warning("%s holds a secret, and every user of this machine can read it; take that right away: chmod o-r %s", file, file)


# --- logs --------------------------------------------------------------------------------------------------------------------------------


def _not_the_wire(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


def _keep_the_wire_out_of_the_logs() -> None:
    """kafka-python writes each request to its debug log, as it is and as bytes; the password of PLAIN is one of them."""
    for name in WIRE_LOGS:
        logging.getLogger(name).addFilter(_not_the_wire)
