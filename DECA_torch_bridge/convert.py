"""The command `asccl convert`: checkpoints from PyTorch to Flax and back."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from asccl_jax.convert.face_network_entries import arcface_of_keys, face_variables
from asccl_jax.convert.manipulator_entries import (
    manipulator_settings,
    state_dicts_from_variables,
    variables_from_state_dicts,
)
from asccl_jax.convert.metric_entries import (
    flax_from_arcface,
    flax_from_state_dict,
    recognise,
    settings_from_state_dict,
    state_dict_from_flax,
)
from asccl_jax.convert.renderer_entries import (
    FILE_NAMES,
    params_from_state_dicts,
    renderer_settings,
    state_dicts_from_params,
    vgg_from_state_dict,
)
from asccl_jax.errors import InputError, exit_on_input_error
from asccl_jax.models.correlation import FrozenMetric
from asccl_jax.models.manipulator import NETWORKS
from asccl_jax.models.vgg import Vgg
from asccl_jax.process import command_name
from asccl_jax.settings import MetricSettings
from asccl_jax.weights import (
    FACE_NETWORK_FILES,
    FaceNetwork,
    Manipulator,
    Renderer,
    face_module,
    load_manipulator,
    load_metric,
    load_renderer,
    module_settings,
    save_face_network,
    save_manipulator,
    save_metric,
    save_renderer,
    save_vgg,
)
from asccl_jax.work import require_writable_file
from DECA_torch_bridge.state_dict import read_state_dict, read_state_dicts, write_state_dict, write_state_dicts

__all__ = [
    "add_face_networks",
    "add_renderer",
    "add_vgg",
    "check_target",
    "main",
]

# `asccl convert renderer` and `asccl convert vgg19`: a renderer's published files, and torchvision's VGG-19.

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
        settings = renderer_settings(state_dicts, **{name: value for name, value in given.items() if value is not None})
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


# `asccl convert resnet-face|efficient-face|arcface|syncnet`: the published files of the networks that score faces.


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


_PYTORCH_SUFFIXES = (".pth", ".pt", ".tar")
_READ_OPTIONS = ("compat", "channel_order", "image_size", "seed", "stage_blocks", "stage_widths")
_METRIC_EXAMPLES = """
The direction follows from the names: a file ending in .pth, .pt or .tar is PyTorch's; a directory is a metric of this
project, or the working directory of a training run, of which the best checkpoint is taken.

examples:
  asccl convert metric 50-128_landmarks_align.pth metric/       a metric trained by the published code
  asccl convert metric backbone.pth start/ --seed 1             ArcFace's trunk, heads drawn anew: a start for training
  asccl convert metric runs/asccl metric.pth                    a trained metric for the published PyTorch module

Reading a .pth, the network's depth is found from its keys. A file does not tell on which channel order it was trained:
the published training code reads BGR, ArcFace RGB, and these are the defaults. Callers of the converted metric always
pass RGB.
"""
_MANIPULATOR_EXAMPLES = """
The direction follows from the names: a file ending in .pth, .pt or .tar is PyTorch's, with the state dicts of all four
networks; a directory is a manipulator of this project, or the working directory of a training run, of which the best
checkpoint is taken. Sizes are found from the shapes.

examples:
  asccl convert manipulator 10_nets.pth manipulator/               a manipulator trained by the published code
  asccl convert manipulator 02_nets_finetuned.pth start/           one fine-tuned to an actor; train on with init_from
  asccl convert manipulator runs/manipulator 10_nets.pth           a trained one for the published PyTorch modules
