import itertools

import numpy as np

from DECA_torch_bridge.fitting.windows import join_windows, split_windows


def test_windows_cover_a_clip_and_each_has_a_face() -> None:
    rng = np.random.default_rng(0)
    for share in (1.0, 0.1, 0.005):
        for frames in (1, 50, 99, 100, 101, 500):
            seen = rng.random(frames) < share
            seen[rng.integers(frames)] = True
            windows = split_windows(seen, length=100, overlap=10)
            assert windows[0].start == 0
            assert windows[-1].stop == frames
            assert all(seen[window].any() for window in windows)
            assert all(later.start < earlier.stop for earlier, later in itertools.pairwise(windows))


def test_joined_windows_of_one_track_are_the_track() -> None:
    track = np.random.default_rng(0).standard_normal((230, 3))
    windows = split_windows(np.ones(230, bool), length=100, overlap=10)
    assert len(windows) > 2
    np.testing.assert_allclose(join_windows([track[window] for window in windows], windows), track, atol=1e-12)
