"""The fleet on a screen: on a terminal a table of all runs, elsewhere a line per epoch of any run."""

import sys
import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from lib.fleet.members import STATUSES, Member
from lib.runs import Pace

SECONDS_BETWEEN_LOOKS = 0.5


class FleetTable:
    """Shows the members' progress during a `with` block."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members, self.pace = members, Pace(members)
        self.console = Console(soft_wrap=not sys.stdout.isatty(), highlight=False)
        self.live = Live(console=self.console, auto_refresh=False, transient=False)
        self.looked = 0.0

    def __enter__(self) -> "FleetTable":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.live.is_started:
            self.live.update(self.table(), refresh=True)
            self.live.stop()

    def epoch(self, line: str) -> None:
        """Report an epoch's end: a table shows it itself."""
        if not self.live.is_started:
            print(f"{line}  {self.pace.summary()}", flush=True)

    def say(self, line: str) -> None:
        """Report something that no table shows."""
        if self.live.is_started:
            self.console.print(line, markup=False)
        else:
            print(f"{line}  {self.pace.summary()}", flush=True)

    def look(self) -> None:
        """Refresh the table, not too often."""
        if self.live.is_started and time.monotonic() - self.looked > SECONDS_BETWEEN_LOOKS:
            self.looked = time.monotonic()
            self.live.update(self.table(), refresh=True)

    def table(self) -> Table:
        """As many runs as the screen has lines for, those at work first."""
        table = Table("run", "state", "epoch", "test accuracy", title=self.pace.summary(), title_justify="left")
        members = sorted(self.members, key=lambda member: STATUSES.index(member.status))
        room = max(3, self.console.height - 7)
        for member in members[:room]:
            accuracy = "" if member.accuracy is None else f"{member.accuracy:.2%}"
            state = f"on {member.place}" if member.status == "at work" else member.status
            table.add_row(member.name, state, f"{member.epoch}/{member.card.epochs}", accuracy)
        if hidden := Counter(member.status for member in members[room:]):
            table.add_row("...", ", ".join(f"{count} more {state}" for state, count in hidden.items()))
        return table
