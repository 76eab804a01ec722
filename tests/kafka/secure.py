"""A real Apache Kafka that trusts nobody: TLS, SASL, client certificates, ACLs, and certificates of every kind that goes wrong."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.kafka.broker import Broker, free_ports
from tests.kafka.proxy import Proxy

PASSWORD = "rubber-duck-4711"  # of everybody who does the right thing
KEY_PASSWORD = "paper-boat-0815"
PLAIN_USER = "walker"  # users of PLAIN stand in the broker's own configuration
RIGHTS = {right.name.lower(): right for right in ACLOperation}

PROPERTIES = {
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL,PROXIED:SASL_SSL,OPEN:SASL_PLAINTEXT,"
    "MUTUAL:SSL,EXPIRED:SSL,ELSEWHERE:SSL",
    "sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN",
    "broker.session.timeout.ms": "3000",  # after a kill, the controller holds it for alive for so long
    "broker.heartbeat.interval.ms": "500",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",  # who comes by the plaintext listener
    "listener.name.open.sasl.enabled.mechanisms": "SCRAM-SHA-512",
    "listener.name.mutual.ssl.client.auth": "required",
    "listener.name.mutual.ssl.principal.mapping.rules": "RULE:^.*CN=([a-z0-9-]+).*$/$1/",
}


class Certificates:
    """Two authorities, and what they have signed. Those for brokers are a key and its chain in one file, as Kafka's PEM keystore wants it;
    those for clients are a certificate and a key."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        ours, theirs = trustme.CA(), trustme.CA()
        self.ca, self.other_ca = folder / "ca.pem", folder / "other-ca.pem"
        ours.cert_pem.write_to_path(str(self.ca))
        theirs.cert_pem.write_to_path(str(self.other_ca))
        yesterday = datetime.now(UTC) - timedelta(days=1)
        self.broker = self._pair("broker", ours.issue_cert("localhost", "127.0.0.1"))
        self.elsewhere = self._pair("elsewhere", ours.issue_cert("elsewhere.example"))
        expired = ours.issue_cert("localhost", "127.0.0.1", not_before=yesterday - timedelta(days=1), not_after=yesterday)
        self.expired = self._pair("expired", expired)
        late = ours.issue_cert("client@example.org", common_name="client", not_before=yesterday - timedelta(days=1), not_after=yesterday)
        self.late, self.late_key = self._files("late", late)
        client = ours.issue_cert("client@example.org", common_name="client")
        self.certificate, self.key = self._files("client", client)
        self.locked_key = self._key("locked", client, BestAvailableEncryption(KEY_PASSWORD.encode()))
        self.stranger, self.stranger_key = self._files("stranger", theirs.issue_cert("stranger@example.org", common_name="stranger"))

    def _pair(self, name: str, made: trustme.LeafCert) -> Path:
        certificate, key = self._files(name, made)
        both = self._folder / f"{name}-both.pem"
        both.write_text(key.read_text() + certificate.read_text())
        return both

    def _files(self, name: str, made: trustme.LeafCert) -> tuple[Path, Path]:
        certificate = self._folder / f"{name}.pem"
        certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        return certificate, self._key(name, made, NoEncryption())

    def _key(self, name: str, made: trustme.LeafCert, encryption: KeySerializationEncryption) -> Path:
        file = self._folder / f"{name}.key"
        key = load_pem_private_key(made.private_key_pem.bytes(), None)
        file.touch(mode=0o600)
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))  # Kafka reads no other form
        return file


