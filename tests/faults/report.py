"""What a soak found, as a table to read and as JSON."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import statistics

from tests.faults.harness import FAULTS

_PACKAGES = ("asccl-jax", "jax", "jaxlib", "flax", "orbax-checkpoint", "grain", "apache-beam", "numpy")


@dataclasses.dataclass(frozen=True)
class Soak:
    """A soak, over or cut short.

    Attributes:
      seed: Of the random moments.
      date: When it began, in UTC.
      seconds: How long it took.
      trials: Faults that were made up for.
      failures: Name and message of those that were not; a name may be that of no fault.
      completed: Training runs that came to their last step, equal to undisturbed ones.
    """

    seed: int
    date: str
    seconds: float
    trials: list
    failures: list
    completed: int

    def table(self):
        """Returns the table in Markdown, one row a fault that was tried."""
        rows = ["| fault | tried | lost | recovered in (median, worst) |", "|---|---|---|---|"]
        for name, kind in FAULTS.items():
            trials = [trial for trial in self.trials if trial.fault == name]
            failed = sum(fault == name for fault, _ in self.failures)
            if not trials and not failed:
                continue
            tried = f"{len(trials) + failed}" + (f", **{failed} failed**" if failed else "")
            rows.append(f"| {kind.what} | {tried} | {_lost(kind, trials)} | {_recovered(trials)} |")
        return "\n".join(rows) + "\n"

    def page(self):
        """Returns the whole page in Markdown."""
        minutes = self.seconds / 60
        lines = [
            f"# Faults tried on {self.date}\n",
            f"Seed {self.seed}, {minutes:.0f} minutes, {os.cpu_count()} CPU cores. {self.completed} training runs came"
            " to their last step, equal to undisturbed ones.\n",
            ", ".join(f"{name} {version}" for name, version in versions().items()) + "\n",
            self.table(),
        ]
        lines += [f"{name} failed:\n\n```\n{message}\n```\n" for name, message in self.failures]
        return "\n".join(lines)

    def write(self, folder):
        """Writes `soak.md` and `soak.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "soak.md").write_text(self.page())
        content = {**dataclasses.asdict(self), "versions": versions(), "cores": os.cpu_count()}
        (folder / "soak.json").write_text(json.dumps(content, indent=1) + "\n")


def versions():
    """Versions of Python and of the packages that matter here."""
    found = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _lost(kind, trials):
    if not trials:
        return ""
    counts = [trial.lost for trial in trials]
    if not max(counts):
        return "nothing"
    most = max(counts)
    return f"{statistics.median(counts):g}, at most {most} {kind.unit}{'' if most == 1 else 's'}"


def _recovered(trials):
    if not trials:
        return ""
    seconds = [trial.recovered_s for trial in trials]
    return f"{statistics.median(seconds):.0f} s, {max(seconds):.0f} s"
