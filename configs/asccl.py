"""Trains the ASCCL correlation metric on frame pairs of one sentence said in two emotions.

    asccl prepare MEAD --layout mead --output records
    python -m asccl_jax.main --config configs/asccl.py --workdir runs/asccl

Hardware: the default is the published network (IResNet-50 at 224 px, batch 8) and wants a GPU or TPU; with more devices
raise `--config.batch_size`, BatchNorm groups stay 8 images. On two CPU cores a step of it takes about 8 seconds.
A trunk to start from: `asccl convert metric backbone.pth DIR`, then `--config.init_from=DIR`.

Variants, `--config configs/asccl.py:NAME`:

- `demo`: an 18-layer trunk at 112 px on the synthetic talking heads; 5 minutes on two CPU cores. Expect a held-out NCE
  (`eval/nce`, chance 18.02) of about 3.6, from about 12 untrained.
- `smoke`: a toy network at 64 px, a few steps; seconds on one core. Expect nothing but that it runs.
"""

from ml_collections import ConfigDict, config_dict

VARIANTS = ("", "demo", "smoke")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe of a variant: "" (paper scale), "demo" or "smoke"."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}: expected {', '.join(filter(None, VARIANTS))} or none")
    config = ConfigDict()
    config.task = "metric"
    config.compat = "paper"  # "released" reproduces the public code, see docs/metric.md
    config.seed = 42  # released train_landmarks.py
    config.dtype = "auto"  # float32 on CPU, bfloat16 elsewhere; weights, statistics and losses are float32

    config.model = ConfigDict()  # fields of MetricSettings; None: as `compat` says
    config.model.depth = 50  # paper 4.1: ArcFace IResNet-50
    config.model.stage_blocks = config_dict.placeholder(tuple)  # None: those of `depth`
    config.model.stage_widths = (64, 128, 256, 512)  # iresnet.py
    config.model.image_size = 224  # released data loader
    config.model.centre_counts = (32, 16, 8, 4)  # released model_landmarks.py
    config.model.temperature = 0.07  # paper, CUT
    config.model.loss_scale = 0.3  # released model_landmarks.py
    config.model.weighting = config_dict.placeholder(str)  # paper: per_location
    config.model.weight_reduction = config_dict.placeholder(str)  # mean; the paper does not say
    config.model.weight_gradient = config_dict.placeholder(str)  # paper: stopped
    config.model.border = config_dict.placeholder(str)  # inside; the released code wraps
    config.model.mask_same_centre = config_dict.placeholder(bool)  # False in paper and code
    config.model.resizing = config_dict.placeholder(str)  # antialiased; released training samples
    config.model.channel_order = config_dict.placeholder(str)  # rgb; released training is bgr
    config.model.bn_group_size = 8  # one GPU with batch 8 as published; 0: the global batch
    config.init_from = ""  # directory of a metric to start from; "": random weights

    config.data = ConfigDict()
    config.data.dir = "records"
    config.data.pairing = "aligned"  # "mispaired": the control that shows what right pairs are worth
    config.data.max_hold = 3  # entries an alignment may hold one frame: 0.1 s at 30 frames/s; 0: no limit
    config.data.threads = 4
    config.data.prefetch = 4

    config.batch_size = 8  # released training script
    config.accumulation = 1  # passes over equal parts of the batch that make an update; more need less memory
    config.fsdp = 1  # devices that weights and optimiser state are split over; 1: a whole copy on each
    config.epochs = 50  # about 50 are advised by the released README; MEAD's have 8,513 steps of 8 pairs
    config.steps = 0  # 0: `epochs` times the frame pairs of the training split, by `batch_size`
    config.learning_rate = 1e-3  # released train_landmarks.py: Adam
    config.learning_rate_schedule = "constant"  # released train_landmarks.py; or "cosine", to zero at the last step

    config.log_every = 50
    config.evaluate_every = 2000
    config.checkpoint_every = 1000
    config.keep_checkpoints = 2  # newest ones; the best one scored stays besides
    config.keep_every = 0  # steps; checkpoints at their multiples stay for good; 0: none
    config.evaluation = ConfigDict()
    config.evaluation.pairs = 300  # held-out frame pairs, evenly spaced
    config.evaluation.draws = 8  # one draw of locations alone moves the mean by 8 %
    config.evaluation.batch_size = 16
    config.report_groups = 100  # queries compared in the report at the end, a minute at 112 px; 0: no report
    config.compilation_cache_dir = config_dict.placeholder(str)  # None: the user's cache; "": no cache

    if variant == "demo":
        _demo(config)
    elif variant == "smoke":
        _smoke(config)
    return config


def _demo(config: ConfigDict) -> None:
    config.model.depth = 18
    config.model.image_size = 112
    config.steps = 285  # five to seven minutes on two cores
    config.learning_rate_schedule = "cosine"  # a short run ends well only if its last steps are small
    config.log_every = 1
    config.evaluate_every = 95
    config.checkpoint_every = 95
    config.evaluation.pairs = 64


def _smoke(config: ConfigDict) -> None:
    config.model.stage_blocks = (1, 1, 1, 1)
    config.model.stage_widths = (8, 16, 24, 32)
    config.model.image_size = 64
    config.steps = 8
    config.log_every = 1
    config.evaluate_every = 4
    config.checkpoint_every = 2
    config.evaluation.pairs = 8
    config.evaluation.draws = 2
    config.evaluation.batch_size = 8
    config.report_groups = 4