class SecureBroker(Broker):
    """`bootstrap` is for tests alone: plaintext, and everything is allowed there.

    `secure` (TLS, SASL), `mutual` (TLS with client certificates), `open` (SASL SCRAM-SHA-512 without TLS), `expired` and `elsewhere` (TLS,
    with an expired certificate and with that of another host) are for the clients under test. `proxied` is as `secure`, with `proxy` in
    between, whose target `behind_proxy` is.
    """

    def __init__(self, home: Path, folder: Path) -> None:
        self._stack = ExitStack()
        self.proxy = self._stack.enter_context(Proxy())
        self.certificates = Certificates(folder / "certificates")
        controller, secure, self.behind_proxy, open_, mutual, expired, elsewhere = free_ports(7)
        ports = {
            "SECURE": secure,
            "PROXIED": self.behind_proxy,
            "OPEN": open_,
            "MUTUAL": mutual,
            "EXPIRED": expired,
            "ELSEWHERE": elsewhere,
        }
        self.secure, self.open, self.mutual, self.expired, self.elsewhere = (
            f"localhost:{port}" for port in (secure, open_, mutual, expired, elsewhere)
        )
        self.proxied = f"localhost:{self.proxy.port}"
        self.proxy.target = self.behind_proxy
        store = dict.fromkeys(("SECURE", "PROXIED", "MUTUAL"), self.certificates.broker)
        store |= {"EXPIRED": self.certificates.expired, "ELSEWHERE": self.certificates.elsewhere}
        properties = dict(PROPERTIES)
        for name, file in store.items():
            prefix = f"listener.name.{name.lower()}"
            properties |= {
                f"{prefix}.ssl.keystore.type": "PEM",
                f"{prefix}.ssl.keystore.location": str(file),
                f"{prefix}.ssl.truststore.type": "PEM",
                f"{prefix}.ssl.truststore.location": str(self.certificates.ca),
            }
        for name in ("secure", "proxied", "open"):
            for mechanism in ("scram-sha-256", "scram-sha-512"):
                module = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                properties[f"listener.name.{name}.{mechanism}.sasl.jaas.config"] = module
            module = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{PLAIN_USER}="{PASSWORD}";'
            properties[f"listener.name.{name}.plain.sasl.jaas.config"] = module
        super().__init__(home, folder, voters={1: controller})
        listeners = {"PLAINTEXT": self.port, **ports}
        properties["listeners"] = ",".join(
            [*(f"{name}://127.0.0.1:{port}" for name, port in listeners.items()), f"CONTROLLER://127.0.0.1:{controller}"]
        )
        advertised = {**{name: f"localhost:{port}" for name, port in ports.items()}, "PLAINTEXT": self.bootstrap, "PROXIED": self.proxied}
        properties["advertised.listeners"] = ",".join(f"{name}://{address}" for name, address in advertised.items())
        with self._properties.open("a") as properties_file:  # of two lines for a property the last counts
            properties_file.writelines(f"{name}={value}\n" for name, value in properties.items())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        super().__exit__(kind, error, trace)
        self._stack.close()

    def set_password(self, user: str, password: str = PASSWORD) -> None:
        """Makes the user where there is none, for both SCRAM mechanisms."""
        with self.admin() as admin:
            upserts = [
                UserScramCredentialUpsertion(user, mechanism, password)
                for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
            ]
            for upsert in upserts:  # one request takes a user once only
                assert admin.alter_user_scram_credentials([upsert]) == {user: None}

    def allow(self, user: str, kind: str, name: str, rights: Iterable[str], *, prefixed: bool = False) -> None:
        """`kind` is `topic`, `group`, `transactional_id` or `cluster`; `rights` are `read`, `write`, `describe` ..."""
        pattern = ACLResourcePatternType.PREFIXED if prefixed else ACLResourcePatternType.LITERAL
        resource = ResourcePattern(ResourceType[kind.upper()], name, pattern)
        with self.admin() as admin:
            made = admin.create_acls([ACL(f"User:{user}", "*", RIGHTS[right], ACLPermissionType.ALLOW, resource) for right in rights])
        assert made["failed"] == []

    def forbid(self, user: str, kind: str, name: str) -> None:
        """Takes away every right that `allow` has given for it."""
        resource = ResourcePatternFilter(ResourceType[kind.upper()], name, ACLResourcePatternType.ANY)
        with self.admin() as admin:
            admin.delete_acls([ACLFilter(f"User:{user}", "*", ACLOperation.ANY, ACLPermissionType.ANY, resource)])
