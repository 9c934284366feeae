"""Trains the neural renderer (NED's recurrent generator) on aligned faces; a frozen ASCCL metric supervises its frames.

    asccl data reconstruct VIDEOS --output records
    python -m asccl_jax.main --config configs/renderer.py --workdir runs/renderer --config.metric.path=runs/asccl

`config.data.dir` may as well be a folder of NED's, as it is. Many actors make a renderer to fine-tune one actor's from:
`--config.init_from=runs/many --config.epochs=15`.

Hardware: the default is the published network (71 M parameters, 256 px), for a GPU or TPU; on two CPU cores one update
of four frames takes about 20 seconds. A VGG-19 to compare by: `asccl convert vgg19 FILE DIR`, then
`--config.perceptual.vgg=DIR`; without one, and with a metric, the metric's own trunk takes its place.

Variants, `--config configs/renderer.py:NAME`:

- `demo`: a narrow network at 64 px on a synthetic actor (`asccl data synthesise actors --actors 1`); about eight
  minutes on two CPU cores. Expect held-out frames with a PSNR of about 27 dB.
- `video`: the demo's network, taught by pixels alone and in smaller chunks, which shows most after few minutes
  (`launch/quickstart.sh`); about ten minutes on two CPU cores. Expect held-out frames with a PSNR of about 32 dB.
- `smoke`: a toy network, a few steps; seconds on one core. Expect nothing but that it runs.
"""

from ml_collections import ConfigDict, config_dict

VARIANTS = ("", "demo", "video", "smoke")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe of a variant: "" (paper scale), "demo", "video" or "smoke"."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}: expected {', '.join(filter(None, VARIANTS))} or none")
    config = ConfigDict()
    config.task = "renderer"
    config.compat = "paper"  # "released": the metric as the public code calls it, see docs/metric.md
    config.seed = 0
    config.dtype = "auto"  # float32 on CPU, bfloat16 elsewhere; weights, statistics and losses are float32

    config.model = ConfigDict()  # fields of RendererSettings; all as published
    config.model.image_size = 256
    config.model.generator_width = 64
    config.model.downsamplings = 3
    config.model.residual_blocks = 9
    config.model.discriminator_width = 64
    config.model.discriminator_scales = 2
    config.model.discriminator_layers = 3
    config.model.mouth = True  # a discriminator of the mouth
    config.model.eyes = False  # one of the eyes; published as an option, off
    config.model.roi_size = 72  # what they see, pixels
    config.init_from = ""  # directory of a renderer to fine-tune; "": random weights

    config.adversarial = ConfigDict()
    config.adversarial.mode = "ls"  # NED: least squares; or "hinge"
    config.adversarial.weight = 1.0
    config.adversarial.feature_matching_weight = 10.0  # NED
    config.metric = ConfigDict()  # the correlation metric as a loss
    config.metric.path = ""  # directory of a trained metric; "": none
    config.metric.weight = 1.0  # released renderer/train.py
    config.perceptual = ConfigDict()
    config.perceptual.vgg = ""  # directory of a converted VGG-19; "": the metric's own trunk, if there is a metric
    config.perceptual.weight = 10.0  # NED
    config.pixel_weight = 0.0  # mean absolute difference; not in the published code

    config.data = ConfigDict()
    config.data.dir = "records"
    config.data.speakers = ()  # people to train on, such as the one to fine-tune for; (): all
    config.data.region = "face"  # what is drawn, of records: "face", or "head" with hair and neck of the head model
    config.data.detail = False  # of records, the surface with wrinkles where DECA gave them
    config.data.frames_per_sequence = 50  # NED's sub-folders
    config.data.length = 12  # frames generated of a sequence in the first epochs; NED
    config.data.longest = 48  # in the last; NED
    config.data.epochs_per_length = 5  # after which it doubles; NED
    config.data.noise = "sequence"  # shifts and scales of the conditioning; published: "frame"; "none"
    config.data.fresh_start_share = 0.25  # sequences that begin as a video does
    config.data.cache_mb = 2048  # memory for decoded frames
    config.data.threads = 4
    config.data.prefetch = 4

    config.chunk = 4  # frames generated, judged and learnt from at once; NED: four a GPU
    config.backpropagate_frames = 1  # NED: no gradient through earlier frames
    config.remat = False  # compute activations twice to keep less of them
    config.batch_size = 1  # sequences; NED
    config.accumulation = 1  # passes over equal parts of the batch that make an update; more need less memory
    config.fsdp = 1  # devices that weights and optimiser state are split over; 1: a whole copy on each
    config.epochs = 60  # NED from scratch; 15 to 20 from a renderer of many actors
    config.steps = 0  # sequences' updates; 0: as many as `epochs` have
    config.learning_rate = 2e-4  # NED: Adam, betas 0.5 and 0.999
    config.learning_rate_schedule = "constant"  # NED; or "cosine", to zero at the last step

    config.log_every = 50
    config.evaluate_every = 500
    config.checkpoint_every = 500
    config.keep_checkpoints = 2  # newest ones; the best one scored stays besides
    config.keep_every = 0  # steps; checkpoints at their multiples stay for good; 0: none
    config.evaluation = ConfigDict()
    config.evaluation.sequences = 32  # held-out sequences, evenly spaced
    config.evaluation.batch_size = 4
    config.report_groups = 12  # held-out clips in the report at the end; 0: no report
    config.compilation_cache_dir = config_dict.placeholder(str)  # None: the user's cache; "": no cache

    if variant == "demo":
        _demo(config)
    elif variant == "video":
        _video(config)
    elif variant == "smoke":
        _smoke(config)
    return config


def _demo(config: ConfigDict) -> None:
    config.model.image_size = 64
    config.model.generator_width = 16
    config.model.residual_blocks = 6
    config.model.discriminator_width = 16
    config.model.roi_size = 24
    config.data.longest = 24
    config.data.epochs_per_length = 3
    config.pixel_weight = 20.0  # colours come first, where a run is short
    config.steps = 450
    config.learning_rate = 5e-4
    config.learning_rate_schedule = "cosine"  # a short run ends well only if its last steps are small
    config.log_every = 10
    config.evaluate_every = 150
    config.checkpoint_every = 150


def _video(config: ConfigDict) -> None:
    _demo(config)
    config.adversarial.weight = 0.0  # a discriminator's first hundred updates make specks, not detail
    config.adversarial.feature_matching_weight = 0.0
    config.chunk = 2  # twice the updates of as many frames
    config.steps = 3200
    config.learning_rate = 1e-3
    config.evaluate_every = 800
    config.checkpoint_every = 800


def _smoke(config: ConfigDict) -> None:
    config.model.image_size = 32
    config.model.generator_width = 4
    config.model.residual_blocks = 2
    config.model.discriminator_width = 4
    config.model.discriminator_layers = 1
    config.model.roi_size = 16
    config.data.length = 4
    config.data.longest = 8
    config.data.epochs_per_length = 1
    config.batch_size = 2
    config.steps = 8
    config.log_every = 1
    config.evaluate_every = 4
    config.checkpoint_every = 2
    config.evaluation.sequences = 2
    config.evaluation.batch_size = 2
    config.report_groups = 2
