"""A process that does steps when asked, so that two frameworks take turns on the same cores in one run.

Each framework lives in a process of its own, which builds everything, says so, and then waits. The benchmark asks one
after the other for a turn; the one that waits uses no processor. The two talk in lines of JSON. Only the standard
library is needed here, so that the side of another framework can import it without JAX.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asccl_jax.process import host_peak_bytes
from asccl_jax.settings import MetricSettings

__all__ = [
    "TORCH_LEFT_OUT",
    "Report",
    "StepOptions",
    "Turn",
    "Worker",
    "align",
    "describe_machine",
    "format_quantity",
    "forward_flops",
    "has_torch_side",
    "pin_to_cores",
    "serve",
    "start_worker",
    "step_flops",
]


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """What a worker is to build: one training step.

    Attributes:
      settings: Fields of the model's settings, as its `from_dict` takes them.
      batch_size: Pairs a step.
      image_size: Side of the images in pixels.
      dtype: "float32" or "bfloat16", the type of the convolutions.
      threads: Cores the process may use.
      seed: Seed of weights and images.
    """

    settings: Mapping[str, Any]
    batch_size: int
    image_size: int
    dtype: str
    threads: int
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Turn:
    """Seconds a step took in one turn: by the clock, and of processor time summed over all threads."""

    wall_s: float
    cpu_s: float


class Worker:
    """The benchmark's end of a worker process; made by `start_worker`."""

    def __init__(self, process: subprocess.Popen[str], name: str, log: Any) -> None:
        self._process = process
        self._name = name
        self._log = log
        self.description: dict[str, Any] = self._answer()

    def turn(self, steps: int, *, part: str | None = None) -> Turn:
        """Lets the worker do some steps and returns the mean time of one.

        Args:
          steps: How many.
          part: Which kind of step, of a worker that knows several.
        """
        answer = self._ask({"steps": steps, "part": part})
        return Turn(wall_s=answer["wall_s"] / steps, cpu_s=answer["cpu_s"] / steps)

    def finish(self) -> dict[str, Any]:
        """Ends the worker and returns what it measured over its life, such as peak memory."""
        answer = self._ask({"finish": True})
        self._process.wait()
        return answer

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # It died; what it said last is in the log, which _answer shows.
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        status = self._process.wait()
        self._log.seek(0)
        tail = "\n".join(self._log.read().splitlines()[-15:])
        raise RuntimeError(f"the {self._name} worker ended with status {status}; its last words:\n{tail}")


_CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder that this package lies in: of a checkout, it holds `tests`, too."""

TORCH_LEFT_OUT = (
    "PyTorch's side is not there, so JAX ran alone: pip install 'asccl-jax[bench]', in a checkout (tests/twins)"
)


def has_torch_side() -> bool:
    """Returns whether PyTorch is installed, and its twins of the networks lie beside this package, as in a checkout."""
    return importlib.util.find_spec("torch") is not None and (_CHECKOUT / "tests" / "twins").is_dir()


@contextmanager
def start_worker(
    module: str, options: StepOptions, *, environment: Mapping[str, str] | None = None
) -> Iterator[Worker]:
    """Starts `python -m MODULE OPTIONS` and yields its handle once it is ready; kills it on the way out.

    Args:
      module: Module whose main program calls `serve`. It is started by name, so it may need packages we do not have.
      options: What it is to build, passed as JSON.
      environment: Variables on top of ours.

    Raises:
      RuntimeError: The worker died; the message ends with what it wrote.
    """
    threads = str(options.threads)
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_CHECKOUT), os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # Two frameworks share the accelerator.
        **(environment or {}),
    }
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(dataclasses.asdict(options))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=variables,
            text=True,
        )
        try:
            yield Worker(process, module, log)
        finally:
            process.kill()
            process.communicate()


def serve(
    build: Callable[[StepOptions], tuple[Callable[..., None], dict[str, Any], Callable[[], dict[str, Any]]]],
) -> int:
    """Runs a worker's side of the conversation until the benchmark ends it, and returns the exit status.

    Args:
      build: Takes the options of the command line. Returns a function that does a number of steps (of a part, if it
        is asked for one) and comes back when the last is complete, a description for the report, and a function that
        returns the closing measurements.
    """
    # What libraries print must not mix with the conversation.
    conversation = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(content: Mapping[str, Any]) -> None:
        conversation.write(json.dumps(content) + "\n")
        conversation.flush()

    options = StepOptions(**json.loads(sys.argv[1]))
    pin_to_cores(options.threads)
    steps, description, closing = build(options)
    answer(description)
    for line in sys.stdin:
        request = json.loads(line)
        if "finish" in request:
            answer({"peak_rss_bytes": host_peak_bytes(), **closing()})
            return 0
        chosen = () if request.get("part") is None else (request["part"],)
        wall, cpu = time.perf_counter(), time.process_time()
        steps(request["steps"], *chosen)
        answer({"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu})
    return 0


def pin_to_cores(count: int) -> Sequence[int]:
    """Confines this process to the first `count` of the cores it may use and returns them.

    Where the system cannot confine a process (macOS), returns nothing.
    """
    if not hasattr(os, "sched_setaffinity"):
        return ()
    cores = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, cores)
    return cores


# What a benchmark hands back: text for a person, and the same as data for a machine.


@dataclasses.dataclass(frozen=True)
class Report:
    """Result of one benchmark.

    Attributes:
      text: Lines to read.
      data: What JSON can hold: all that the text says, with every single measurement.
    """

    text: str
    data: dict[str, Any]


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table, first column to the left and the others to the right.

    >>> align([["step", "s"], ["a", "10.5"]])
    ['step     s', 'a     10.5']
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def format_quantity(value: float | int | None, unit: str = "") -> str:
    """Returns a number to three figures with a decimal prefix, or a dash for None.

    >>> format_quantity(3.52e9, "B"), format_quantity(0.0123, "s"), format_quantity(None)
    ('3.52 GB', '12.3 ms', '-')
    """
    if value is None:
        return "-"
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}".rstrip()
    return f"{value:.3g} {unit}".rstrip()


def describe_machine(threads: int) -> dict[str, Any]:
    """Returns what a reader must know of the machine to judge a figure measured on it."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


# Arithmetic of a metric's training step, counted by hand from the shapes.
#
# A multiply and an add are two operations. XLA's own count is reported beside it, but it counts the body of a loop once
# and knows nothing of a library call's inside, so this one is what utilisation is computed from.


def forward_flops(settings: MetricSettings, image_size: int) -> int:
    """Returns the operations of the trunk's convolutions on one image.

    >>> round(forward_flops(MetricSettings(depth=50), 224) / 1e9, 1)
    50.4
    """
    size, width_in = image_size, settings.stage_widths[0]
    total = size**2 * 9 * 3 * width_in
    for blocks, width in zip(settings.blocks, settings.stage_widths, strict=True):
        halved = -(-size // 2)
        total += size**2 * 9 * width_in * width  # first block: full size in, half size out
        total += halved**2 * (9 * width + width_in) * width
        total += (blocks - 1) * halved**2 * 2 * 9 * width * width
        size, width_in = halved, width
    return 2 * total


def step_flops(settings: MetricSettings, image_size: int, pairs: int) -> int:
    """Returns the operations a training step on some pairs needs.

    Query and key go forward; the gradient, twice the cost of a forward pass, is the query's alone. Heads, losses and
    normalisation are left out, together under one percent.

    >>> round(step_flops(MetricSettings(depth=50), 224, 8) / 1e12, 2)
    1.61
    """
    return 4 * forward_flops(settings, image_size) * pairs
