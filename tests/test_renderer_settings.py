"""Settings of the renderer: what fits together, and faults named before anything is computed."""

import dataclasses

import pytest

from asccl_jax.errors import InputError
from asccl_jax.renderer_settings import RendererSettings


def test_a_mapping_gives_the_same_settings_back():
    settings = RendererSettings(generator_width=8, eyes=True, roi_size=40)
    assert RendererSettings.from_dict(settings.to_dict()) == settings
    assert hash(RendererSettings()) == hash(RendererSettings.from_dict({}))


@pytest.mark.parametrize(("blocks", "before", "after"), [(9, 5, 4), (4, 2, 2), (1, 1, 0)])
def test_blocks_are_split_as_published(blocks, before, after):
    settings = RendererSettings(residual_blocks=blocks)
    assert (settings.encoder_blocks, settings.decoder_blocks) == (before, after)


def test_the_discriminators_are_those_that_are_switched_on():
    assert RendererSettings().discriminators == ("discriminator", "mouth_discriminator")
    assert RendererSettings(mouth=False).discriminators == ("discriminator",)
    assert RendererSettings(eyes=True).discriminators[-1] == "eyes_discriminator"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"generator_width": 0}, "generator_width=0: expected a positive integer"),
        ({"residual_blocks": -1}, "residual_blocks=-1: expected a positive integer"),
        ({"image_size": 100}, "image_size=100: with 3 downsamplings expected a multiple of 8, at least 16"),
        ({"image_size": 8, "roi_size": 4}, "image_size=8: with 3 downsamplings"),
        ({"roi_size": 71}, "roi_size=71: expected an even number up to image_size=256"),
        ({"image_size": 64}, "roi_size=72: expected an even number up to image_size=64"),
    ],
)
def test_what_does_not_fit_is_named(changed, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(RendererSettings(), **changed)
    with pytest.raises(InputError, match=r"unknown renderer settings width; known: .*image_size"):
        RendererSettings.from_dict({"width": 3})
