"""The ledger: where each received packet ended, per stream, so that nothing can be lost silently.

The balance that holds after every packet (rule 11):

    received = used + unmatched + late + duplicate + shed + undecodable + quarantined + revoked + still buffered
"""

from __future__ import annotations

from collections.abc import Iterator

from streamfuse.types import Outcome


class Account:
    """The counts of one stream. Plain integers, because they are raised once a packet."""

    __slots__ = (*(outcome.value for outcome in Outcome), "received")

    def __init__(self) -> None:
        self.received = 0
        self.used = 0
        self.unmatched = 0
        self.late = 0
        self.duplicate = 0
        self.shed = 0
        self.undecodable = 0
        self.quarantined = 0
        self.revoked = 0

    def settled(self) -> int:
        """Packets with an outcome."""
        return sum(self.counts().values())

    def counts(self) -> dict[Outcome, int]:
        return {outcome: getattr(self, outcome.value) for outcome in Outcome}


class Ledger:
    """One account per stream; a stream that was never named opens one with its first packet."""

    def __init__(self, streams: Iterator[str] | tuple[str, ...] = ()) -> None:
        self.accounts: dict[str, Account] = {stream: Account() for stream in streams}

    def account(self, stream: str) -> Account:
        found = self.accounts.get(stream)
        if found is None:
            found = self.accounts[stream] = Account()
        return found

    def count(self, stream: str, outcome: Outcome, number: int = 1) -> None:
        """`number` packets of this stream ended with this outcome."""
        account = self.account(stream)
        setattr(account, outcome.value, getattr(account, outcome.value) + number)

    def found_undecodable(self, stream: str) -> None:
        """A packet that a window used turned out undecodable when the model's turn came."""
        account = self.account(stream)
        account.used -= 1
        account.undecodable += 1
