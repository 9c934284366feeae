"""Side by side: frame t beside frame t, the times and the sound of the first, a row a video on the sheet."""

import av
import numpy as np
from PIL import Image

from data_prep.media.decode import read_frames
from data_prep.video.side_by_side import main
from tests.data_prep.tiny_media import picture, voice, write_video

BAR = 22


def write_versions(folder):
    samples = voice(1)[0][:8000]
    write_video(folder / "source.mp4", 5, samples=samples, times=[0, 1, 3, 4, 5])
    write_video(folder / "happy.mp4", 5, first=3)
    write_video(folder / "sad.mp4", 5, first=6)
    return [f"{name}={folder / name}.mp4" for name in ("source", "happy", "sad")]


def packets(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def test_all_versions_of_a_frame_are_shown_at_its_time_with_the_first_ones_sound(tmp_path):
    words = [*write_versions(tmp_path), "--output", str(tmp_path / "all.mp4"), "--columns", "2", "--height", "64"]
    assert main(words) == 0
    frames = list(read_frames(tmp_path / "all.mp4"))
    assert [round(frame.time_s * 30) for frame in frames] == [0, 1, 3, 4, 5]
    assert packets(tmp_path / "all.mp4") == packets(tmp_path / "source.mp4") != []
    for number, frame in enumerate(frames):
        assert frame.image.shape == (2 * (64 + BAR), 128, 3)
        cells = frame.image[BAR : BAR + 64, :64], frame.image[BAR : BAR + 64, 64:], frame.image[2 * BAR + 64 :, :64]
        for cell, first in zip(cells, (0, 3, 6), strict=True):
            blue = cell[30:60, 30:60, 2].mean()
            assert abs(blue - picture(first + number)[30:60, 30:60, 2].mean()) < 12
    assert frames[0].image[: BAR - 2, :64].max() > 180  # its name
    assert frames[0].image[BAR + 64 :, 70:].max() < 60  # an empty cell


def test_the_sheet_has_a_row_for_each_and_frames_from_first_to_last(tmp_path):
    words = [*write_versions(tmp_path), "--output", str(tmp_path / "all.mp4"), "--sheet", str(tmp_path / "all.png")]
    assert main([*words, "--frames", "3", "--height", "64"]) == 0
    sheet = np.array(Image.open(tmp_path / "all.png"))
    assert sheet.shape == (3 * (64 + BAR), 3 * 64, 3)
    for row, first in enumerate((0, 3, 6)):
        for column, number in enumerate((0, 2, 4)):
            y, x = row * (64 + BAR) + BAR, column * 64
            shown = sheet[y + 30 : y + 60, x + 30 : x + 60, 2].mean()
            assert abs(shown - picture(first + number)[30:60, 30:60, 2].mean()) < 12


def test_videos_of_other_lengths_are_no_versions_of_one(tmp_path, capsys):
    write_video(tmp_path / "long.mp4", 4)
    write_video(tmp_path / "short.mp4", 3)
    words = [str(tmp_path / "long.mp4"), str(tmp_path / "short.mp4"), "--output", str(tmp_path / "all.mp4")]
    assert main(words) == 2
    assert "short.mp4: ends after 3 frames" in capsys.readouterr().err
    assert not (tmp_path / "all.mp4").exists()
    assert main([str(tmp_path / "none.mp4"), "--output", str(tmp_path / "all.mp4")]) == 2
    assert main([*words, "--columns", "0"]) == 2
