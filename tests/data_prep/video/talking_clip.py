"""A synthetic clip of a second, two frames of which have no face as far as its landmarks say."""

from pathlib import Path

import numpy as np

from data_prep.synthetic.synthetic_clips import ActorSetSettings, plan_actors, write_clip

FACELESS = (6, 7)


def write_talking_clip(folder: Path) -> Path:
    settings = ActorSetSettings(seed=1, size=96, actors=1, sentences=1, emotions_per_sentence=0, syllables=(1, 1))
    for name in ("clips", "truth"):
        (folder / name).mkdir()
    plan = plan_actors(settings)[0]
    write_clip(plan, settings, folder)
    video = folder / "clips" / f"{plan.stem}.mp4"
    with np.load(video.with_suffix(".npz")) as archive:
        landmarks = archive["lm68"].copy()
    landmarks[list(FACELESS)] = np.nan
    np.savez(video.with_suffix(".npz"), lm68=landmarks)
    return video
