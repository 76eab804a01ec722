"""What is wrong with the settings of a secure connection is told before anything connects, all of it at once, and never with a secret."""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest

import streamfuse
from streamfuse.assembly import build
from streamfuse.config import KafkaConnection
from streamfuse.errors import ConfigError
from streamfuse.kafka import examination
from streamfuse.kafka.examination import Watch, examine
from streamfuse.kafka.security import Rights, key_password, password, require_sound, tls_context
from streamfuse.kafka.transport import Passing, Refused
from streamfuse.loading import parse_config
from tests.kafka.secure import KEY_PASSWORD, PASSWORD, Certificates

TLS = {"security": "ssl"}
LOGIN = {"security": "sasl_plaintext", "username": "room"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates") / "made")


def problems(**settings: object) -> dict[str, str]:
    try:
        require_sound(KafkaConnection.model_validate(settings))
    except ConfigError as error:
        return {problem.path: problem.message for problem in error.problems}
    return {}


# --- contradictions ----------------------------------------------------------------------------------------------------------------------


def test_sound_settings_pass(made: Certificates) -> None:
    pair = {"ca_file": made.ca, "certificate_file": made.certificate, "key_file": made.key}
    for settings in ({}, TLS, {**TLS, **pair}, {**LOGIN, "password": PASSWORD}, {**LOGIN, **pair, "security": "sasl_ssl", "password": "x"}):
        assert problems(**settings) == {}


@pytest.mark.parametrize("security", ["sasl_plaintext", "sasl_ssl"])
def test_logging_in_needs_username_and_password(security: str) -> None:
    assert problems(security=security) == {
        "username": f"is needed with security: {security}, and missing",
        "password_file": f"is needed with security: {security}, and missing; or set password in the environment",
    }


@pytest.mark.parametrize("security", ["plaintext", "ssl"])
def test_a_password_without_logging_in_is_told_and_not_passed_over(security: str) -> None:
    found = problems(security=security, username="room", password=PASSWORD, mechanism="PLAIN")
    assert found.keys() == {"username", "password", "mechanism"}
    assert found["password"].startswith(f"is not used with security: {security}; set security: sasl_ssl")


def test_certificates_without_tls_are_told_and_not_passed_over(made: Certificates) -> None:
    found = problems(ca_file=made.ca, certificate_file=made.certificate, key_password="x")
    assert found.keys() == {"ca_file", "certificate_file", "key_password"}
    assert found["ca_file"] == "is not used with security: plaintext; set security: ssl (or sasl_ssl), or remove it"
    found = problems(**LOGIN, password=PASSWORD, ca_file=made.ca)
    assert found == {"ca_file": "is not used with security: sasl_plaintext; set security: sasl_ssl, or remove it"}


def test_certificate_and_key_go_together(made: Certificates) -> None:
    assert "it may be the same file" in problems(**TLS, certificate_file=made.certificate)["key_file"]
    assert problems(**TLS, key_file=made.key) == {"certificate_file": "is needed with key_file, and missing"}
    assert "is not used without key_file" in problems(**TLS, key_password="x")["key_password"]


def test_a_secret_is_given_once(made: Certificates, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hush")
    assert "remove one" in problems(**LOGIN, password=PASSWORD, password_file=file)["password"]
    pair = {"certificate_file": made.certificate, "key_file": made.locked_key}
    assert "remove one" in problems(**TLS, **pair, key_password="x", key_password_file=file)["key_password"]


def test_everything_is_told_at_once() -> None:
    nowhere = Path("/nowhere")
    settings = {
        "password_file": nowhere,
        "ca_file": nowhere,
        "certificate_file": nowhere,
        "key_file": nowhere,
        "key_password_file": nowhere,
    }
    found = problems(security="sasl_ssl", **settings)
    assert found.keys() == {"username", *settings}
    assert found["ca_file"] == (
        "expected a file that can be read, found /nowhere: No such file or directory; check the path and the rights of this user"
    )


def test_check_tells_each_with_its_place() -> None:
    text = """
    sources: [{type: kafka, topics: {video: v}, security: ssl, ca_file: /nowhere, username: room}]
    sync: {streams: {video: {}}}
    sinks: [{type: kafka, security: sasl_ssl, password: hush}]
    dead_letters: {type: kafka, ca_file: /nowhere}
    """
    with pytest.raises(ConfigError) as found:
        build(parse_config(text, {}))
    assert {"sources.0.ca_file", "sources.0.username", "sinks.0.username", "dead_letters.ca_file"} <= {p.path for p in found.value.problems}


def test_a_subscription_tells_them_before_it_connects() -> None:
    with pytest.raises(ConfigError, match=r"username: is not used with security: plaintext"):
        streamfuse.subscribe("localhost:9092", username="room", password=PASSWORD)


# --- files -------------------------------------------------------------------------------------------------------------------------------


def test_a_file_that_is_a_folder_is_told(tmp_path: Path) -> None:
    assert "Is a directory" in problems(**TLS, ca_file=tmp_path)["ca_file"]


def test_what_holds_no_certificate_is_told(made: Certificates, tmp_path: Path) -> None:
    other = tmp_path / "keystore.jks"
    other.write_bytes(b"\xfe\xed\xfe\xed\x00\x00")
    assert "expected certificates in PEM form" in problems(**TLS, ca_file=other)["ca_file"]
    found = problems(**TLS, certificate_file=other, key_file=made.key)
    assert "expected a certificate in PEM form, found none" in found["certificate_file"]
    found = problems(**TLS, certificate_file=made.certificate, key_file=other)
    assert "expected a private key in PEM form, found none" in found["key_file"]


def test_a_key_of_another_certificate_is_told(made: Certificates) -> None:
    found = problems(**TLS, certificate_file=made.certificate, key_file=made.stranger_key)
    assert "expected the key of the certificate in" in found["key_file"]


def test_a_locked_key_needs_its_password(made: Certificates, tmp_path: Path) -> None:
    file = tmp_path / "key-password"
    file.write_text(f"{KEY_PASSWORD}\n")
    pair = {**TLS, "certificate_file": made.certificate, "key_file": made.locked_key}
    assert "is needed, as the key in" in problems(**pair)["key_password_file"]
    assert "does not open it" in problems(**pair, key_password="wrong")["key_password"]
    assert problems(**pair, key_password=KEY_PASSWORD) == {}
    assert problems(**pair, key_password_file=file) == {}
    assert key_password(KafkaConnection.model_validate({**pair, "key_password_file": file})) == KEY_PASSWORD


def test_an_empty_password_is_none(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("\n")
    assert "empty" in problems(**LOGIN, password_file=file)["password_file"]
    assert "empty" in problems(**LOGIN, password="")["password"]


def test_a_password_file_may_end_with_a_line_break_and_nothing_else_is_taken_off(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b" hush \r\n")
    assert password(KafkaConnection.model_validate({**LOGIN, "password_file": file})) == " hush "


def test_a_password_file_that_is_no_text_is_told_without_its_content(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"hush\xff")
    assert problems(**LOGIN, password_file=file) == {
        "password_file": "expected a file with the password as UTF-8 text, found byte 0xff at 4; check the path"
    }


def test_secrets_that_everybody_can_read_are_warned_of_once(made: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, key = tmp_path / "password", tmp_path / "key"
    file.write_text(PASSWORD)
    key.write_bytes(made.key.read_bytes())
    file.chmod(0o644)
    key.chmod(0o640)
    settings = {"security": "sasl_ssl", "username": "room", "password_file": file, "certificate_file": made.certificate, "key_file": key}
    for _ in range(2):
        assert problems(**settings) == {}
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"{file} holds a secret, and every user of this machine can read it; take that right away: chmod o-r {file}"
    ]  # the key is for its group, as orchestrators do it


def test_a_password_in_the_clear_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert problems(**LOGIN, password=PASSWORD, bootstrap="clear:1") == {}
    assert caplog.text == ""
    assert problems(**LOGIN, password=PASSWORD, bootstrap="clear:1", mechanism="PLAIN") == {}
    assert "the password for clear:1 goes over the network in the clear" in caplog.text


# --- TLS ---------------------------------------------------------------------------------------------------------------------------------


def test_certificates_and_host_names_are_verified() -> None:
    context = tls_context(KafkaConnection(security="ssl"))
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_broker_with_old_tls_only_is_refused(made: Certificates) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(made.broker)

    def greet(link: socket.socket) -> None:
        context.wrap_socket(link, server_side=True).close()

    with answering(greet) as address, pytest.raises(Refused, match=r"offers no TLS 1\.2 or newer"):
        examine(KafkaConnection(bootstrap=address, security="ssl", ca_file=made.ca))


# --- what is no refusal ------------------------------------------------------------------------------------------------------------------


@contextmanager
def answering(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """The address of somebody who answers each connection so; whatever goes wrong with one is passed over."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    link, _ = server.accept()
                except OSError:
                    return
                with link, suppress(OSError):
                    answer(link)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"localhost:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("security", ["plaintext", "ssl"])
def test_a_connection_that_ends_without_a_word_may_be_a_broker_that_restarts(security: str) -> None:
    with answering(lambda link: None) as address, pytest.raises(Passing):
        examine(KafkaConnection.model_validate({"bootstrap": address, "security": security}))


@pytest.mark.parametrize("security", ["plaintext", "ssl"])
def test_silence_may_be_a_broker_that_is_busy(security: str) -> None:
    settings = {"bootstrap": "", "security": security, "connect_timeout": "200ms"}
    over = threading.Event()
    with answering(lambda link: over.wait(10)) as address:
        try:
            with pytest.raises(Passing, match=r"no answer for 0\.2 s"):
                examine(KafkaConnection.model_validate({**settings, "bootstrap": address}))
        finally:
            over.set()


def test_a_broker_that_knows_no_passwords_need_not_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "PROBE_TIMEOUT", 0.1)
    over = threading.Event()

    def answer_the_first(link: socket.socket) -> None:
        link.recv(1000)
        link.sendall(struct.pack(">iihi", 10, 1, 0, 0))  # length, correlation id, no error, no versions
        over.wait(10)

    with answering(answer_the_first) as address:
        try:
            examine(KafkaConnection(bootstrap=address))
        finally:
            over.set()


def test_what_speaks_another_protocol_is_told() -> None:
    with answering(speak_http) as address, pytest.raises(Refused, match=r"does not speak Kafka .*correct the port in bootstrap"):
        examine(KafkaConnection(bootstrap=address))


def test_a_broker_that_takes_us_makes_up_for_one_that_does_not(caplog: pytest.LogCaptureFixture) -> None:
    def greet(link: socket.socket) -> None:
        link.recv(1000)
        link.sendall(struct.pack(">iihi", 10, 1, 0, 0))

    with answering(speak_http) as wrong, answering(greet) as right:
        examine(KafkaConnection(bootstrap=f"localhost:1,{wrong},{right}"))
    assert "does not speak Kafka" in caplog.text


def test_one_refusal_counts_more_than_many_that_are_away() -> None:
    with answering(speak_http) as wrong, pytest.raises(Refused, match="does not speak Kafka"):
        examine(KafkaConnection(bootstrap=f"localhost:1,{wrong},localhost:2"))


@pytest.mark.parametrize("address", ["local..host:9092", "localhost:99999"])
def test_what_is_no_address_is_told(address: str) -> None:
    with pytest.raises(Refused, match=r"is no address .*write bootstrap as host:port"):
        examine(KafkaConnection(bootstrap=address))


def speak_http(link: socket.socket) -> None:
    link.recv(1000)
    link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_all_brokers_are_named_where_none_answers() -> None:
    with pytest.raises(Passing, match=r"localhost:1: .*refused; localhost:2: .*refused"):
        examine(KafkaConnection(bootstrap="localhost:1, localhost:2"))


# --- later -------------------------------------------------------------------------------------------------------------------------------


def test_a_refusal_that_stands_is_told_and_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "BETWEEN_TRIES", 0.01)
    called = threading.Event()
    with answering(speak_http) as address:
        watch = Watch(KafkaConnection(bootstrap=address))
        watch.on_refusal(called.set)
        watch.check()
        watch.failed()
        assert called.wait(10)
    with pytest.raises(Refused, match="does not speak Kafka"):
        watch.check()


def test_a_broker_that_refuses_for_a_moment_only_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "BETWEEN_TRIES", 0.01)
    links = count()
    ended = threading.Event()

    def refuse_at_first(link: socket.socket) -> None:
        if next(links) < 2:  # the second asks whether it speaks TLS
            speak_http(link)
        else:
            ended.set()

    with answering(refuse_at_first) as address:
        watch = Watch(KafkaConnection(bootstrap=address))
        watch.failed()
        assert ended.wait(10)
        wait_until(lambda: not watch.examining)
    watch.check()


def test_a_broker_that_is_away_is_no_refusal() -> None:
    watch = Watch(KafkaConnection(bootstrap="localhost:1"))
    watch.failed()
    wait_until(lambda: "refused" in watch.trouble)
    watch.check()


def test_the_broker_that_failed_is_examined_and_not_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "BETWEEN_TRIES", 0.01)
    with answering(speak_http) as address:
        watch = Watch(KafkaConnection(bootstrap="localhost:1"))
        watch.failed(address)
        wait_until(lambda: watch.refusal is not None)


def test_after_the_client_was_closed_nothing_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(speak_http) as address:
        watch = Watch(KafkaConnection(bootstrap=address))
        watch.on_refusal(lambda: pytest.fail("expected no call"))
        watch.failed()
        watch.end()
        wait_until(lambda: not watch.examining)
    assert watch.refusal is None


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- rights ------------------------------------------------------------------------------------------------------------------------------


def test_a_missing_right_is_told_with_the_command_that_grants_it() -> None:
    rights = Rights(KafkaConnection(security="sasl_ssl", username="room"), "Read", group="readers")
    rights.topics.update(("video", "audio"))
    assert str(rights.lacking("topic", ["audio"])) == (
        "User:room has no right to read the topic audio;"
        " grant it: kafka-acls.sh --add --allow-principal 'User:room' --operation Read --topic audio"
    )
    assert str(rights.lacking("topic")).endswith("--operation Read --topic audio --topic video")
    assert "be a member of the group readers" in str(rights.lacking("group"))
    assert str(Rights(KafkaConnection(), "Write").lacking("cluster")).startswith(
        "User:ANONYMOUS has no right to write to any topic; grant it:"
    )


def test_the_right_to_a_transactional_id_is_granted_for_the_next_start_too() -> None:
    rights = Rights(KafkaConnection(), "Write", transactional_id="group-0815")
    assert str(rights.lacking("transactional-id")).endswith("--transactional-id group- --resource-pattern-type prefixed")


# --- logs --------------------------------------------------------------------------------------------------------------------------------


def test_what_goes_over_the_wire_is_not_logged_once_a_password_is_used(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    password(KafkaConnection.model_validate({**LOGIN, "password": PASSWORD}))
    for name in ("kafka.net.connection", "kafka.protocol.parser"):
        logging.getLogger(name).debug("Request 1: %r", PASSWORD.encode())
        logging.getLogger(name).warning("a warning of %s", name)
    assert PASSWORD not in caplog.text
    assert "a warning of kafka.protocol.parser" in caplog.text
