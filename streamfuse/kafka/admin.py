"""What brokers answer to a look at topics, or to their creation: what it means, and what mends it. The same for every client."""

from __future__ import annotations

from streamfuse.config import KafkaConnection
from streamfuse.kafka.transport import NewTopic, Passing, Refused, TransportError

REQUEST = 10.0  # seconds; a topic of many partitions takes some
UNKNOWN_TOPIC, REQUEST_TIMED_OUT, INVALID_TOPIC, TOPIC_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED = 3, 7, 17, 29, 31
ALREADY_EXISTS, INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR, INVALID_CONFIG, NOT_CONTROLLER = 36, 37, 38, 40, 41
PASSING = (5, 6, REQUEST_TIMED_OUT, 13, 14, 15, 16, NOT_CONTROLLER, 89)  # a leader, coordinator or controller on the move; throttled


def not_seen(settings: KafkaConnection, topic: str, code: int, said: str) -> TransportError:
    """Why a topic can't be looked at."""
    if code in (TOPIC_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED):
        return Refused(
            f"{user(settings)} has no right to see the topic {topic}",
            f"grant it: kafka-acls.sh --add --allow-principal '{user(settings)}' --operation Describe --topic {topic}",
        )
    if code == INVALID_TOPIC:
        return Refused(f"{topic!r} is no name for a topic: {said}", "choose one of letters, digits, '.', '_' and '-'")
    return Passing(f"topic {topic}: {said}") if code in PASSING else Refused(f"topic {topic}: {said}")


def not_created(settings: KafkaConnection, topic: NewTopic, code: int, said: str) -> TransportError | None:
    """Why a topic was not created; None where it is there already."""
    if code == ALREADY_EXISTS:
        return None
    if code in (TOPIC_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED):
        return Refused(
            f"{user(settings)} has no right to create the topic {topic.name}",
            f"grant it: kafka-acls.sh --add --allow-principal '{user(settings)}' --operation Create --topic {topic.name}; or create it, and"
            " set topics: wait",
        )
    if code == INVALID_REPLICATION_FACTOR:
        return Refused(f"topic {topic.name}: {said}", "set topics.replication to no more than there are brokers")
    if code == INVALID_PARTITIONS:
        return Refused(f"topic {topic.name}: {said}", "set topics.partitions")
    return not_seen(settings, topic.name, code, said)


def user(settings: KafkaConnection) -> str:
    """As access lists name it, but for that of a certificate."""
    return f"User:{settings.username or 'ANONYMOUS'}"
