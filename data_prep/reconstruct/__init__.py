"""From clips to code dicts and conditioning pictures: what `asccl reconstruct` does.

* `inputs`, `sources`: which clips there are, and their frames and landmarks, be they videos, records or NED folders.
* `track_step`, `speaker_step`, `clip_step`: the three steps that run on Beam, each resumed by its own files.
* `encoders`: the two ways to codes, `landmarks` and `deca`, behind one interface; `smoothing`.
* `face_template`, `pictures`: aligned coordinates; crops and renders as pictures.
* `assembly`, `folders`: records with a manifest, or the published folder layout, written and read.
* `pipeline`, `report`: from end to end, and what became of every clip.
"""
