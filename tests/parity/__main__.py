"""Command line of the parity check; exits with 1 if any array falls short, with 2 if it cannot run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from asccl_jax import xla_flags
from asccl_jax.errors import InputError, exit_on_input_error

# Before anything imports JAX.
xla_flags.apply()

import jax  # noqa: E402
import numpy as np  # noqa: E402

from tests.parity import comparison, metric, recipe, tolerances  # noqa: E402

_KNOWN_PREFIX = "metric_"


@exit_on_input_error
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("--goldens", type=Path, required=True, help="directory with NAME.npz, manifests/ and README.md")
    parser.add_argument("--only", metavar="NAME", help="replay this golden alone, for example metric_small")
    parser.add_argument("--precision", choices=("float32", "float64"), default="float32")
    options = parser.parse_args(arguments)
    names, unknown = _select(options.goldens, options.only)
    faults = recipe.check(options.goldens, [metric.MANIFEST])
    if faults:
        raise InputError(f"{options.goldens}: the recipe differs from recipe_check.json: {'; '.join(faults)}")
    print(f"recipe: agrees with recipe_check.json for {metric.MANIFEST}\n\n{tolerances.RULES}")
    if unknown:
        print(f"\nnot replayed, belongs to other networks: {', '.join(unknown)}")
    failures = sum([_run(options.goldens, name, exact=options.precision == "float64") for name in names])
    print(f"\n{'all arrays pass' if not failures else f'{failures} arrays fall short'}")
    return 1 if failures else 0


def _select(directory: Path, only: str | None) -> tuple[list[str], list[str]]:
    if not directory.is_dir():
        raise InputError(f"--goldens {directory}: no such directory")
    found = sorted(file.stem for file in directory.glob("*.npz"))
    known = [name for name in found if name.startswith(_KNOWN_PREFIX)]
    if only is not None and only not in known:
        raise InputError(f"--only {only}: expected one of {', '.join(known) or 'none at all'} in {directory}")
    if not known:
        raise InputError(f"--goldens {directory}: no {_KNOWN_PREFIX}*.npz, found {', '.join(found) or 'no golden'}")
    return ([only] if only else known), ([] if only else [name for name in found if name not in known])


def _run(directory: Path, name: str, *, exact: bool) -> int:
    with np.load(directory / f"{name}.npz") as file:
        golden = dict(file)
    spreads = tolerances.read_spreads(directory / "README.md", name)
    manifest = recipe.read_manifest(directory, metric.MANIFEST)
    # Accelerators would multiply in TensorFloat-32 or bfloat16 otherwise.
    with jax.default_matmul_precision("highest"), jax.enable_x64(exact):
        results = metric.replay(golden, manifest, dtype=np.float64 if exact else np.float32)
    seed, batch, size = golden["cfg"]
    print(f"\n{name}  (seed {seed}, batch {batch}, size {size}, {'float64' if exact else 'float32'})")
    print(f"{'array':44} {'error':>9} {'allowed':>9}  verdict  rule")
    lines = list(comparison.compare(golden, results, spreads, exact=exact))
    for line in lines:
        error = "none" if line.error is None else f"{line.error:.2e}"
        print(f"{line.name:44} {error:>9} {line.allowed:9.2e}  {'ok' if line.passed else 'FAILS':7}  {line.note}")
    reasons: dict[str, list[str]] = {}
    for array, reason in comparison.skipped(golden, exact=exact).items():
        reasons.setdefault(reason, []).append(array)
    for reason, arrays in reasons.items():
        print(f"not compared ({reason}): {len(arrays)} arrays, {', '.join(arrays[:4])}{', ...' if arrays[4:] else ''}")
    failures = sum(not line.passed for line in lines)
    print(f"{name}: {len(lines) - failures} of {len(lines)} arrays pass")
    return failures


if __name__ == "__main__":
    sys.exit(main())
