"""An estimated value with its 95 % interval."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The value, and the ends of its interval, in the same unit."""

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside of the interval."""
        return not self.low <= value <= self.high
