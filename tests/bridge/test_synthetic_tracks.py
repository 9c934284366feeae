"""Code dicts of synthetic tracks put the built-in head, as the bridge poses it, where the synthetic speaker is."""

import numpy as np
import torch

from asccl_jax.data.codes import CodeDict
from asccl_jax.data.track_list import codes_path
from data_prep.synthetic.head import build_head
from data_prep.synthetic.performance import act
from data_prep.synthetic.speech import deliver, make_sentence
from data_prep.synthetic.tracks import TrackSetSettings, plan_tracks, write_track_set
from DECA_torch_bridge.camera import to_image_space
from DECA_torch_bridge.flame import Flame
from DECA_torch_bridge.head_assets import builtin_assets


def test_the_bridge_poses_the_head_as_it_was_acted(tmp_path):
    settings = TrackSetSettings(speakers=1, validation_speakers=0, sentences=1, syllables=(1, 1))
    list(write_track_set(settings, tmp_path))
    plan = plan_tracks(settings)[4]
    codes = CodeDict.load(codes_path(tmp_path, plan.clip))
    sentence = make_sentence(plan.sentence, seed=0, syllables=(1, 1))
    performance = act(deliver(sentence, plan.emotion, seed=plan.seed), seed=plan.seed)

    head, frames = build_head(), [0, 8, len(codes) - 1]
    flame = Flame(builtin_assets())
    fields = (torch.from_numpy(getattr(codes[frames], name)) for name in ("shape", "exp", "pose"))
    found = to_image_space(flame(*fields).vertices, torch.from_numpy(codes.cam[frames])).numpy()
    skin = head.weights[:, [0, 3, 4]].sum(axis=1) == 0  # neither the neck's foot nor the eyes
    assert skin.sum() > 5000
    scale = codes.cam[0, 0]
    acted = [
        head.posed(codes.shape[0], performance.expression[frame], performance.pose[frame])[skin, :2] * (scale, -scale)
        for frame in frames
    ]
    fixed = (found[0, skin, :2] - acted[0]).mean(axis=0)  # where the camera stands
    for row, expected in enumerate(acted):
        # -1..1 across the crop: 1e-5 is a thousandth of a pixel.
        np.testing.assert_allclose(found[row, skin, :2], expected + fixed, rtol=0, atol=1e-5)
    turn = performance.pose[frames, 1]
    assert np.abs(turn[-1] - turn[0]).max() > 5e-3  # it did turn


def test_the_face_at_rest_fills_the_crop_as_deca_frames_it(tmp_path):
    settings = TrackSetSettings(speakers=1, validation_speakers=0, sentences=1, syllables=(1, 1))
    list(write_track_set(settings, tmp_path))
    codes = CodeDict.load(codes_path(tmp_path, plan_tracks(settings)[0].clip))[:1]
    output = Flame(builtin_assets())(torch.from_numpy(codes.shape), torch.zeros(1, 50), torch.zeros(1, 6))
    landmarks = to_image_space(output.landmarks2d, torch.from_numpy(codes.cam))[0, :, :2].numpy()
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    # DECA: the crop, 2 wide, is 1.1 x 1.25 times the mean side of the landmarks' box, which is in its middle.
    assert 0.9 < (high - low).mean() * 1.1 * 1.25 / 2 < 1.1
    assert np.abs(low + high).max() / 2 < 0.1
