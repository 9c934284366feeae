"""The renderer's update: a chunk after the one before it, losses before moves, one result on any devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from asccl_jax.errors import InputError
from asccl_jax.losses.generator import (
    crop_regions,
    feature_matching,
    judged_fake,
    judged_real,
    mean_point,
    passed_as_real,
)
from asccl_jax.models.correlation import init_variables
from asccl_jax.models.renderer import MultiscaleDiscriminator, RendererGenerator
from asccl_jax.models.vgg import Vgg, init_vgg
from asccl_jax.settings import MetricSettings, RendererSettings
from asccl_jax.tasks import Task
from asccl_jax.tasks.frame_chunks import cut_chunk, generate_chunk
from asccl_jax.tasks.frame_losses import FrameAdversaries, FrameSupervision, VggDistance, judged_frames
from asccl_jax.tasks.renderer_task import ChunkState, RendererTask
from asccl_jax.train.optimizer import adam, rate_schedule
from asccl_jax.train.sharding import data_mesh, place, replicated, split_over_data
from asccl_jax.types import SequenceBatch
from asccl_jax.weights import FrozenMetric, load_renderer
from tests.tasks.tiny_sequences import TINY, chunk_of, drawn_networks, sequences
from tests.tasks.traced_flops import traced_flops

QUICK = {"xla_backend_optimization_level": 0}  # half the time to compile, the same mathematics


def squared(fake, real):
    return jnp.mean(jnp.square(fake - real))


# Plain descent: a step is the gradient itself, where Adam's first step is little more than its sign.
TASK = RendererTask(
    TINY,
    optax.sgd(1.0),
    rate_schedule(0.01),
    supervision=FrameSupervision(perceptual=squared),
    chunk=2,
    sequences=2,
    start=drawn_networks(TINY),
    conv_implementation="xla",  # two thirds of the time to compile
)
GENERATOR = RendererGenerator(TINY, conv_implementation="xla")


def run(function, *arguments):
    return jax.jit(function).lower(*arguments).compile(QUICK)(*arguments)


def assert_trees_close(actual, expected, *, atol):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=jax.tree_util.keystr(path))


def assert_moves_agree(actual, expected, begun, *, within):
    """Every leaf went the same way, but for a share of the way's length.

    Float32 through twenty instance norms; a rectifier that falls on the other side moves single entries by more.
    """
    for (path, a), b, start in zip(
        jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), jax.tree.leaves(begun), strict=True
    ):
        apart, way = np.linalg.norm(a - b), np.linalg.norm(b - np.asarray(start))
        # A bias that a norm removes has no gradient but rounding.
        assert apart <= within * way + 1e-5, f"{jax.tree_util.keystr(path)}: {apart} apart on a way of {way}"


def farthest(actual, expected):
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - b).max()), actual, expected)))


@pytest.fixture(scope="module")
def state():
    return TASK.init(jax.random.key(3))


@pytest.fixture(scope="module")
def update(state):
    return jax.jit(TASK.update).lower(state, chunk_of(sequences(2))).compile(QUICK)


@pytest.fixture(scope="module")
def updated(state, update):
    return update(state, chunk_of(sequences(2)))


def test_it_is_a_task():
    assert isinstance(TASK, Task)


def long_way(params, batch, before):
    """Parameters and last frames after one chunk: every loss written out, every gradient by itself."""
    generator, discriminator = GENERATOR, MultiscaleDiscriminator(TINY, conv_implementation="xla")
    blocks = jnp.concatenate([batch.nmfc_image, batch.eyes_image, batch.shape_image], -1).astype(jnp.float32) / 255
    mask = batch.mask.astype(jnp.float32) / 255
    real = (batch.image.astype(jnp.float32) / 127.5 - 1) * mask - (1 - mask)
    times = (2, 3)
    reals = [real[:, t] for t in times]

    def draw(weights):
        drawn = [before[..., :3], before[..., 3:]]
        for t in times:
            window = jnp.concatenate([blocks[:, t - 2], blocks[:, t - 1], blocks[:, t]], -1)
            previous = lax.stop_gradient(jnp.concatenate(drawn[-2:], -1))
            drawn.append(generator.apply({"params": weights}, window, previous, mask[:, t]))
        return drawn[2:]

    def judge(name, params, images):
        seen = jnp.concatenate([jnp.concatenate([blocks[:, t], x], -1) for t, x in zip(times, images, strict=True)])
        if name.startswith("mouth"):
            centres = jnp.concatenate([batch.mouth_centre[:, t] for t in times])
            seen = crop_regions(seen, centres, TINY.roi_size)
        return discriminator.apply({"params": params[name]}, seen)

    def of_generator(weights):
        fakes = draw(weights)
        loss = 10 * squared(jnp.stack(fakes), jnp.stack(reals))
        for name in TINY.discriminators:
            fake, true = judge(name, params, fakes), judge(name, params, reals)
            loss += passed_as_real(fake) + 10 * feature_matching(fake, true)
        return loss, fakes

    def of_discriminators(weights, fakes):
        names = TINY.discriminators
        return 0.5 * sum(
            judged_real(judge(name, weights, reals)) + judged_fake(judge(name, weights, fakes)) for name in names
        )

    to_generator, drawn = jax.grad(of_generator, has_aux=True)(params["generator"])
    judges = {name: params[name] for name in TINY.discriminators}
    gradients = {"generator": to_generator, **jax.grad(of_discriminators)(judges, drawn)}
    moved = jax.tree.map(lambda p, g: p - 0.01 * g, params, {name: gradients[name] for name in params})
    return moved, jnp.concatenate(drawn, -1)


def test_a_step_updates_all_networks_by_losses_taken_before_and_the_next_goes_on_from_its_frames(state, update):
    whole = sequences(2)
    reference = jax.jit(long_way)
    first, second = (jax.tree.map(jnp.asarray, chunk_of(whole, number)) for number in range(2))
    begun = jnp.zeros((2, 16, 16, 6))
    reference = reference.lower(state.params, first, begun).compile(QUICK)
    for chunk in (first, second):
        expected, last = reference(state.params, chunk, begun)
        new, _ = update(state, chunk)
        assert_moves_agree(new.params, expected, state.params, within=0.01)
        for name in state.params:
            assert farthest(new.params[name], state.params[name]) > 1e-3
        np.testing.assert_allclose(new.batch_stats["previous"], last, atol=1e-3)
        # What matters is compared a step at a time: both go on from the same.
        state, begun = new, new.batch_stats["previous"]
    assert int(state.step) == 2
    assert state.batch_stats["metric"] == {}


def test_a_sequence_that_begins_forgets_the_frames_kept_and_only_that_one(state, update):
    kept = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, (2, 16, 16, 6)), jnp.float32)
    later = state.replace(batch_stats={**state.batch_stats, "previous": kept})
    batch = chunk_of(sequences(2))

    def last(state, begins):
        new, _ = update(state, batch.replace(begins=np.array(begins)))
        return np.asarray(new.batch_stats["previous"])

    fresh, mixed = last(state, [True, True]), last(later, [True, False])
    np.testing.assert_allclose(last(later, [True, True]), fresh, atol=1e-5)
    np.testing.assert_allclose(mixed[0], fresh[0], atol=1e-5)
    np.testing.assert_allclose(mixed[1], last(later, [False, False])[1], atol=1e-5)
    assert np.abs(mixed[1] - fresh[1]).max() > 1e-2


def test_frames_kept_are_the_last_two_drawn(state, updated):
    chunk = cut_chunk(jax.tree.map(jnp.asarray, chunk_of(sequences(2))), 0, chunk=2, context=2)
    draw = lambda params: generate_chunk(GENERATOR, params, chunk, jnp.zeros((2, 16, 16, 6)))  # noqa: E731
    frames = run(draw, state.params["generator"])
    expected = np.concatenate([frames[:, 0], frames[:, 1]], axis=-1)
    np.testing.assert_allclose(updated[0].batch_stats["previous"], expected, atol=1e-4)


def test_scalars_are_the_terms_and_their_weighted_sums(updated):
    _, scalars = updated
    terms = {name.removeprefix("renderer/"): value for name, value in scalars.items()}
    regions = ("", "mouth_")
    named = {f"{region}{part}" for region in regions for part in ("adversarial", "feature_matching", "real", "fake")}
    assert terms.keys() == {"loss", "discriminator", "l1", "perceptual", *named}
    weights = {"adversarial": 1, "feature_matching": 10}
    total = 10 * terms["perceptual"] + sum(w * terms[f"{r}{n}"] for r in regions for n, w in weights.items())
    np.testing.assert_allclose(terms["loss"], total, rtol=1e-5)
    judged = 0.5 * sum(terms[f"{region}{kind}"] for region in regions for kind in ("real", "fake"))
    np.testing.assert_allclose(terms["discriminator"], judged, rtol=1e-5)
    assert all(value.shape == () and value.dtype == jnp.float32 for value in scalars.values())


@pytest.mark.slow
def test_recomputed_activations_change_nothing(state, updated):
    new, _ = run(dataclasses.replace(TASK, remat=True).update, state, chunk_of(sequences(2)))
    assert_moves_agree(new.params, updated[0].params, state.params, within=0.01)


@pytest.mark.slow
def test_plain_jit_sharded_jit_and_pmap_give_equal_updates_and_carry_equal_frames():
    task, mesh = dataclasses.replace(TASK, sequences=16), data_mesh(16)
    state, whole = task.init(jax.random.key(3)), sequences(16)
    batches = [chunk_of(whole, number) for number in range(2)]
    # Half of the sequences begin anew in the second step, so that devices hold rows of both kinds.
    batches[1] = batches[1].replace(begins=np.arange(16) % 2 == 0)
    plain = jax.jit(task.update).lower(state, batches[0]).compile(QUICK)
    shardings = {"in_shardings": (replicated(mesh), split_over_data(mesh)), "out_shardings": replicated(mesh)}
    on_mesh = (jax.device_put(state, replicated(mesh)), place(batches[0], mesh))
    sharded = jax.jit(task.update, **shardings).lower(*on_mesh).compile(QUICK)
    mapped = jax.pmap(lambda s, b: task.update(s, b, axis_name="data"), axis_name="data", in_axes=(None, 0))
    mapped = mapped.lower(state, shares(batches[0])).compile(QUICK)
    for batch in batches:
        expected = plain(state, batch)
        on_devices = sharded(jax.device_put(state, replicated(mesh)), place(batch, mesh))
        pmapped = mapped(state, shares(batch))
        assert farthest(expected[0].params, state.params) > 0.01
        assert np.abs(expected[0].batch_stats["previous"] - state.batch_stats["previous"]).max() > 0.1
        for other in (on_devices, *(jax.tree.map(lambda leaf, d=d: leaf[d], pmapped) for d in (0, 7))):
            assert_moves_agree(other[0].params, expected[0].params, state.params, within=0.01)
            assert_trees_close(other[1], expected[1], atol=1e-3)
            assert_trees_close(other[0].batch_stats, expected[0].batch_stats, atol=1e-3)
        state = expected[0]


def shares(batch):
    return jax.tree.map(lambda rows: rows.reshape(8, 2, *rows.shape[1:]), batch)


def test_gradients_pass_through_drawn_frames_only_as_far_as_asked(state):
    batch = jax.tree.map(jnp.asarray, sequences(1))
    chunk = cut_chunk(batch, 0, chunk=2, context=2)
    before = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (1, 16, 16, 6)), jnp.float32)

    def second_frame(first_mask, before, frames):
        masked = dataclasses.replace(chunk, mask=jnp.concatenate([first_mask, chunk.mask[:, 1:]], 1))
        drawn = generate_chunk(GENERATOR, state.params["generator"], masked, before, backpropagate_frames=frames)
        return jnp.sum(drawn[:, 1])

    # The first frame's mask reaches the second frame through the first alone.
    for frames, passes in ((1, False), (2, True)):
        gradients = run(
            jax.grad(lambda m, b, f=frames: second_frame(m, b, f), argnums=(0, 1)), chunk.mask[:, :1], before
        )
        assert bool(gradients[0].any()) == passes
        assert not gradients[1].any()


def test_a_start_from_nothing_gives_finite_gradients_and_the_encoder_of_frames_none(state):
    chunk = cut_chunk(jax.tree.map(jnp.asarray, sequences(2)), 0, chunk=1, context=2)

    def drawn(params):
        return jnp.sum(jnp.square(generate_chunk(GENERATOR, params, chunk, jnp.zeros((2, 16, 16, 6)))))

    gradients = run(jax.grad(drawn), state.params["generator"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients["previous_encoder"]))
    assert all(gradients[part]["block0"]["conv0"]["kernel"].any() for part in ("conditioning_encoder", "decoder"))


def test_what_stands_before_the_first_frame():
    batch = sequences(2)
    real = (batch.image[1, :2] / 127.5 - 1) * (batch.mask[1, :2] / 255) - (1 - batch.mask[1, :2] / 255)
    assert not TASK._before(batch).any()
    before = dataclasses.replace(TASK, begin="real")._before(batch)
    # The first sequence begins as a video does.
    assert not before[0].any()
    np.testing.assert_allclose(before[1], np.concatenate(list(real), axis=-1), atol=1e-6)


NO_ADVERSARIES = FrameAdversaries(adversarial_weight=0.0, feature_matching_weight=0.0)


@pytest.mark.parametrize(
    ("fields", "gone"),
    [
        ({"adversaries": FrameAdversaries(adversarial_weight=0.0)}, {"adversarial", "mouth_adversarial"}),
        (
            {"adversaries": FrameAdversaries(feature_matching_weight=0.0)},
            {"feature_matching", "mouth_feature_matching"},
        ),
        (
            {"adversaries": NO_ADVERSARIES},
            {"discriminator"}
            | {f"{r}{n}" for r in ("", "mouth_") for n in ("adversarial", "feature_matching", "real", "fake")},
        ),
        ({"supervision": FrameSupervision(perceptual=squared, perceptual_weight=0.0)}, {"perceptual"}),
    ],
)
def test_a_term_of_weight_zero_is_not_computed(state, updated, fields, gone):
    task = dataclasses.replace(TASK, **fields)
    _, scalars = jax.eval_shape(task.update, state, chunk_of(sequences(2)))
    assert updated[1].keys() - scalars.keys() == {f"renderer/{name}" for name in gone}
    assert not scalars.keys() - updated[1].keys()


def test_the_supervision_is_told_where_the_frames_belong(state):
    class Asked(FrameSupervision):
        def __call__(self, fake, real, statistics, key, *, scene, **others):
            terms = {f"frame{k}": jnp.sum(x) for k, x in enumerate(scene.image)}
            terms |= {
                f"box{k}": jnp.dot(x, jnp.asarray([1.0, 10.0, 100.0, 1000.0])) for k, x in enumerate(scene.face_box)
            }
            return jnp.sum(fake * scene.mask), (terms, statistics)

    batch = sequences(2, frames=4)
    boxes = np.random.default_rng(3).uniform(1, 15, (2, 4, 4)).astype(np.float32)
    batch = batch.replace(face_box=boxes)
    task = dataclasses.replace(TASK, supervision=Asked(perceptual=squared), adversaries=NO_ADVERSARIES)
    _, scalars = run(task.update, state, batch)
    own = batch.image[:, 2:].reshape(4, -1).astype(np.float64)
    np.testing.assert_allclose([scalars[f"renderer/frame{k}"] for k in range(4)], (own / 127.5 - 1).sum(1), rtol=1e-3)
    np.testing.assert_allclose(
        [scalars[f"renderer/box{k}"] for k in range(4)], boxes[:, 2:].reshape(4, 4) @ [1, 10, 100, 1000], rtol=1e-5
    )


def test_networks_of_no_term_stay_and_so_do_their_optimisers(state):
    task = dataclasses.replace(TASK, adversaries=NO_ADVERSARIES, optimizer=adam(1.0, b1=0.5))
    begun = task.init(jax.random.key(3))
    new, _ = run(task.update, begun, chunk_of(sequences(2)))
    for name in TINY.discriminators:
        assert_trees_close(new.params[name], begun.params[name], atol=0)
    assert_trees_close(new.opt_state["discriminators"], begun.opt_state["discriminators"], atol=0)
    # Adam's first step is the rate itself.
    np.testing.assert_allclose(farthest(new.params["generator"], begun.params["generator"]), 0.01, rtol=1e-3)


def test_eyes_are_judged_round_what_the_eye_image_shows():
    settings = dataclasses.replace(TINY, mouth=False, eyes=True)
    task = dataclasses.replace(TASK, settings=settings, start=None)
    begun = jax.eval_shape(task.init, jax.random.key(0))
    assert begun.params.keys() == {"generator", "discriminator", "eyes_discriminator"}
    _, scalars = jax.eval_shape(task.update, begun, chunk_of(sequences(2)))
    assert "renderer/eyes_adversarial" in scalars
    assert "renderer/mouth_adversarial" not in scalars
    chunk = cut_chunk(jax.tree.map(jnp.asarray, sequences(1)), 0, chunk=2, context=2)
    judged = judged_frames(chunk)
    weights = {"eyes_discriminator": jax.tree.map(jnp.asarray, drawn_networks(settings)["eyes_discriminator"])}
    module = MultiscaleDiscriminator(settings, conv_implementation="xla")
    fake = judged.real[::-1]
    _, terms, to_fake, _ = run(
        lambda weights, fake: FrameAdversaries()(module, weights, judged, fake, roi_size=8), weights, fake
    )
    corners = mean_point(judged.condition[..., 3:6]) - 4
    seen = [
        jnp.concatenate([block, image], -1)[y : y + 8, x : x + 8]
        for block, image, (x, y) in zip(judged.condition, fake, corners.tolist(), strict=True)
    ]
    maps = module.apply({"params": weights["eyes_discriminator"]}, jnp.stack(seen))
    np.testing.assert_allclose(terms["eyes_fake"], judged_fake(maps), rtol=1e-4)
    # Nothing is pulled outside the square.
    pulled = np.asarray(to_fake).any(axis=-1)
    assert pulled.any()
    for rows, (x, y) in zip(pulled, corners.tolist(), strict=True):
        assert not np.delete(rows, slice(y, y + 8), 0).any()
        assert not np.delete(rows, slice(x, x + 8), 1).any()


@pytest.mark.slow
def test_it_learns_two_frames_by_heart():
    rows, columns = np.mgrid[:16, :16] / 16
    ramp = (255 * np.stack([rows, columns, 1 - rows], -1)).astype(np.uint8)
    batch = chunk_of(sequences(1))
    still = np.stack([ramp, ramp, ramp, ramp[:, ::-1]])[None]
    batch = batch.replace(nmfc_image=still, eyes_image=still, shape_image=still, image=255 - still)
    task = dataclasses.replace(
        TASK,
        optimizer=adam(1.0, b1=0.5),
        learning_rate=rate_schedule(2e-3),
        pixel_weight=1.0,
        sequences=1,
        start=drawn_networks(TINY),
    )
    state = task.init(jax.random.key(0))
    update = jax.jit(task.update).lower(state, batch).compile(QUICK)
    history = []
    for _ in range(60):
        state, scalars = update(state, batch)
        history.append(float(scalars["renderer/l1"]))
    assert np.isfinite(history).all()
    assert min(history[-5:]) < 0.5 * history[0]


def test_held_out_scores_are_each_sequences_own(state):
    evaluate = jax.jit(TASK.evaluate).lower(state, sequences(2)).compile(QUICK)
    batch, other = sequences(2), sequences(2, seed=1)
    scores = evaluate(state, batch)
    mixed = jax.tree.map(lambda kept, new: np.concatenate([kept[:1], new[1:]]), batch, other)
    for name, values in evaluate(state, mixed).items():
        assert values.shape == (2,)
        np.testing.assert_allclose(values[:1], scores[name][:1], atol=1e-5, err_msg=name)
    assert abs(float(evaluate(state, mixed)["eval/l1"][1] - scores["eval/l1"][1])) > 1e-4
    # Drawn from zeros, frame after frame, by the generator alone.
    chunk = cut_chunk(jax.tree.map(jnp.asarray, batch), 0, chunk=4, context=2)
    frames = generate_chunk(GENERATOR, state.params["generator"], chunk, jnp.zeros((2, 16, 16, 6)))
    difference = np.asarray(frames - chunk.real, np.float64) / 2
    np.testing.assert_allclose(scores["eval/l1"], np.abs(difference).mean(axis=(1, 2, 3, 4)), rtol=1e-4)
    np.testing.assert_allclose(scores["eval/first_l1"], np.abs(difference[:, 0]).mean(axis=(1, 2, 3)), rtol=1e-4)
    squares = np.square(difference).mean(axis=(2, 3, 4))
    np.testing.assert_allclose(scores["eval/psnr"], (-10 * np.log10(squares)).mean(axis=1), rtol=1e-4)
    np.testing.assert_array_equal(scores["eval/score"], scores["eval/l1"])


def test_networks_to_start_from_are_taken_exported_and_others_refused(state, tmp_path):
    assert_trees_close(state.params, drawn_networks(TINY), atol=0)
    TASK.export(state, tmp_path / "best")
    saved = load_renderer(tmp_path)
    assert saved.settings == TINY
    assert_trees_close(saved.params, state.params, atol=0)
    # A published generator without its discriminators will do.
    alone = dataclasses.replace(TASK, start={"generator": saved.params["generator"]})
    assert jax.eval_shape(alone.init, jax.random.key(0)).params.keys() == state.params.keys()
    other = drawn_networks(dataclasses.replace(TINY, discriminator_width=6))
    with pytest.raises(InputError, match=r"of other networks: .*discriminator/scale0/layer0/bias has shape \(6,\)"):
        dataclasses.replace(TASK, start=other)
    with pytest.raises(InputError, match="generator/decoder/last/bias is missing"):
        dataclasses.replace(TASK, start={"discriminator": other["discriminator"]})


@pytest.mark.slow
def test_bfloat16_computes_near_float32_and_keeps_weights_and_losses_float32(state, updated):
    new, scalars = run(dataclasses.replace(TASK, dtype=jnp.bfloat16).update, state, chunk_of(sequences(2)))
    assert {leaf.dtype for leaf in jax.tree.leaves((new.params, scalars))} == {jnp.dtype("float32")}
    # bfloat16 has 8 bits: half a percent a layer.
    np.testing.assert_allclose(scalars["renderer/loss"], updated[1]["renderer/loss"], rtol=0.05)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"chunk": 1}, "chunk=1: expected at least 2"),
        ({"sequences": 0}, "sequences=0: expected at least 1"),
        ({"chunk": 4, "backpropagate_frames": 3}, "backpropagate_frames=3: expected a divisor of 4"),
        ({"pixel_weight": -1.0}, "pixel_weight=-1.0"),
        ({"supervision": FrameSupervision(), "adversaries": NO_ADVERSARIES}, "nothing to learn"),
    ],
)
def test_bad_fields_are_refused(fields, said):
    with pytest.raises(InputError, match=said):
        dataclasses.replace(TASK, **fields)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (sequences(2, frames=7), "sequences of 5 frames after 2 of context: expected a multiple of the chunk, 2"),
        (sequences(2, frames=6), r"a batch of 2 chunks: an update takes one, of 2 \+ 2 frames"),
        (chunk_of(sequences(3)), "a batch of 3 sequences: the state keeps the frames of 2"),
    ],
)
def test_batches_of_another_shape_are_refused(state, batch, said):
    with pytest.raises(InputError, match=said):
        jax.eval_shape(TASK.update, state, batch)


@pytest.mark.slow
def test_a_published_step_needs_the_counted_operations():
    settings = RendererSettings()
    metric_settings = MetricSettings.from_compat("released")
    metric = jax.eval_shape(lambda: init_variables(metric_settings, jax.random.key(0)))
    vgg = jax.eval_shape(init_vgg, jax.random.key(0))
    batch = SequenceBatch(
        *(jax.ShapeDtypeStruct((1, 6, 256, 256, 3), jnp.uint8) for _ in range(4)),
        jax.ShapeDtypeStruct((1, 6, 256, 256, 1), jnp.uint8),
        jax.ShapeDtypeStruct((1, 6, 2), jnp.int32),
        jax.ShapeDtypeStruct((1, 6, 4), jnp.float32),
        jax.ShapeDtypeStruct((1,), jnp.bool_),
        jax.ShapeDtypeStruct((1,), jnp.bool_),
        jax.ShapeDtypeStruct((1,), jnp.int32),
    )

    def step(metric, vgg, networks, batch):
        supervision = FrameSupervision(
            FrozenMetric(metric, metric_settings), perceptual=VggDistance(Vgg(vgg)), compat="released"
        )
        task = RendererTask(settings, adam(1.0, b1=0.5), rate_schedule(2e-4), supervision)
        begun = ChunkState(networks, task.init_optimizers(networks), metric["batch_stats"], task._before(batch))
        return task.update_chunk(begun, cut_chunk(batch, 0, chunk=4, context=2), jax.random.key(0), jnp.asarray(2e-4))

    networks = jax.eval_shape(
        lambda: RendererTask(settings, adam(1.0), rate_schedule(1.0)).init(jax.random.key(0)).params
    )
    count = traced_flops(step, metric, vgg, networks, batch)
    # What the shapes say is needed, in units of 1e12; see the count of the published step less its thrown-away parts.
    assert 0.95 * 3.72e12 < count < 1.05 * 3.72e12
