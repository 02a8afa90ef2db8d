"""The rule for when a process that dies again and again is no longer started again.

In: how long it lived, each time that it dies. Out: how often it has died in a row soon after its
start, and whether to stop the attempts. Imports only the standard library: Triton's containers need
this module too.
"""

from dataclasses import dataclass

QUICK_DEATHS = 5  # as many in a row end the attempts


@dataclass
class CrashLoop:
    """The deaths of one process that is always started again."""

    quick_s: float  # a life shorter than this, in seconds, is a quick death
    limit: int = QUICK_DEATHS
    deaths: int = 0  # quick ones in a row

    def died(self, lived_s: float) -> bool:
        """Note a death after so many seconds; returns whether it was a quick one."""
        quick = lived_s < self.quick_s
        self.deaths = self.deaths + 1 if quick else 0
        return quick

    @property
    def hopeless(self) -> bool:
        """Whether it should not be started again."""
        return self.deaths >= self.limit