"""


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `asccl convert ...` and returns its exit status.

    Args:
      arguments: Words after `convert`; None takes those of the process.
    """
    options = _parser().parse_args(arguments)
    if not options.target.is_dir():  # one that is there is replaced or refused, as the kinds have it
        require_writable_file(options.target, "OUT")
    return options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=command_name(), description="Convert weights between PyTorch and Flax.")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    metric = kinds.add_parser(
        "metric",
        help="a correlation metric, or the ArcFace backbone it starts from",
        description="Convert a correlation metric from PyTorch to Flax or back.",
        epilog=_METRIC_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    metric.set_defaults(run=_convert_metric)
    metric.add_argument("source", metavar="IN", type=Path, help="a .pth file, or a metric or working directory")
    metric.add_argument("target", metavar="OUT", type=Path, help="a directory to make, or a .pth file")
    metric.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")
    reading = metric.add_argument_group("what a .pth does not say")
    reading.add_argument(
        "--compat", choices=("paper", "released"), help="form of the loss it will be used with (default: paper)"
    )
    reading.add_argument(
        "--channel-order", choices=("rgb", "bgr"), help="order it was trained on (default: bgr; ArcFace: rgb)"
    )
    reading.add_argument("--image-size", type=int, metavar="PX", help="side of its training images (default: 224)")
    reading.add_argument("--seed", type=int, help="seed of heads the file does not hold (default: 0)")
    reading.add_argument("--stage-blocks", type=_four, metavar="A,B,C,D", help="blocks, for an IResNet of your own")
    reading.add_argument("--stage-widths", type=_four, metavar="A,B,C,D", help="channels, for an IResNet of your own")
    manipulator = kinds.add_parser(
        "manipulator",
        help="an expression manipulator: generator, mapping network, style encoder, discriminator",
        description="Convert an expression manipulator from PyTorch to Flax or back.",
        epilog=_MANIPULATOR_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    manipulator.set_defaults(run=_convert_manipulator)
    manipulator.add_argument(
        "source", metavar="IN", type=Path, help="a .pth file, or a manipulator or working directory"
    )
    manipulator.add_argument("target", metavar="OUT", type=Path, help="a directory to make, or a .pth file")
    manipulator.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")
    add_renderer(kinds)
    add_vgg(kinds)
    add_face_networks(kinds)
    return parser


def _four(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected four integers as in 3,4,14,3") from None


def _convert_metric(options: argparse.Namespace) -> int:
    from_pytorch = _is_from_pytorch(options, "metric")
    _report(_metric_from_pytorch(options) if from_pytorch else _metric_to_pytorch(options))
    return 0


def _convert_manipulator(options: argparse.Namespace) -> int:
    from_pytorch = _is_from_pytorch(options, "manipulator")
    _report(_manipulator_from_pytorch(options) if from_pytorch else _manipulator_to_pytorch(options))
    return 0


def _report(lines: list[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _is_from_pytorch(options: argparse.Namespace, kind: str) -> bool:
    """Returns the direction, once it is clear and the target may be written."""
    from_pytorch, to_pytorch = (path.suffix in _PYTORCH_SUFFIXES for path in (options.source, options.target))
    if from_pytorch == to_pytorch:
        raise InputError(
            f"convert {options.source} {options.target}: exactly one of the two must be a PyTorch file, ending in"
            f" {', '.join(_PYTORCH_SUFFIXES)}; the other is a {kind} directory"
        )
    if options.target.exists() and not options.overwrite:
        raise InputError(f"{options.target}: exists already; choose another name or add --overwrite")
    if options.target.is_dir() and not (options.target / f"{kind}.json").is_file():
        raise InputError(f"{options.target}: a directory that is no {kind} is never replaced; choose another name")
    return from_pytorch


def _metric_from_pytorch(options: argparse.Namespace) -> list[str]:
    state_dict = read_state_dict(options.source)
    try:
        kind = recognise(state_dict)
        given = {name: getattr(options, name) for name in _READ_OPTIONS if name not in ("compat", "seed")}
        fields = {"channel_order": "bgr" if kind == "metric" else "rgb"}
        fields |= {name: value for name, value in given.items() if value is not None}
        settings = settings_from_state_dict(state_dict, MetricSettings.from_compat(options.compat or "paper", **fields))
        lines = [f"{options.source}: {_NAMES[kind]}, residual blocks {settings.blocks}"]
        if kind == "metric":
            variables = flax_from_state_dict(state_dict, settings)
        else:
            converted = flax_from_arcface(state_dict, settings, seed=options.seed or 0)
            variables = converted.variables
            lines += [
                f"not used: {', '.join(converted.unused) or 'nothing'}",
                f"drawn anew with seed {options.seed or 0}, to be trained: {', '.join(converted.drawn)}",
            ]
    except InputError as error:
        raise InputError(f"{options.source}: {error}") from error
    save_metric(options.target, FrozenMetric(variables=variables, settings=settings))
    assumed = "given" if options.channel_order else "assumed, --channel-order changes it"
    lines.append(f"trained on {settings.channel_order.upper()} images ({assumed}); callers pass RGB all the same")
    lines.append(f"{options.target}: written")
    return lines


def _metric_to_pytorch(options: argparse.Namespace) -> list[str]:
    given = [f"--{name.replace('_', '-')}" for name in _READ_OPTIONS if getattr(options, name) is not None]
    if given:
        raise InputError(f"{', '.join(given)}: only for reading a .pth; {options.source} has its own settings")
    metric = load_metric(options.source)
    write_state_dict(options.target, state_dict_from_flax(metric.variables, metric.settings))
    return [
        f"{options.target}: written; residual blocks {metric.settings.blocks}",
        f"PyTorch must feed it {metric.settings.channel_order.upper()} images in [-1, 1],"
        f" {metric.settings.image_size} pixels a side",
    ]


def _manipulator_from_pytorch(options: argparse.Namespace) -> list[str]:
    state_dicts = read_state_dicts(options.source)
    try:
        settings = manipulator_settings(state_dicts)
        variables = variables_from_state_dicts(state_dicts, settings)
    except InputError as error:
        raise InputError(f"{options.source}: {error}") from error
    save_manipulator(options.target, Manipulator(variables, settings))
    weights = sum(array.size for arrays in state_dicts.values() for array in arrays.values())
    return [
        f"{options.source}: {', '.join(NETWORKS)}; {weights:,} weights",
        f"{options.target}: written; {settings.coefficients} coefficients, {settings.emotions} emotions, windows of"
        f" {settings.window} frames (as published; the file does not say)",
    ]


def _manipulator_to_pytorch(options: argparse.Namespace) -> list[str]:
    manipulator = load_manipulator(options.source)
    write_state_dicts(options.target, state_dicts_from_variables(manipulator.variables, manipulator.settings))
    return [f"{options.target}: written; state dicts of {', '.join(NETWORKS)}"]


_NAMES = {"metric": "a correlation metric", "arcface": "an ArcFace backbone"}


if __name__ == "__main__":
    sys.exit(main())
