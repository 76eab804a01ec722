"""The demo's view: predictions as they come, what each stream does, and a summary at the end; live on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from streamfuse.daemon import Daemon
from streamfuse.types import SECOND, Outcome, Prediction

COLOURS = {"silence": "bright_black", "other sound": "yellow", "voice off screen": "cyan", "speaker on screen": "green"}
SHOWN = 10


@dataclass
class View:
    """What has been seen so far. `daemon` is read, never touched."""

    daemon: Daemon
    console: Console
    recent: deque[Prediction] = field(default_factory=lambda: deque(maxlen=SHOWN))
    predictions: int = 0
    revisions: int = 0
    right: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)
    absent: Counter[tuple[str, str]] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    _first: int | None = None
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)
    _rates: dict[str, float] = field(default_factory=dict)

    def take(self, prediction: Prediction) -> None:
        if self._first is None:
            self._first = prediction.start
        self.recent.append(prediction)
        self.predictions += 1
        if prediction.revision:
            self.revisions += 1
            return
        self.latencies.append((prediction.produced_at - prediction.end) / SECOND)
        self.absent.update(prediction.absent.items())
        if prediction.truth is not None:
            self.judged[prediction.truth] += 1
            self.right[prediction.truth] += prediction.label == prediction.truth

    # --- live ----------------------------------------------------------------------------------------------------------------------------

    def __rich__(self) -> Panel:
        where = "" if self.daemon.address is None else "  metrics: http://{}:{}/metrics".format(*self.daemon.address)
        body = Group(self._streams(), "", self._windows())
        return Panel(body, title="StreamFuse", subtitle=f"Ctrl-C stops{where}", border_style="blue")

    def _streams(self) -> Table:
        table = Table(expand=True, box=None, header_style="bold")
        for name, justify in (("stream", "left"), ("state", "left"), ("packets/s", "right"), ("lag", "right"), ("received", "right")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        table.add_column("ended as")
        now = self.daemon.clock.now()
        marks = self.daemon.synchronizer.furthest()
        for stream, account in self.daemon.synchronizer.ledger.accounts.items():
            rate = self._rate(stream, account.received)
            state = "[green]flowing[/]" if rate > 0 else "[yellow]silent[/]" if account.received else "[bright_black]absent[/]"
            lag = f"{(now - marks[stream]) / SECOND:.2f} s" if stream in marks else "-"
            ended = ", ".join(f"{count} {outcome}" for outcome, count in account.counts().items() if count)
            table.add_row(stream, state, f"{rate:.1f}", lag, str(account.received), ended)
        return table

    def _rate(self, stream: str, received: int) -> float:
        """Packets a second, looked at anew every two seconds of the clock."""
        now = self.daemon.clock.monotonic()
        then, before = self._seen.setdefault(stream, (now, received))
        if now - then >= 2 * SECOND:
            self._rates[stream] = (received - before) / ((now - then) / SECOND)
            self._seen[stream] = (now, received)
        elif stream not in self._rates and now > then:
            return (received - before) / ((now - then) / SECOND)
        return self._rates.get(stream, 0.0)

    def _windows(self) -> Table:
        table = Table(expand=True, box=None, header_style="bold")
        for name in ("key", "window", "prediction", "", "truth", "absent", "words"):
            table.add_column(name, no_wrap=True)
        for p in self.recent:
            colour = COLOURS.get(p.label, "white")
            score = p.scores[p.label]
            truth = "" if p.truth is None else "[green]right[/]" if p.truth == p.label else f"[red]{escape(p.truth)}[/]"
            table.add_row(
                escape(p.key),
                self._span(p),
                f"[{colour}]{escape(p.label)}[/]",
                f"[{colour}]{'█' * round(score * 10):<10}[/] {score:4.0%}",
                truth,
                escape(_why(p)),
                escape(_words(p)[:40]),
            )
        return table

    # --- lines ---------------------------------------------------------------------------------------------------------------------------

    def line(self, p: Prediction) -> str:
        truth = "" if p.truth is None else "  right" if p.truth == p.label else f"  truth: {p.truth}"
        absent = f"  without {_why(p)}" if p.absent else ""
        words = f"  “{_words(p)}”" if p.texts else ""
        late = f" (revision {p.revision})" if p.revision else ""
        return f"{p.key}  {self._span(p)}{late}  {p.label:<17} {p.scores[p.label]:4.0%}{truth}{absent}{words}"

    def _span(self, p: Prediction) -> str:
        first = self._first or 0
        return f"{(p.start - first) / SECOND:6.1f}-{(p.end - first) / SECOND:.1f} s"

    # --- the end -------------------------------------------------------------------------------------------------------------------------

    def summary(self) -> None:
        """Print what happened: windows, accuracy, latency, the ledger."""
        say = self.console.print
        say()
        say(f"[bold]{self.predictions} predictions[/] of {self.predictions - self.revisions} windows, {self.revisions} of them revisions")
        if self.judged:
            total = sum(self.judged.values())
            say(f"accuracy against the truth: [bold]{sum(self.right.values()) / total:.0%}[/] of {total} windows")
            for label, count in sorted(self.judged.items()):
                say(f"  {escape(label):<18} {self.right[label]:>3} of {count}")
        if self.latencies:
            ordered = sorted(self.latencies)
            p50, p99 = ordered[len(ordered) // 2], ordered[int(0.99 * (len(ordered) - 1))]
            say(f"latency after the end of the window: p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms")
        for (stream, reason), count in sorted(self.absent.items()):
            say(f"  {count} windows without {escape(stream)}: {escape(reason)}")
        say(self._ledger())
        unaccounted = sum(map(abs, self.daemon.synchronizer.unaccounted().values()))
        say("[green]The ledger balances: every packet is accounted for.[/]" if not unaccounted else f"[red]{unaccounted} unaccounted[/]")

    def _ledger(self) -> Table:
        synchronizer = self.daemon.synchronizer
        accounts = synchronizer.ledger.accounts
        buffered = synchronizer.buffered()
        outcomes = [o for o in Outcome if o is Outcome.USED or any(a.counts()[o] for a in accounts.values())]
        table = Table(title="where each packet ended", title_justify="left")
        table.add_column("stream")
        for name in ("received", *outcomes, "buffered"):
            table.add_column(str(name), justify="right")
        for stream, account in accounts.items():
            counts = account.counts()
            table.add_row(stream, str(account.received), *(str(counts[o]) for o in outcomes), str(buffered.get(stream, 0)))
        return table


def _why(prediction: Prediction) -> str:
    return ", ".join(f"{stream}: {reason}" for stream, reason in prediction.absent.items())


def _words(prediction: Prediction) -> str:
    return " ".join(prediction.texts.values()).replace("\n", " ")
