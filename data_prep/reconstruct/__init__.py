"""From clips to code dicts and conditioning pictures: what `asccl data reconstruct` does.

* `clip_inputs`, `sources`: which clips there are, their frames and landmarks: videos, records or NED folders.
* `track_step`, `speaker_step`, `clip_step`: the three steps, each resumed by its own files (`work`, `task_runs`).
* `encoders`: the two ways to codes, `landmarks` and `deca`, behind one interface; `smoothing`.
* `drawing`: aligned coordinates; crops and renders as pictures. `sinks`, `folders`: where they are kept.
* `reconstruction`, `reconstruct_report`: from end to end, and what became of every clip.
* `edit_command`, `render_files`: edited codes drawn again.
"""
