"""Command line of the parity check; exits with 1 if any array falls short, with 2 if it cannot run."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from asccl_jax import process
from asccl_jax.errors import InputError, exit_on_input_error

# Before anything imports JAX.
process.apply_xla_flags()

import numpy as np  # noqa: E402

from tests.parity import comparison, recipe, tolerances  # noqa: E402
from tests.parity.families import Family, families_of  # noqa: E402


@exit_on_input_error
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("--goldens", type=Path, required=True, help="directory with NAME.npz, manifests/ and README.md")
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="replay this golden alone, for example metric_small; repeatable"
    )
    parser.add_argument("--precision", choices=("float32", "float64"), default="float32")
    options = parser.parse_args(arguments)
    selected, unknown = _select(options.goldens, options.only)
    runs = [(name, family) for name, families in selected.items() for family in families]
    manifests = list(dict.fromkeys(manifest for _, family in runs for manifest in family.manifests))
    faults = recipe.check(options.goldens, manifests)
    if faults:
        raise InputError(f"{options.goldens}: the recipe differs from recipe_check.json: {'; '.join(faults)}")
    print(f"recipe: agrees with recipe_check.json for {', '.join(['inputs', *manifests])}\n\n{tolerances.RULES}")
    if unknown:
        print(f"\nnot replayed, belongs to other networks: {', '.join(unknown)}")
    exact = options.precision == "float64"
    failures = sum([_run(options.goldens, name, family, exact=exact) for name, family in runs])
    print(f"\n{'all arrays pass' if not failures else f'{failures} arrays fall short'}")
    return 1 if failures else 0


def _select(directory: Path, only: list[str] | None) -> tuple[dict[str, tuple[Family, ...]], list[str]]:
    """Goldens to replay with their families, and names of those that belong to none."""
    if not directory.is_dir():
        raise InputError(f"--goldens {directory}: no such directory")
    found = sorted(file.stem for file in directory.glob("*.npz"))
    known = {name: families for name in found if (families := families_of(name))}
    for name in only or ():
        if name not in known:
            raise InputError(f"--only {name}: expected one of {', '.join(known) or 'none at all'} in {directory}")
    if not known:
        raise InputError(
            f"--goldens {directory}: no golden of a network that is here, found {', '.join(found) or 'no golden'}"
        )
    if only:
        return {name: known[name] for name in only}, []
    return known, [name for name in found if name not in known]


def _run(directory: Path, name: str, family: Family, *, exact: bool) -> int:
    with np.load(directory / f"{name}.npz") as file:
        golden = dict(file)
    spreads = tolerances.known_spreads(directory / "README.md", name, golden)
    manifests = {manifest: recipe.read_manifest(directory, manifest) for manifest in family.manifests}
    results = family.run(golden, manifests, exact)
    words = [family.describe(golden["cfg"]), "float64" if exact else "float32", family.title]
    print(f"\n{name}  ({', '.join(filter(None, words))})")
    print(f"{'array':44} {'error':>9} {'allowed':>9}  verdict  rule")
    inputs = [array for array in golden if re.fullmatch(family.inputs, array)]
    compared = {array: value for array, value in golden.items() if array not in inputs}
    others = [array for array in compared if not family.whole and array.removeprefix("f64/") not in results.tensors]
    compared = {array: value for array, value in compared.items() if array not in others}
    lines = list(comparison.compare(compared, results, spreads, exact=exact))
    for line in lines:
        error = "none" if line.error is None else f"{line.error:.2e}"
        print(f"{line.name:44} {error:>9} {line.allowed:9.2e}  {'ok' if line.passed else 'FAILS':7}  {line.note}")
    reasons: dict[str, list[str]] = {"input, replayed": inputs}
    if others:
        reasons["replayed by other code, above or below"] = others
    for array, reason in comparison.skipped(compared, exact=exact, by_nature=results.tensors).items():
        reasons.setdefault(reason, []).append(array)
    for reason, arrays in reasons.items():
        print(f"not compared ({reason}): {len(arrays)} arrays, {', '.join(arrays[:4])}{', ...' if arrays[4:] else ''}")
    failures = sum(not line.passed for line in lines)
    print(f"{name}{family.title and f', {family.title}'}: {len(lines) - failures} of {len(lines)} arrays pass")
    return failures


if __name__ == "__main__":
    sys.exit(main())
