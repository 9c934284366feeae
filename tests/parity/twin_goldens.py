"""Goldens of any seed and size, made by the PyTorch twins: what the public set has of one seed, so that a replay that
knows its sizes by heart is seen. Networks are small, and their manifests are made with them.

`flame_deca` has no twin beside the bridge, which is PyTorch itself: its golden is the bridge's and is there for the
geometry in JAX. `deca_encoders` is the bridge alone, `postprocess` no network and `renderer_train` a whole programme:
they have none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from asccl_jax.losses.generator import VGG_WEIGHTS
from asccl_jax.models.manipulator import NETWORKS
from asccl_jax.settings import ManipulatorSettings, MetricSettings, RendererSettings
from tests.parity import flame_deca, recipe
from tests.twins.manipulator_twin import MODES, ManipulatorTwin, TwinBatch, train_step
from tests.twins.metric_twin import CorrelationMetricTwin, draw_centres
from tests.twins.renderer_twin import DiscriminatorTwin, GeneratorTwin, VggTwin

__all__ = [
    "Golden",
    "head",
    "manipulator",
    "manipulator_inference",
    "metric",
    "renderer_default",
    "renderer_parts",
]

Manifest: TypeAlias = list[dict[str, Any]]
Golden: TypeAlias = tuple[dict[str, np.ndarray], dict[str, Manifest]]
"""Arrays of a golden, and the manifests of its networks."""

_Found: TypeAlias = "dict[str, Tensor | dict[str, Tensor | None]]"

_LARGEST_TWIN = 4096
_SAMPLES = 64


def _golden(inputs: Mapping[str, Any], run: Callable[[torch.dtype], _Found]) -> dict[str, np.ndarray]:
    """A golden of what a run finds in float32 and in float64, in the layout of the public ones."""
    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    for name, value in run(torch.float32).items():
        for part, array in _parts(name, value):
            arrays[part] = array
    for name, value in run(torch.float64).items():
        for part, array in _parts(name, value):
            if array.dtype == np.float64 and array.size <= _LARGEST_TWIN:
                arrays[f"f64/{part}"] = array
    return arrays


def _parts(name: str, value: Tensor | dict[str, Tensor | None]) -> Iterator[tuple[str, np.ndarray]]:
    """What is stored: of parameter-shaped tensors norms and four entries, of large ones also a few statistics."""
    if isinstance(value, dict):
        count = 8 if name.startswith("traj/final") and not name.endswith(("params", "bn")) else 4
        absent = (np.nan, np.full(count, np.nan, np.float32))
        found = [absent if t is None else recipe.summarise(key, t.numpy(), count) for key, t in value.items()]
        yield f"{name}/keys", np.array(list(value))
        yield f"{name}/l2", np.array([norm for norm, _ in found])
        yield f"{name}/samples", np.stack([samples for _, samples in found])
        return
    array = value.detach().numpy()
    yield name, array
    if array.size > _LARGEST_TWIN:
        exact = array.astype(np.float64)
        yield f"{name}/shape", np.array(array.shape)
        yield f"{name}/stats", np.array([exact.mean(), exact.std(), np.abs(exact).max(), np.linalg.norm(exact)])
        yield f"{name}/samples", array.reshape(-1)[recipe.sample_indices(name, array.size, _SAMPLES)]


def _manifest(network: nn.Module, prefix: str) -> Manifest:
    """Entries of a network's state dict; of a block that is registered twice, both names of each tensor."""
    kinds = {nn.Linear: "linear_w", nn.Conv2d: "conv_w", nn.ConvTranspose2d: "convT_w", nn.PReLU: "prelu_w"}
    modules = dict(network.named_modules(remove_duplicate=False))
    entries = []
    for key, tensor in network.state_dict().items():
        owner, _, leaf = key.rpartition(".")
        module = modules[owner]
        if isinstance(module, nn.LSTM):
            kind = "bias" if leaf.startswith("bias") else "lstm_w"
        elif isinstance(module, nn.BatchNorm2d) and leaf in ("weight", "bias"):
            kind = {"weight": "norm_w", "bias": "norm_b"}[leaf]
        else:
            named = {"running_mean": "run_mean", "running_var": "run_var", "num_batches_tracked": "counter"}
            kind = named.get(leaf) or ("bias" if leaf == "bias" else kinds[type(module)])
        entry = {"key": f"{prefix}{key}", "shape": list(tensor.shape), "kind": kind}
        if ".conv_block." in key:
            entry["alias_of"] = entry["key"].replace(".conv_block.", ".resnetblock_sequential.")
        entries.append(entry)
    return entries


