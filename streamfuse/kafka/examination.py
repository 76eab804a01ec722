"""Goes the way to a broker step by step, as a client does, to say at which step it ends and why.

The clients keep that to themselves: kafka-python raises a time-out, librdkafka says "certificate verify failed" of a certificate that is
expired, of another host or of an unknown authority, and neither tells a port without TLS from a broker that is away. Only what the other
side has positively said is a refusal; a connection that ends without a word may be a broker that restarts.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import kafka.errors
from kafka.net.sasl import get_sasl_mechanism
from kafka.protocol.metadata import ApiVersionsRequest
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from streamfuse.config import KafkaConnection
from streamfuse.errors import ConfigError
from streamfuse.kafka.client import CLIENT_ID, DEFAULT_PORT
from streamfuse.kafka.security import password, tls_context, uses_password, uses_tls
from streamfuse.kafka.transport import Passing, Refused, TransportError

PROBE_TIMEOUT = 2.0
TRIES = 3
BETWEEN_TRIES = 1.0
LONGEST_ANSWER = 1024 * 1024
UNSUPPORTED_SASL_MECHANISM, ILLEGAL_SASL_STATE, SASL_AUTHENTICATION_FAILED = 33, 34, 58
EXPIRED, NOT_YET_VALID, OTHER_NAMES = 10, 9, (62, 64)  # OpenSSL's X509_V_ERR_...
OUR_CERTIFICATE = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE")  # parts of OpenSSL's names of alerts
NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")

log = logging.getLogger(__name__)


def examine(settings: KafkaConnection, addresses: str | None = None) -> None:
    """Returns when one of the brokers takes us. `addresses` are those of `bootstrap` where not given.

    Blocks for up to `connect_timeout` for each that does not answer. Raises Refused where none takes us and one says so, Passing where none
    says anything.
    """
    patience = settings.connect_timeout / 1e9
    refusal: Refused | None = None
    silent = []
    for address in (addresses or settings.bootstrap).split(","):
        try:
            _Approach(settings, address.strip(), patience).go()
        except Refused as error:
            refusal = refusal or error
            patience = min(patience, PROBE_TIMEOUT)  # a broker that has spoken is not to wait for one that is away
        except Passing as error:
            silent.append(f"{address.strip()}: {error}")
        except (OverflowError, ValueError) as error:
            raise Refused(f"{address.strip()} is no address ({error})", "write bootstrap as host:port, comma separated") from error
        else:
            if refusal is not None:
                log.warning("%s; another broker takes us", refusal)
            return
    raise refusal or Passing("; ".join(silent))


class Watch:
    """Finds out, on a thread of its own, why a client can't connect any more.

    `trouble` is what it found last; `refusal` is set when waiting won't help, and it is not `examining` any more. A broker that starts may
    refuse for a moment what it takes when it is all there, so that a refusal counts when it has stood for seconds.
    """

    def __init__(self, settings: KafkaConnection) -> None:
        self.refusal: Refused | None = None
        self.trouble = ""
        self._settings = settings
        self._lock = threading.Lock()
        self.examining = False
        self._calls: list[Callable[[], None]] = []
        self._ended = threading.Event()

    def failed(self, address: str | None = None) -> None:
        """The client could not connect to this broker, or lost its connection. Returns at once; may be called from any thread."""
        with self._lock:
            if self.examining or self.refusal is not None or self._ended.is_set():
                return
            self.examining = True
        threading.Thread(target=self._examine, args=(address,), name="examine a broker", daemon=True).start()

    def on_refusal(self, call: Callable[[], None]) -> None:
        """Have it called when there is one, on this thread of ours; at once where there is one already."""
        with self._lock:
            self._calls.append(call)
            known = self.refusal is not None
        if known:
            call()

    def check(self) -> None:
        """Raises the refusal, if there is one."""
        if self.refusal is not None:
            raise self.refusal

    def end(self) -> None:
        """The client is closed."""
        self._ended.set()

    def _examine(self, address: str | None) -> None:
        found: TransportError | None = None
        for left in reversed(range(TRIES)):
            found = _found(self._settings, address)
            self.trouble = str(found or "")
            if self._ended.wait(BETWEEN_TRIES if left else 0.0) or not isinstance(found, Refused):
                break
            if left == TRIES - 1:
                log.warning("asked again in a moment: %s", found)
        with self._lock:
            self.examining = False
            if isinstance(found, Refused) and not self._ended.is_set():
                self.refusal = found
        if self.refusal is not None:
            for call in self._calls:
                call()


def _found(settings: KafkaConnection, address: str | None) -> TransportError | None:
    try:
        examine(settings, address)
    except TransportError as error:
        return error
    except ConfigError as error:
        return Refused(str(error), "correct it, and start again")
    return None


class _Approach:
    """To one broker, from the first connection up to where requests would follow."""

    def __init__(self, settings: KafkaConnection, address: str, patience: float) -> None:
        """`patience` in seconds."""
        self._settings = settings
        self._address = address
        self._patience = patience
        host, _, port = address.rpartition(":")
        self._host, self._port = (host.strip("[]"), int(port)) if host and port.isdigit() else (address.strip("[]"), DEFAULT_PORT)
        if not 0 < self._port < 2**16:
            raise ValueError("a port is a number up to 65535")

    def go(self) -> None:
        deadline = time.monotonic() + self._patience
        try:
            bare = _connect(self._host, self._port, deadline)
        except OSError as error:
            raise Passing(_told(error)) from error
        with bare:
            link = self._greet(bare, deadline)
            try:
                self._log_in(link)
            except (OSError, kafka.errors.KafkaError) as error:
                if uses_password(self._settings):
                    raise Passing(_told(error)) from error
            finally:
                link.close()

    def _greet(self, bare: socket.socket, deadline: float) -> _Link:
        """A broker that wants a certificate of ours says so only in answer to the first request."""
        context = tls_context(self._settings) if uses_tls(self._settings) else None
        try:
            bare.settimeout(_left(deadline))
            link = _Link(bare if context is None else context.wrap_socket(bare, server_hostname=self._host.rstrip(".")), deadline)
            try:
                link.ask(ApiVersionsRequest(version=0))
            except BaseException:
                link.close()
                raise
        except ssl.SSLError as error:
            self._explain_tls(error)
        except TimeoutError as error:
            raise Passing(f"no answer for {self._patience:g} s") from error
        except (OSError, kafka.errors.KafkaError) as error:
            self._explain_silence(error)
        return link

    def _log_in(self, link: _Link) -> None:
        settings = self._settings
        if not uses_password(settings):  # a broker may pass over what it has no use for
            link.deadline = min(link.deadline, time.monotonic() + PROBE_TIMEOUT)
        answer = link.ask(SaslHandshakeRequest(mechanism=settings.mechanism, version=1))
        offered = ", ".join(answer.mechanisms)
        if not uses_password(settings):
            if answer.error_code in (0, UNSUPPORTED_SASL_MECHANISM) and offered:
                secure = "sasl_ssl" if uses_tls(settings) else "sasl_plaintext"
                raise Refused(
                    f"{self._address} wants a username and a password ({offered})",
                    f"set security: {secure}, mechanism, username and password_file",
                )
            return
        if answer.error_code == ILLEGAL_SASL_STATE:
            secure = "ssl" if uses_tls(settings) else "plaintext"
            raise Refused(f"{self._address} takes no username and password", f"set security: {secure}, or correct the port in bootstrap")
        if answer.error_code:
            raise Refused(
                f"{self._address} does not take the mechanism {settings.mechanism}", f"set mechanism to what it offers: {offered}"
            )
        self._show_password(link)

    def _show_password(self, link: _Link) -> None:
        settings = self._settings
        sasl = get_sasl_mechanism(settings.mechanism)(**sasl_options(settings))
        while not sasl.is_done():
            answer = link.ask(SaslAuthenticateRequest(sasl.auth_bytes(), version=0))
            if answer.error_code == SASL_AUTHENTICATION_FAILED:
                raise Refused(
                    f"{self._address} does not accept the username {settings.username} with this password ({answer.error_message})",
                    f"correct username, password and mechanism, or give that user a password for {settings.mechanism} at the brokers",
                )
            if answer.error_code:
                raise Passing(f"{kafka.errors.for_code(answer.error_code).__name__}: {answer.error_message}")
            try:
                sasl.receive(answer.auth_bytes)
            except (KeyError, ValueError) as error:
                fix = "make sure that it is the broker that you mean"
                raise Refused(f"{self._address} does not know the password that it asks for ({error})", fix) from error

    def _explain_tls(self, error: ssl.SSLError) -> NoReturn:
        what, reason = f"the certificate of {self._address}", error.reason or ""
        if isinstance(error, ssl.SSLCertVerificationError):
            if error.verify_code == EXPIRED:
                raise Refused(f"{what} has expired", "renew it at the broker, or correct this machine's clock") from error
            if error.verify_code == NOT_YET_VALID:
                raise Refused(f"{what} is not valid yet", "correct this machine's clock, or the certificate") from error
            if error.verify_code in OTHER_NAMES:
                fix = "use a name that stands in it, in bootstrap and in the broker's advertised.listeners, or renew it with this name"
                raise Refused(f"{what} is for another host ({error.verify_message.rstrip('.')})", fix) from error
            fix = "set ca_file to the certificate of the authority that signed it"
            raise Refused(f"{what} is not trusted ({error.verify_message})", fix) from error
        if "PROTOCOL" in reason:
            raise Refused(f"{self._address} offers no TLS 1.2 or newer ({reason})", "update the broker") from error
        if "ALERT" in reason and any(sign in reason for sign in OUR_CERTIFICATE):
            if self._settings.certificate_file is None:
                raise Refused(f"{self._address} wants a certificate of ours ({reason})", "set certificate_file and key_file") from error
            fix = "set certificate_file and key_file to a pair that is valid and signed by an authority that the broker trusts"
            raise Refused(f"{self._address} does not accept our certificate ({reason})", fix) from error
        if reason in NO_TLS:
            raise self._speaks_no_tls() from error
        self._explain_silence(error)

    def _explain_silence(self, error: Exception) -> NoReturn:
        """It closed the connection, or did not answer as a broker does. Perhaps it answers in the other language."""
        if uses_tls(self._settings):
            if _answers_without_tls(self._host, self._port):
                raise self._speaks_no_tls() from error
        elif _answers_with_tls(self._host, self._port):
            secure = "sasl_ssl" if uses_password(self._settings) else "ssl"
            raise Refused(f"{self._address} speaks TLS", f"set security: {secure}, or correct the port in bootstrap") from error
        elif isinstance(error, kafka.errors.KafkaError):
            raise Refused(
                f"what answers at {self._address} does not speak Kafka ({_told(error)})", "correct the port in bootstrap"
            ) from error
        raise Passing(_told(error)) from error

    def _speaks_no_tls(self) -> Refused:
        secure = "sasl_plaintext" if uses_password(self._settings) else "plaintext"
        return Refused(f"{self._address} speaks no TLS", f"correct the port in bootstrap, or set security: {secure}")


class _Link:
    """Asks one request at a time. Raises OSError where the connection fails, KafkaError for what is no answer to it."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.deadline = deadline
        self._sock = sock
        self._protocol = KafkaProtocol(client_id=CLIENT_ID, receive_message_max_bytes=LONGEST_ANSWER)

    def ask(self, request: Any) -> Any:
        self._protocol.send_request(request)
        self._sock.settimeout(_left(self.deadline))
        self._sock.sendall(self._protocol.send_bytes())
        while True:
            self._sock.settimeout(_left(self.deadline))
            data = self._sock.recv(64 * 1024)
            if not data:
                raise ConnectionResetError("it closed the connection")
            for _, response in self._protocol.receive_bytes(data):
                return response

    def close(self) -> None:
        self._sock.close()


def sasl_options(settings: KafkaConnection) -> dict[str, str]:
    """Mechanism, username and password as kafka-python names them. In SCRAM a name's `=` and `,` are written otherwise (RFC 5802), which
    kafka-python leaves to us."""
    username = settings.username or ""
    if settings.mechanism != "PLAIN":
        username = username.replace("=", "=3D").replace(",", "=2C")
    return {"sasl_mechanism": settings.mechanism, "sasl_plain_username": username, "sasl_plain_password": password(settings)}


def _answers_without_tls(host: str, port: int) -> bool:
    deadline = time.monotonic() + PROBE_TIMEOUT
    try:
        with _connect(host, port, deadline) as sock:
            _Link(sock, deadline).ask(ApiVersionsRequest(version=0))
    except (OSError, kafka.errors.KafkaError):
        return False
    return True


def _answers_with_tls(host: str, port: int) -> bool:
    """Whom we speak with does not matter here, nothing is said."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with _connect(host, port, time.monotonic() + PROBE_TIMEOUT) as bare, context.wrap_socket(bare, server_hostname=host):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except OSError:
        return False


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    """The time that is left holds for each of its operations."""
    return socket.create_connection((host, port), _left(deadline))


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__
