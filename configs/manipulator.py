"""Trains the expression manipulator (NED) on coefficient tracks; a frozen ASCCL metric supervises its meshes.

    asccl data reconstruct MEAD.csv --output tracks                  (or: asccl data synthesise tracks --output tracks)
    asccl head export --output tracks/head.npz
    python -m asccl_jax.main --config configs/manipulator.py --workdir runs/manipulator \
        --config.mesh.metric=runs/asccl

Hardware: the default is the published network (15 M parameters); a step without the metric takes about 2 seconds on two
CPU cores. A start to fine-tune from: `asccl convert manipulator 20_nets.pth DIR`, then `--config.init_from=DIR`.

Variants, `--config configs/manipulator.py:NAME`:

- `demo`: narrow networks on the synthetic speakers; three minutes on two CPU cores, eight with the demo's metric.
  Expect the emotion asked for in nearly all frames, a jaw correlation of 0.99 and a mouth error of about 4 mm.
- `smoke`: a toy network, a few steps; seconds on one core. Expect nothing but that it runs.
"""

from ml_collections import ConfigDict, config_dict

VARIANTS = ("", "demo", "smoke")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe of a variant: "" (paper scale), "demo" or "smoke"."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}: expected {', '.join(filter(None, VARIANTS))} or none")
    config = ConfigDict()
    config.task = "manipulator"
    config.compat = "paper"  # "released": the public code loads the metric and never uses it
    config.seed = 777  # NED train_options.py
    config.dtype = "auto"  # of the metric, in "mesh": float32 on CPU, bfloat16 elsewhere; all else is float32

    config.model = ConfigDict()  # fields of ManipulatorSettings; all widths as published
    config.model.style_size = 16
    config.model.latent_size = 4
    config.model.hidden_size = 64
    config.model.generator_width = 512
    config.model.generator_head_width = 1024
    config.model.encoder_widths = (512, 256)
    config.model.encoder_lstm_width = 128
    config.model.encoder_head_widths = (128, 64)
    config.model.lstm_layers = 2
    config.model.lstm_biases = 2  # two trained bias vectors a gate, as PyTorch's: Adam's path is the published one
    config.model.window = 10  # frames; NED options
    config.init_from = ""  # directory of a manipulator to fine-tune; "": random weights

    config.mesh = ConfigDict()  # supervision of the meshes, as the paper says
    config.mesh.metric = ""  # directory of a trained metric; "": none
    config.mesh.weight = 1.0  # the paper gives none; docs/manipulator.md has a table of what it does
    config.mesh.first_step = 0  # steps done without it
    config.mesh.region = "face"  # where meshes are compared; "lower_face": lips to chin (then weigh it less)
    config.mesh.frames_per_step = 8  # of the batch's frames, drawn anew each time; 0: all, as CDRL does
    config.mesh.image_size = 0  # side of the drawn heads; 0: the metric's
    config.mesh.modes = ("latent", "reference")  # generator updates it takes part in; CDRL: ("reference",)
    config.mesh.head = ""  # file of `asccl head export`; "": head.npz in data.dir
    config.mesh.template = ""  # code dict whose first frame gives identity, pose, camera; "": of the first neutral clip

    config.data = ConfigDict()
    config.data.dir = "tracks"
    config.data.hop = 1  # frames between the starts of windows

    config.batch_size = 64  # NED options
    config.accumulation = 1  # passes over equal parts of the batch that make an update; more need less memory
    config.fsdp = 1  # devices that weights and optimiser state are split over; 1: a whole copy on each
    config.epochs = 10  # NED niter; 20 on Aff-Wild2
    config.falling_epochs = 10  # NED niter_decay
    config.steps = 0  # 0: `epochs` times the windows of the training split
    config.learning_rate = 1e-4  # NED options: all four networks
    config.learning_rate_schedule = "stairs"  # an equal step down after each epoch, as published; constant, cosine

    config.log_every = 50
    config.evaluate_every = 500
    config.checkpoint_every = 500
    config.keep_checkpoints = 2  # newest ones; the best one scored stays besides
    config.keep_every = 0  # steps; checkpoints at their multiples stay for good; 0: none
    config.evaluation = ConfigDict()
    config.evaluation.windows = 1024  # held-out windows, evenly spaced
    config.evaluation.batch_size = 256
    config.report_groups = 12  # held-out clips in the report at the end; 0: no report
    config.compilation_cache_dir = config_dict.placeholder(str)  # None: the user's cache; "": no cache

    if variant == "demo":
        _demo(config)
    elif variant == "smoke":
        _smoke(config)
    return config


def _demo(config: ConfigDict) -> None:
    config.model.generator_width = 128
    config.model.generator_head_width = 256
    config.model.encoder_widths = (128, 96)
    config.model.encoder_lstm_width = 64
    config.model.encoder_head_widths = (64, 64)
    config.steps = 800
    config.learning_rate = 5e-4
    config.learning_rate_schedule = "cosine"  # a short run ends well only if its last steps are small
    config.mesh.first_step = 500  # first the emotions: the paper too starts from a manipulator that has learnt them
    config.mesh.frames_per_step = 4  # a third of the time of 8
    config.log_every = 10
    config.evaluate_every = 200
    config.checkpoint_every = 200


def _smoke(config: ConfigDict) -> None:
    config.model.generator_width = 16
    config.model.generator_head_width = 16
    config.model.encoder_widths = (16, 16)
    config.model.encoder_lstm_width = 8
    config.model.encoder_head_widths = (8, 8)
    config.batch_size = 8
    config.steps = 8
    config.learning_rate_schedule = "constant"  # so that a test may change the steps of a run
    config.log_every = 1
    config.evaluate_every = 4
    config.checkpoint_every = 2
    config.evaluation.windows = 16
    config.evaluation.batch_size = 8
    config.report_groups = 1