def _loaded(network: nn.Module, manifest: Manifest, prefix: str, seed: int, dtype: torch.dtype) -> nn.Module:
    weights = recipe.make_weights(manifest, seed, prefix=prefix)
    network.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in weights.items()})
    return network.to(dtype)


def _gradients(network: nn.Module, prefix: str) -> dict[str, Tensor | None]:
    return {f"{prefix}{name}": _copied(parameter.grad) for name, parameter in network.named_parameters()}


def _copied(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.clone()


def _weights(network: nn.Module, prefix: str) -> dict[str, Tensor | None]:
    return {f"{prefix}{name}": parameter.detach().clone() for name, parameter in network.named_parameters()}


def _statistics(network: nn.Module, prefix: str) -> dict[str, Tensor | None]:
    entries = network.state_dict().items()
    return {f"{prefix}{key}": value.clone() for key, value in entries if key.endswith(("running_mean", "running_var"))}


def metric(settings: MetricSettings, *, seed: int, batch: int, size: int, steps: int) -> Golden:
    """A golden of the metric: features, released loss, gradients, statistics, Adam steps."""
    twin, prefix = CorrelationMetricTwin(settings), "metric."
    manifest = _manifest(twin, prefix)
    random = np.random.default_rng(seed)
    parts = ["eval", "train", *(f"traj{step}" for step in range(steps))]
    centres = {part: draw_centres(settings, size, random) for part in parts}
    inputs: dict[str, Any] = {"cfg": [seed, batch, size]}
    for part, places in centres.items():
        name, suffix = (part, "") if part in ("eval", "train") else ("traj", f"_step{part[4:]}")
        for stage, own in enumerate(places, 1):
            inputs[f"{name}/centres{stage}{suffix}"] = own.astype(np.int32)
            inputs[f"{name}/perm{stage}{suffix}"] = random.permutation(8 * len(own)).astype(np.int32)
    source, noise = (
        recipe.make_input(f"metric.{name}", (batch, 3, size, size), seed, "uniform") for name in ("source", "noise")
    )
    pair = source, recipe.make_pair(source, noise)

    def run(dtype: torch.dtype) -> _Found:
        images = [torch.from_numpy(image).to(dtype) for image in pair]
        network = _loaded(twin, manifest, prefix, seed, dtype).eval()
        with torch.no_grad():
            features, loss = network.features(images[0]), network(*images, centres["eval"])
        found: _Found = {f"eval/feat{stage}": maps for stage, maps in enumerate(features, 1)}
        found |= {"eval/loss": loss.loss, "eval/level_losses": torch.stack(loss.stage_losses)}
        network = _loaded(twin, manifest, prefix, seed, dtype).train()
        loss = network(*images, centres["train"])
        network.zero_grad(set_to_none=True)
        loss.loss.backward()
        found |= {"train/loss": loss.loss.detach(), "train/level_losses": torch.stack(loss.stage_losses).detach()}
        found |= {"train/grad": _gradients(network, prefix), "train/bn": _statistics(network, prefix)}
        network = _loaded(twin, manifest, prefix, seed, dtype).train()
        optimizer, losses = torch.optim.Adam(network.parameters(), lr=1e-3), []
        for step in range(steps):
            losses.append(network(*images, centres[f"traj{step}"]).loss)
            optimizer.zero_grad(set_to_none=True)
            losses[-1].backward()
            optimizer.step()
        final = {"traj/final_params": _weights(network, prefix), "traj/final_bn": _statistics(network, prefix)}
        return found | {"traj/loss": torch.stack(losses).detach(), **final}

    return _golden(inputs, run), {"metric": manifest}


def manipulator(settings: ManipulatorSettings, *, seed: int, batch: int, steps: int) -> Golden:
    """A golden of the manipulator: networks, both losses in both modes, gradients, training steps."""
    twin = ManipulatorTwin(settings)
    manifests = _manipulator_manifests(twin)

    def batch_of(step: int, dtype: torch.dtype) -> TwinBatch:
        def drawn(name: str, *shape: int) -> Tensor:
            return torch.from_numpy(recipe.make_input(f"manip.step{step}.{name}", (batch, *shape), seed)).to(dtype)

        def label(name: str) -> Tensor:
            own = recipe.make_input(f"manip.step{step}.{name}", (batch,), seed, "int", 0, settings.emotions)
            return torch.from_numpy(own)

        window = (settings.window, settings.coefficients)
        return TwinBatch(
            drawn("x_src", *window),
            label("y_src"),
            drawn("x_ref", *window),
            label("y_ref"),
            drawn("z_trg", settings.latent_size),
        )

    def gradients() -> dict[str, Tensor | None]:
        return dict(
            itertools.chain.from_iterable(
                _gradients(getattr(twin, name), f"manip.{name}.").items() for name in NETWORKS
            )
        )

    def run(dtype: torch.dtype) -> _Found:
        _load_manipulator(twin, manifests, seed, dtype)
        given = batch_of(0, dtype)
        with torch.no_grad():
            styles = {mode: twin.target_style(mode, given) for mode in MODES}
            fakes = {mode: twin.generate(given.source, styles[mode]) for mode in MODES}
            found: _Found = {
                "eval/mapping_out": styles["latent"],
                "eval/style_encoder_out": styles["reference"],
                "eval/discriminator_src": twin.judge(given.source, given.source_emotion),
                "eval/discriminator_fake": twin.judge(fakes["latent"], given.reference_emotion),
                **{f"eval/generator_{mode}": fake for mode, fake in fakes.items()},
            }
        short = {"adversarial": "adv", "style": "sty", "cycle": "cyc", "mouth": "mouth", "real": "real", "fake": "fake"}
        for mode, part in itertools.product(MODES, ("d", "g")):
            terms = (twin.discriminator_parts if part == "d" else twin.generator_parts)(mode, given)
            loss = torch.stack([-value if term == "mouth" else value for term, value in terms.items()]).sum()
            twin.zero_grad(set_to_none=True)
            loss.backward()
            found |= {f"{part}_{mode}/{short[term]}": value.detach() for term, value in terms.items()}
            found |= {f"{part}_{mode}/loss": loss.detach(), f"{part}_{mode}/grad": gradients()}
        optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(getattr(twin, name).parameters(), lr=1e-4, betas=(0.0, 0.99)) for name in NETWORKS
        }
        rows = []
        for step in range(steps):
            terms = train_step(twin, optimizers, batch_of(step, dtype))
            opposed = [terms[f"{mode}/{term}"] for mode in MODES for term in ("real", "fake")]
            own = [terms[f"{mode}/{term}"] for mode in MODES for term in ("adversarial", "style", "cycle", "mouth")]
            rows.append(torch.stack(opposed + own))
        final = {f"traj/final_{name}": _weights(getattr(twin, name), f"manip.{name}.") for name in NETWORKS}
        return found | {"traj/losses": torch.stack(rows), **final}

    return _golden({"cfg": [seed, batch, settings.window]}, run), manifests


