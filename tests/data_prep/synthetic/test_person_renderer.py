"""Drawings: landmarks lie where the picture has them, lids and lips close, emotions differ, seeds decide all."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, distance_transform_edt

from asccl_jax.data.schema import EMOTIONS
from data_prep.synthetic import raster
from data_prep.synthetic.action_units import VISEMES
from data_prep.synthetic.synthetic_clips import write_contact_sheet
from data_prep.synthetic.paint import HAIR_STYLES, build_hair
from data_prep.synthetic.head import build_head
from data_prep.synthetic.head import MATERIALS
from data_prep.synthetic.people import sample_person
from data_prep.synthetic.speech import compose
from data_prep.synthetic.person_renderer import Renderer

PEOPLE = (0, 3, 5)
STILL = np.zeros(3)


@pytest.fixture(scope="module")
def renderers() -> dict[int, Renderer]:
    return {seed: Renderer(sample_person(seed), size=224) for seed in PEOPLE}


def shown(renderer: Renderer, material: str) -> int:
    """Samples of the last drawing that show a material."""
    head, visible = build_head(), renderer.visible_faces()
    own = visible[(visible >= 0) & (visible < len(head.f))]
    return int((head.label[own] == MATERIALS.index(material)).sum())


def face_outline(renderer: Renderer) -> np.ndarray:
    """Border pixels, at 224, of the face drawn alone: no ears, hair or neck."""
    head, size = build_head(), renderer.size
    scale = size / renderer.view.height
    points = renderer.vertices * np.array([scale, -scale, scale], np.float32)
    points[:, :2] += np.array(
        [0.5 * size - renderer.view.centre[0] * scale, 0.5 * size + renderer.view.centre[1] * scale]
    )
    depth, face_id = np.empty((size, size), np.float32), np.empty((size, size), np.int32)
    raster.rasterise(points.astype(np.float32), head.f[head.face_faces], depth, face_id)
    mask = face_id >= 0
    return mask & ~binary_erosion(mask)


@pytest.mark.parametrize("seed", PEOPLE)
def test_jaw_landmarks_lie_on_the_silhouette_of_the_face(renderers, seed):
    renderer = renderers[seed]
    for turn in ((0, 0, 0), (0.1, 0.35, 0), (-0.2, -0.3, 0.15), (0.15, 0.0, -0.2)):
        for viseme in ("silence", "a", "u"):
            drawing = renderer.draw(*compose("happy", np.array(VISEMES[viseme]), 0.7, 0.0, np.array(turn)))
            off = distance_transform_edt(~face_outline(renderer))
            column, row = np.round(drawing.landmarks[:17]).astype(int).T
            assert off[row, column].max() <= 2.0  # pixels of 224: the bar is 3
            reach = np.linalg.norm(np.diff(drawing.landmarks[:17], axis=0), axis=1)
            assert reach.min() > 3 and reach.max() < 40, "evenly spread"


def test_visible_chin_ends_at_the_jaw_landmarks(renderers):
    """In the whole picture, with neck and hair, the face stops at landmark 8 and at the points beside it."""
    renderer = renderers[5]
    drawing = renderer.draw(*compose("neutral", np.array(VISEMES["a"]), 0.0, 0.0, STILL))
    face = np.isin(renderer.visible_faces(), build_head().face_faces)
    for point in drawing.landmarks[5:12]:
        column, row = np.round(2 * (point + 0.5) - 0.5).astype(int)  # two samples a pixel
        outward = np.sign(column - renderer.size) if abs(column - renderer.size) > 20 else 0
        inside = face[row - 6 : row - 3, column - 4 * outward]
        outside = face[row + 4 : row + 7, column + 4 * outward]
        assert inside.all() and not outside.any()


@pytest.mark.parametrize("seed", PEOPLE)
def test_shut_lids_hide_the_eyes_and_shut_lips_the_teeth(renderers, seed):
    renderer = renderers[seed]
    renderer.draw(*compose("neutral", np.zeros(4), 0.0, 0.0, STILL))
    open_eyes = shown(renderer, "eye")
    assert open_eyes > 500 and shown(renderer, "teeth") == 0 and shown(renderer, "mouth") == 0
    renderer.draw(*compose("neutral", np.zeros(4), 0.0, 1.0, STILL))
    assert shown(renderer, "eye") < 0.04 * open_eyes
    renderer.draw(*compose("neutral", np.array(VISEMES["a"]), 0.0, 0.0, STILL))
    assert shown(renderer, "mouth") > 200 and shown(renderer, "teeth") > 50


def test_drawn_mesh_equals_the_reference_skinning(renderers):
    renderer, head = renderers[0], build_head()
    expression, pose = compose("fear", np.array(VISEMES["o"]), 0.9, 0.3, np.array([0.1, -0.2, 0.05]))
    renderer.draw(expression, pose)
    expected = head.posed(renderer.person.identity, expression, pose)
    np.testing.assert_allclose(renderer.vertices, expected, atol=2e-6)  # metres; float32 against float64 sums


def test_emotions_and_visemes_look_different_and_intensity_scales_them(renderers):
    renderer = renderers[3]
    faces = [renderer.draw(*compose(e, np.zeros(4), 1.0, 0.0, STILL)) for e in EMOTIONS]
    mouths = [renderer.draw(*compose("neutral", np.array(v), 0.0, 0.0, STILL)) for v in VISEMES.values()]
    for drawings, floor in ((faces, 1.5), (mouths, 0.5)):
        for i, one in enumerate(drawings):
            for other in drawings[:i]:
                assert np.linalg.norm(one.landmarks - other.landmarks, axis=1).max() > floor
    half = renderer.draw(*compose("happy", np.zeros(4), 0.5, 0.0, STILL)).landmarks - faces[0].landmarks
    full = faces[EMOTIONS.index("happy")].landmarks - faces[0].landmarks
    np.testing.assert_allclose(half[48:], 0.5 * full[48:], atol=0.02)  # pixels: blend shapes are linear


def test_a_seed_decides_the_picture(renderers):
    arguments = compose("sad", np.array(VISEMES["e"]), 0.8, 0.0, np.array([0, 0.1, 0]))
    again = Renderer(sample_person(3), size=224)
    first = renderers[3].draw(*arguments)
    np.testing.assert_array_equal(first.image, again.draw(*arguments).image)
    assert np.abs(first.image.astype(int) - renderers[5].draw(*arguments).image).mean() > 5


@pytest.mark.parametrize("style", HAIR_STYLES)
def test_hair_is_a_finite_surface_around_the_head(style):
    head = build_head()
    normals = np.empty_like(head.v_template)
    raster.vertex_normals(head.v_template, head.f, normals)
    hair = build_hair(style, 1, head.v_template, normals)
    assert np.isfinite(hair.vertices).all() and hair.faces.max() < len(hair.vertices)
    assert hair.vertices[:, 1].max() > head.v_template[:, 1].max()
    np.testing.assert_allclose(hair.weights.sum(axis=1), 1, atol=1e-6)


def test_contact_sheet_is_a_picture_of_all_emotions(tmp_path):
    from PIL import Image

    write_contact_sheet(tmp_path / "sheet.png", [0], size=32)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (7 * 35 + 3, 4 * 38)
