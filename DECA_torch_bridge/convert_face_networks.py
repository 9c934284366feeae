"""`asccl convert resnet-face|efficient-face|arcface|syncnet`: the published files of the networks that score faces."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from asccl_jax.convert.face_network_entries import arcface_of_keys, face_variables
from asccl_jax.errors import InputError
from asccl_jax.weights import FACE_NETWORK_FILES, FaceNetwork, face_module, module_settings, save_face_network
from DECA_torch_bridge.convert_renderer import check_target
from DECA_torch_bridge.state_dict import read_state_dict

__all__ = ["add_face_networks"]


def add_face_networks(kinds: argparse._SubParsersAction) -> None:
    """Adds `convert resnet-face` and its like to the kinds of networks."""
    for name, (file, origin, purpose) in FACE_NETWORK_FILES.items():
        parser = kinds.add_parser(
            name,
            help=f"{file}, for `asccl evaluate`",
            description=f"Convert {file} from PyTorch to Flax. It serves {purpose}. Get it from {origin}.",
        )
        parser.set_defaults(run=_convert)
        parser.add_argument("source", metavar="FILE", type=Path, help=f"{file}, whatever it is called now")
        parser.add_argument("target", metavar="DIR", type=Path, help="a directory to make")
        parser.add_argument("--overwrite", action="store_true", help="replace DIR where it exists")


def _convert(options: argparse.Namespace) -> int:
    name = options.kind
    check_target(options, name)
    state_dict = read_state_dict(options.source)
    try:
        module = arcface_of_keys(state_dict) if name == "arcface" else face_module(name)
        variables = face_variables(module, state_dict)
    except InputError as error:
        raise InputError(f"{options.source}: {error}") from error
    with options.source.open("rb") as file:
        file_hash = hashlib.file_digest(file, "sha256").hexdigest()
    save_face_network(options.target, FaceNetwork(name, variables, module_settings(module), file_hash))
    sys.stdout.write(
        f"{options.source}: {len(state_dict)} tensors, SHA-256 {file_hash}\n"
        f"{options.target}: written; it serves {FACE_NETWORK_FILES[name].purpose}\n"
    )
    return 0
