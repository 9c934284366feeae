"""What trying a fault once gives: what was lost and how long it took to get over it, or what went wrong."""

import dataclasses


class FaultError(AssertionError):
    """A run did not get over a fault as it should; the message says what was seen."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One try of a fault.

    Attributes:
      fault: Name of the scenario.
      lost: Work done twice: logged steps of training, or tasks of a preparation that were under way.
      recovered_s: Seconds from the fault to the first step (or task) finished beyond where the run was.
      note: The moment, and whatever else tells this try from another.
    """

    fault: str
    lost: int
    recovered_s: float
    note: str


def require(condition, message):
    """Raises `FaultError` unless the condition holds; unlike `assert`, also under `python -O`."""
    if not condition:
        raise FaultError(message)
