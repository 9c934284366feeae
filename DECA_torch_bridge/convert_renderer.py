"""`asccl convert renderer` and `asccl convert vgg19`: a renderer's published files, and torchvision's VGG-19."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from asccl_jax.convert.renderer_entries import (
    FILE_NAMES,
    params_from_state_dicts,
    settings_from_state_dicts,
    state_dicts_from_params,
    vgg_from_state_dict,
)
from asccl_jax.errors import InputError
from asccl_jax.models.vgg import Vgg
from asccl_jax.weights import Renderer, load_renderer, save_renderer, save_vgg
from DECA_torch_bridge.state_dict import read_state_dict, write_state_dict

__all__ = ["add_renderer", "add_vgg", "check_target"]

_RENDERER_EXAMPLES = """
PyTorch's side is a directory of EPOCH_net_G.pth, EPOCH_net_D.pth, EPOCH_net_Dm.pth (and EPOCH_net_De.pth), or the _G
file of one; of a directory with several epochs "latest" is taken, else the highest. The other side is a renderer of
this project, or the working directory of a training run, of which the best checkpoint is taken.

examples:
  asccl convert renderer checkpoints/actor renderer/                     a renderer trained by the published code
  asccl convert renderer checkpoints/meta/15_net_G.pth meta/             the meta-renderer; train on with init_from
  asccl convert renderer runs/renderer actor/                            for the published code: actor/latest_net_*.pth
"""
_FILE = re.compile(r"(.+)_net_G\.pth")


def add_renderer(kinds: argparse._SubParsersAction) -> None:
    """Adds `convert renderer` to the kinds of networks."""
    parser = kinds.add_parser(
        "renderer",
        help="a neural renderer: generator and discriminators",
        description="Convert a neural renderer from PyTorch to Flax or back.",
        epilog=_RENDERER_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_convert_renderer)
    parser.add_argument("source", metavar="IN", type=Path, help="a directory, or one EPOCH_net_G.pth of it")
    parser.add_argument("target", metavar="OUT", type=Path, help="a directory to make")
    parser.add_argument("--overwrite", action="store_true", help="replace what OUT holds of the kind that is written")
    reading = parser.add_argument_group("what a .pth does not say")
    reading.add_argument("--image-size", type=int, metavar="PX", help="side of its frames (default: 256)")
    reading.add_argument("--roi-size", type=int, metavar="PX", help="side of the mouth's region (default: 72)")


def add_vgg(kinds: argparse._SubParsersAction) -> None:
    """Adds `convert vgg19` to the kinds of networks."""
    parser = kinds.add_parser(
        "vgg19",
        help="torchvision's VGG-19, for the perceptual loss of the renderer",
        description="Convert the convolutions of torchvision's VGG-19 from PyTorch to Flax.",
    )
    parser.set_defaults(run=_convert_vgg)
    parser.add_argument("source", metavar="IN", type=Path, help="torchvision's .pth file")
    parser.add_argument("target", metavar="OUT", type=Path, help="a directory to make")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")


def _convert_vgg(options: argparse.Namespace) -> int:
    check_target(options, "vgg19")
    state_dict = read_state_dict(options.source)
    try:
        vgg = Vgg(vgg_from_state_dict(state_dict))
    except InputError as error:
        raise InputError(f"{options.source}: {error}") from error
    save_vgg(options.target, vgg)
    sys.stdout.write(f"{options.target}: written; the convolutions up to relu5_1\n")
    return 0


def _convert_renderer(options: argparse.Namespace) -> int:
    files = _published_files(options.source)
    lines = _from_pytorch(options, files) if files else _to_pytorch(options)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def check_target(options: argparse.Namespace, kind: str) -> None:
    """Raises an `InputError` if what is to be written exists, unless it is of this kind and may be overwritten."""
    if options.target.exists() and not options.overwrite:
        raise InputError(f"{options.target}: exists already; choose another name or add --overwrite")
    if options.target.exists() and not (options.target / f"{kind}.json").is_file():
        raise InputError(f"{options.target}: what is no {kind} is never replaced; choose another name")


def _published_files(source: Path) -> dict[str, Path]:
    """Returns the published files by network; none if the source is a renderer of this project.

    Raises:
      InputError: Neither the one nor the other.
    """
    if source.is_dir():
        epochs = [match[1] for file in source.iterdir() if (match := _FILE.fullmatch(file.name))]
        if not epochs:
            return {}
        epoch = "latest" if "latest" in epochs else max(epochs, key=lambda name: (name.isdecimal(), len(name), name))
        directory = source
    else:
        match = _FILE.fullmatch(source.name)
        if match is None:
            raise InputError(f"{source}: expected a directory, or a file EPOCH_net_G.pth")
        epoch, directory = match[1], source.parent
    files = {name: directory / f"{epoch}_net_{short}.pth" for name, short in FILE_NAMES.items()}
    # The generator and the discriminator of whole frames are always there: their absence is an error on reading.
    return {name: file for name, file in files.items() if name in ("generator", "discriminator") or file.exists()}


def _from_pytorch(options: argparse.Namespace, files: dict[str, Path]) -> list[str]:
    check_target(options, "renderer")
    state_dicts = {name: read_state_dict(file) for name, file in files.items()}
    given = {"image_size": options.image_size, "roi_size": options.roi_size}
    try:
        settings = settings_from_state_dicts(
            state_dicts, **{name: value for name, value in given.items() if value is not None}
        )
        params = params_from_state_dicts(state_dicts, settings)
    except InputError as error:
        raise InputError(f"{files['generator']} and its like: {error}") from error
    save_renderer(options.target, Renderer(params, settings))
    return [
        f"read: {', '.join(str(file) for file in files.values())}",
        f"{options.target}: written; frames of {settings.image_size} pixels, regions of {settings.roi_size}",
    ]


def _to_pytorch(options: argparse.Namespace) -> list[str]:
    if options.image_size is not None or options.roi_size is not None:
        raise InputError(f"--image-size, --roi-size: only for reading a .pth; {options.source} has its own settings")
    renderer = load_renderer(options.source)
    files = {name: options.target / f"latest_net_{short}.pth" for name, short in FILE_NAMES.items()}
    there = [file for file in files.values() if file.exists()]
    if there and not options.overwrite:
        raise InputError(f"{there[0]}: exists already; choose another directory or add --overwrite")
    options.target.mkdir(parents=True, exist_ok=True)
    state_dicts = state_dicts_from_params(renderer.params, renderer.settings)
    for name, arrays in state_dicts.items():
        write_state_dict(files[name], arrays)
    return [f"{files[name]}: written" for name in state_dicts]
