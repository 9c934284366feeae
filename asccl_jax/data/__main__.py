"""Prints what a data set holds and checks every byte of it: `asccl data inspect DIR`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from asccl_jax.data.dataset import describe_dataset, verify_dataset
from asccl_jax.errors import exit_on_input_error
from asccl_jax.process import command_name


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status, 1 where something is wrong with the data."""
    parser = argparse.ArgumentParser(prog=command_name(), description=__doc__)
    parser.add_argument("directory", type=Path, help="directory that holds manifest.json")
    parser.add_argument("--no-verify", action="store_true", help="print the table only; reads no frames")
    options = parser.parse_args(arguments)
    sys.stdout.write(describe_dataset(options.directory))
    if options.no_verify:
        return 0
    problems = verify_dataset(options.directory)
    sys.stdout.write("".join(f"damaged: {problem}\n" for problem in problems) or "every checksum and image is sound\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
