"""Creates the topics that are missing when the daemon starts, for `topics: create`."""

from __future__ import annotations

import logging

import anyio
import anyio.to_thread

from streamfuse.config import Config, TopicsSettings
from streamfuse.errors import SourceError
from streamfuse.kafka.client import Patience
from streamfuse.kafka.clients import connect, make_admin
from streamfuse.kafka.topics import Cluster, Finding, clusters, create_missing, told
from streamfuse.kafka.transport import Admin, NewTopic, Passing, Refused

log = logging.getLogger(__name__)


async def create_topics(config: Config) -> None:
    """Returns when all topics of the config are there; waits for brokers that are away, and says so in the log.

    Raises SourceError where waiting won't help, such as a missing right. What does not fit of those that were there before is only told:
    it is for their owner to change, and for sources and sinks to refuse.
    """
    for cluster in clusters(config):
        try:
            for finding in await _create(cluster, config.topics):
                if finding.is_mistake:
                    log.warning("topics: %s", finding)
        except Refused as error:
            raise SourceError(f"topics: create: {error}") from error


async def _create(cluster: Cluster, settings: TopicsSettings) -> list[Finding]:
    what = "topics: create"
    admin: Admin = await connect(lambda: make_admin(cluster.brokers), cluster.brokers, what)
    patience = Patience(what)
    try:
        while True:
            try:
                found = await anyio.to_thread.run_sync(create_missing, admin, cluster, settings, _tell)
            except Passing as error:
                await anyio.sleep(patience.delay(str(error)))
            else:
                patience.over()
                return found
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(admin.close)


def _tell(topic: NewTopic) -> None:
    log.info("created topic %s", told(topic))