def manipulator_inference(settings: ManipulatorSettings, *, seed: int, frames: int) -> Golden:
    """A golden of the manipulator's test programme; as the public one in float32 alone."""
    twin, window = ManipulatorTwin(settings), settings.window
    manifests = _manipulator_manifests(twin)
    _load_manipulator(twin, manifests, seed, torch.float32)
    emotions = {"infer_label": [4], "infer_label3": [4, 5, 1]}
    arrays: dict[str, np.ndarray] = {"cfg": np.array([seed, frames, window])}
    styles = {}

    def clip(name: str, length: int) -> Tensor:
        return torch.from_numpy(recipe.make_input(f"manip.infer.{name}", (length, settings.coefficients), seed))

    with torch.no_grad():
        for name, labels in emotions.items():
            z = torch.from_numpy(recipe.make_input(f"{name}.z", (1, settings.latent_size), seed))
            arrays[f"{name}/z"] = z.numpy()
            styles[name] = twin.mapping_network(z.expand(len(labels), -1), torch.tensor(labels))
        medians = []
        for number in range(2):
            windows = clip(f"ref{number}", window + 4 + number).unfold(0, window, 1).transpose(1, 2)
            medians.append(_median(twin.style_of(windows).double()).float())
        styles |= {"infer_reference": medians[0][None], "infer_reference_multi": torch.stack(medians)}
        # OpenCV's kernel with automatic deviation, as the published programme weights its windows.
        weights = torch.from_numpy(cv2.getGaussianKernel(window, 0, cv2.CV_32F))
        windows = clip("src", frames).unfold(0, window, 1).transpose(1, 2)
        for name, own in styles.items():
            choice = [min(int(first // (frames / len(own))), len(own) - 1) for first in range(len(windows))]
            made = twin.generate(windows, own[choice])
            output = torch.zeros(frames, settings.coefficients)
            for first, part in enumerate(made):
                output[first : first + window] += weights * part
            output[: window - 1] = made[0][: window - 1]
            output[1 - window :] = twin.generate(windows[-1:], own[-1:])[0][1 - window :]
            arrays[f"{name}/styles"], arrays[f"{name}/output"] = own.numpy(), output.numpy()
            arrays[f"{name}/gaussian_window"] = weights[:, 0].numpy()
    return arrays, manifests


def _median(points: Tensor) -> Tensor:
    """The geometric median as the published programme finds it: Weiszfeld's steps from the mean, to one below 1e-5."""
    found, moved = points.mean(dim=0), torch.inf
    while moved >= 1e-5:
        weights = 1 / (points - found).norm(dim=1, keepdim=True)
        before, found = found, (weights * points).sum(dim=0) / weights.sum()
        moved = float((found - before).norm())
    return found


def _manipulator_manifests(twin: ManipulatorTwin) -> dict[str, Manifest]:
    return {f"manip_{name}": _manifest(getattr(twin, name), f"manip.{name}.") for name in NETWORKS}


def _load_manipulator(twin: ManipulatorTwin, manifests: Mapping[str, Manifest], seed: int, dtype: torch.dtype) -> None:
    for name in NETWORKS:
        _loaded(getattr(twin, name), manifests[f"manip_{name}"], f"manip.{name}.", seed, dtype)


def renderer_parts(settings: RendererSettings, vgg_widths: Sequence[int], *, seed: int) -> Golden:
    """A golden of the renderer's networks, losses and gradients, regions and recurrence."""
    generator, discriminator, vgg = GeneratorTwin(settings), DiscriminatorTwin(settings), VggTwin(vgg_widths)
    manifests = {"renderer_G_small": _manifest(generator, "renderer.G."), "vgg19": _manifest(vgg, "")}
    for short in ("D", "Dm"):
        manifests[f"renderer_{short}_small"] = _manifest(discriminator, f"renderer.{short}.")
    size, roi = settings.image_size, settings.roi_size
    centres = np.random.default_rng(seed).integers(0, size, (6, 2)).astype(np.int32)
    clamped = np.clip(centres, roi // 2, size - roi // 2)

    def run(dtype: torch.dtype) -> _Found:
        def drawn(name: str, *shape: int, low: float = -1.0) -> Tensor:
            full = (*shape, size, size)
            return torch.from_numpy(recipe.make_input(f"render.{name}", full, seed, "uniform", low, 1)).to(dtype)

        _loaded(generator, manifests["renderer_G_small"], "renderer.G.", seed, dtype).train()
        _loaded(discriminator, manifests["renderer_D_small"], "renderer.D.", seed, dtype).train()
        _loaded(vgg, manifests["vgg19"], "", seed, dtype)
        blocks, previous = drawn("parts.A", 2, 27, low=0.0), drawn("parts.prev", 2, 6).requires_grad_()
        mask = torch.tensor(recipe.make_input("render.parts.mask", (2, 1, size, size), seed, "disc"), dtype=dtype)
        cotangent = torch.from_numpy(recipe.make_input("render.parts.cotangent", (2, 3, size, size), seed)).to(dtype)
        generator.zero_grad(set_to_none=True)
        image = generator(blocks, previous, mask)
        moved = _statistics(generator, "renderer.G.")
        (image * cotangent).mean().backward()
        found: _Found = {
            "G/train_out": image,
            "G/grad": _gradients(generator, "renderer.G."),
            "G/grad_prev": previous.grad,
            "G/instance_norm_stats_after_one": moved,
        }
        real, fake = drawn("parts.B", 2, 3), drawn("parts.F", 2, 3).requires_grad_()
        found |= _judged(discriminator, blocks[:, 18:], real, fake)
        fake = fake.detach().requires_grad_()
        loss, taps = _perceptual(vgg, fake, real)
        loss.backward()
        found |= {"vgg/loss": loss, "vgg/grad_fake": fake.grad}
        found |= {f"vgg/relu{number}": tap for number, tap in enumerate(taps, 1)}
        pictures = drawn("parts.roi", 6, 3)
        found["roi/crop"] = _regions(pictures, centres, roi)
        clip = torch.cat([drawn(f"item0.{name}", 1, 10, 3, low=0.0) for name in ("nmfc", "eye", "shape")], dim=2)[0]
        truth = (drawn("item0.rgb", 1, 10, 3)[0] * mask[:1] - (1 - mask[:1]))[:2]
        frames = list(truth)
        with torch.no_grad():
            for number in range(4):
                context = clip[number : number + 3].flatten(0, 1)[None]
                frames.append(generator(context, torch.cat(frames[-2:])[None], mask[:1])[0])
        found["inference/frames"] = torch.stack(frames[2:])
        _loaded(generator, manifests["renderer_G_small"], "renderer.G.", seed, dtype).eval()
        with torch.no_grad():
            found["G/eval_out"] = generator(blocks, previous, mask)
        return found

    inputs = {"cfg": [seed, size, roi, settings.generator_width, settings.discriminator_width]}
    arrays = _golden({**inputs, "roi/centres": centres, "roi/clamped": clamped.astype(np.int64)}, run)
    return arrays, manifests


def _judged(discriminator: nn.Module, block: Tensor, real: Tensor, fake: Tensor) -> _Found:
    """Maps of the real images, losses in both modes, and the two gradients."""
    discriminator.zero_grad(set_to_none=True)
    of_real, terms = _opposed(discriminator, block, real, fake)
    of_fake = discriminator(torch.cat([block, fake], dim=1))
    found: _Found = {
        "loss/D_real": terms["real"],
        "loss/D_fake": terms["fake"],
        "loss/G_GAN": terms["adversarial"],
        "loss/G_GAN_Feat": terms["feature_matching"],
        "loss/hinge_D_real": _over_scales(of_real, lambda m: functional.relu(1 - m).mean()),
        "loss/hinge_D_fake": _over_scales(of_fake, lambda m: functional.relu(1 + m).mean()),
        "loss/hinge_G": _over_scales(of_fake, lambda m: -m.mean()),
    }
    pulled = terms["adversarial"] + terms["feature_matching"]
    (found["loss/grad_fake_of_GAN_plus_Feat"],) = torch.autograd.grad(pulled, fake)
    (0.5 * (terms["real"] + terms["fake"])).backward()
    for scale, layers in enumerate(of_real):
        found |= {f"D/train_scale{scale}_layer{layer}": maps for layer, maps in enumerate(layers)}
    return found | {"loss/grad_D_of_half_sum": _gradients(discriminator, "renderer.D.")}


def _opposed(
    discriminator: nn.Module, block: Tensor, real: Tensor, fake: Tensor
) -> tuple[list[list[Tensor]], dict[str, Tensor]]:
    """A discriminator's maps of the real images, its own two terms and the two that it makes of the generator's."""
    of_real, of_fake, of_fixed = (discriminator(torch.cat([block, x], dim=1)) for x in (real, fake, fake.detach()))
    matching = [
        4 / (len(layers) - 1) * functional.l1_loss(found, expected.detach()) / len(of_real) * 10
        for layers, others in zip(of_fake, of_real, strict=True)
        for found, expected in zip(layers[:-1], others[:-1], strict=True)
    ]
    return of_real, {
        "real": _over_scales(of_real, lambda m: (m - 1).square().mean()),
        "fake": _over_scales(of_fixed, lambda m: m.square().mean()),
        "adversarial": _over_scales(of_fake, lambda m: (m - 1).square().mean()),
        "feature_matching": torch.stack(matching).sum(),
    }


def _over_scales(maps: list[list[Tensor]], distance: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([distance(layers[-1]) for layers in maps]).sum()


def _perceptual(vgg: nn.Module, fake: Tensor, real: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The weighted distance of the maps, and those of the real images."""
    with torch.no_grad():
        taps = vgg(real)
    distances = [w * functional.l1_loss(a, b) for w, a, b in zip(VGG_WEIGHTS, vgg(fake), taps, strict=True)]
    return torch.stack(distances).sum(), taps


def _regions(images: Tensor, centres: np.ndarray, side: int) -> Tensor:
    """Squares round points (x, y), moved as far as it takes to lie within the image."""
    half, size = side // 2, images.shape[-1]
    corners = np.clip(centres, half, size - half) - half
    return torch.stack([i[:, y : y + side, x : x + side] for i, (x, y) in zip(images, corners, strict=True)])


def renderer_default(settings: RendererSettings, *, seed: int) -> Golden:
    """A golden of one pass forward."""
    generator, discriminator = GeneratorTwin(settings), DiscriminatorTwin(settings)
    manifests = {
        "renderer_G_default": _manifest(generator, "renderer.G."),
        "renderer_D_default": _manifest(discriminator, "renderer.D."),
    }
    size = settings.image_size

    def run(dtype: torch.dtype) -> _Found:
        def drawn(name: str, channels: int, *distribution: Any) -> Tensor:
            array = recipe.make_input(f"render.default.{name}", (1, channels, size, size), seed, *distribution)
            return torch.tensor(array, dtype=dtype)

        _loaded(generator, manifests["renderer_G_default"], "renderer.G.", seed, dtype).train()
        _loaded(discriminator, manifests["renderer_D_default"], "renderer.D.", seed, dtype).train()
        blocks, previous, mask = (
            drawn("A", 27, "uniform", 0, 1),
            drawn("prev", 6, "uniform", -1, 1),
            drawn("mask", 1, "disc"),
        )
        with torch.no_grad():
            image = generator(blocks, previous, mask)
            maps = discriminator(torch.cat([blocks[:, 18:], image], dim=1))
            found: _Found = {"out": image, "out_strided2": image[0, :, ::2, ::2]}
            found["down_seg"] = generator.model_down_seg(blocks)
        for scale, layers in enumerate(maps):
            found |= {f"D_scale{scale}_layer{layer}": own for layer, own in enumerate(layers)}
        return found

    return _golden({"cfg": [seed, size]}, run), manifests


def head(arrays: Mapping[str, np.ndarray], manifest: Manifest, *, seed: int, size: int, batch: int) -> Golden:
    """A golden of another seed, size and batch of a golden's head, as the PyTorch bridge computes and draws it."""
    kept = {name: array for name, array in arrays.items() if name.startswith(("model/", "embedding/"))}
    _, rows, columns, _, _ = arrays["cfg"].tolist()
    random = np.random.default_rng(seed)
    scales = {"shape": (100, 1.0), "exp": (50, 1.0), "pose": (6, 0.2), "eye_pose": (6, 0.2)}
    drawn = {f"in/{name}": scale * random.standard_normal((batch, count)) for name, (count, scale) in scales.items()}
    drawn["in/cam"] = np.array([7.0, 0, 0]) + 0.05 * random.standard_normal((batch, 3))
    drawn["rot/axis"] = random.standard_normal((7, 3))
    texture = arrays["in/albedo"].shape[1:]
    drawn |= {"in/albedo": random.random((batch, *texture)), "in/light": 0.5 * random.standard_normal((batch, 9, 3))}
    drawn["in/uv_detail_normals"] = random.uniform(-1, 1, (batch, *texture))
    kept["cfg"] = np.array([seed, rows, columns, size, batch])
    for name, array in drawn.items():
        kept[name] = array.astype(np.float32)
        if name in arrays and f"f64/{name}" in arrays:
            kept[f"f64/{name}"] = kept[name].astype(np.float64)
    manifests = {"deca_D_detail": manifest}
    exact = flame_deca.replay(kept, manifests, exact=True).tensors
    kept |= {f"f64/{name}": value for name, value in exact.items() if value.dtype == np.float64}
    # What is drawn starts from the golden's own vertices, and shading from its own normals, which earlier runs make.
    kept |= {name: exact[name].astype(np.float32) for name in ("out/verts", "proj/trans_verts")}
    kept |= {"detail/uv_detail_normals": kept["in/uv_detail_normals"]}
    kept |= {name: arrays[name] for name in ("render/world2uv", "mesh/dense_faces_head")}
    for _ in range(3):
        kept |= flame_deca.replay(kept, manifests, exact=False).tensors
    return {name: value for name, value in kept.items() if "D_detail" not in name}, manifests
