"""Where the clips of a data set lie: MEAD (as downloaded, as frames), RAVDESS, or a CSV of one's own videos."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from asccl_jax.data.test_speakers import TEST_SPEAKERS
from asccl_jax.errors import InputError
from asccl_jax.paths import expand_home, id_part, is_litter
from data_prep.media.clips import Clip, Problem, emotion_name, name_key, reject_duplicates, sentence_key

__all__ = [
    "AUDIO_SUFFIXES",
    "LAYOUTS",
    "MEAD_VALIDATION_SPEAKER",
    "VIDEO_SUFFIXES",
    "apply_transcripts",
    "assign_splits",
    "find_clips",
    "is_ravdess_actor",
    "located",
    "mead_kind",
    "named_speakers",
    "read_csv",
]

LAYOUTS = ("mead", "ravdess", "list")

VIDEO_SUFFIXES = (
    *(".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv"),
)
AUDIO_SUFFIXES = (".m4a", ".wav", ".flac", ".mp3", ".aac", ".ogg")

_LANDMARKS_SUFFIX = ".npz"

_PATHS = ("path", "audio", "landmarks", "source", "truth")
"""Columns that may hold bytes which are no text."""

MEAD_COMMON_SENTENCES = ("001", "002", "003")
"""Clips of the three sentences that MEAD has in every emotion; the other numbers differ from emotion to emotion."""

_RAVDESS_EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fear",
    "07": "disgusted",
    "08": "surprised",
}

Found = Iterator[Clip | Problem]


def find_clips(source: Path, layout: str, *, levels: Sequence[int] = (3,)) -> tuple[list[Clip], list[Problem]]:
    """Returns the clips of a data set in the order of their ids, and what in it cannot be used.

    Args:
      source: Folder of the data set, or the CSV file of layout "list".
      layout: "mead", "ravdess" or "list".
      levels: MEAD's emotion intensities to take, 1 to 3; neutral clips only have level 1 and are always taken.

    Raises:
      InputError: The source is missing, is not of that layout, or holds no clip at all.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    if not source.exists():
        raise InputError(
            f"{source} does not exist: give the folder (or, for --layout list, the CSV file) of the videos"
        )
    if source.is_dir() == (layout == "list"):
        raise InputError(f"{source}: layout {layout!r} expects a {'CSV file' if layout == 'list' else 'folder'}")
    finders = {"mead": lambda: _find_mead(source, levels), "ravdess": lambda: _find_ravdess(source)}
    found = list(finders.get(layout, lambda: _find_listed(source))())
    clips, duplicates = reject_duplicates(entry for entry in found if isinstance(entry, Clip))
    problems = [entry for entry in found if isinstance(entry, Problem)] + duplicates
    if not clips:
        details = "".join(f"; {problem.subject}: {problem.reason}" for problem in problems[:3])
        raise InputError(f"{source}: no clip of layout {layout!r} found{details}")
    return clips, problems


def apply_transcripts(clips: Sequence[Clip], path: Path) -> list[Clip]:
    """Returns the clips with the sentences that a transcript file gives them; others keep theirs.

    Args:
      clips: Clips of any layout.
      path: CSV with the columns speaker, emotion, clip and sentence. `clip` is the clip's own number or name; an
        empty speaker or emotion stands for all; the most specific row wins. `sentence` is an id or the words.

    Raises:
      InputError: The file is missing or lacks a column, or no row matches any clip.
    """
    sentences: dict[tuple[str, str, str], str] = {}
    for row in read_csv(path, ("speaker", "emotion", "clip", "sentence")).values():
        try:
            emotion = emotion_name(row["emotion"]) if row["emotion"] else ""
        except ValueError:
            continue  # an emotion that no clip can have
        sentences[name_key(row["speaker"]), emotion, _number(row["clip"])] = sentence_key(row["sentence"])
    result, matches = [], 0
    for clip in clips:
        keys = [(s, e, _number(clip.name)) for s in (name_key(clip.speaker), "") for e in (clip.emotion, "")]
        sentence = next((sentences[key] for key in keys if key in sentences), None)
        matches += sentence is not None
        result.append(clip if sentence is None else dataclasses.replace(clip, sentence=sentence))
    if not matches:
        raise InputError(f"{path}: no row matches a clip; a clip's name is for instance {clips[0].name!r}")
    return result


def _number(name: str) -> str:
    """A name, or the number that it is: spreadsheets make 1 of 001."""
    return str(int(name)) if name.isdecimal() else name_key(name)


def _find_mead(root: Path, levels: Sequence[int]) -> Found:
    folders = [root] if mead_kind(root) else _folders(root)
    speakers = [folder for folder in folders if mead_kind(folder)]
    if not speakers:
        raise InputError(f"{root}: no SPEAKER/video/front, SPEAKER/img or SPEAKER/align_img folder: is this MEAD?")
    for folder in folders:
        kind = mead_kind(folder)
        if kind is None:
            yield Problem(folder.name, "no video/front, img or align_img folder")
        elif kind == "video/front":
            yield from _mead_videos(folder, levels)
        else:
            yield from _mead_frames(folder, kind)


def mead_kind(folder: Path) -> str | None:
    """Returns which of MEAD's folders a speaker's folder has, in letters of any size; None if it is no speaker's."""
    return next((kind for kind in ("video/front", "img", "align_img") if located(folder, kind).is_dir()), None)


def _mead_videos(speaker: Path, levels: Sequence[int]) -> Found:
    """MEAD as downloaded: video/front/EMOTION/level_K/NNN.mp4, audio/EMOTION/level_K/NNN.m4a."""
    for emotion_folder in _folders(located(speaker, "video/front")):
        neutral = emotion_folder.name.strip().casefold() == "neutral"
        for level_folder in _folders(emotion_folder):
            level = re.fullmatch(r"level_(\d)", level_folder.name, flags=re.IGNORECASE)
            if level is None:
                yield Problem(str(level_folder), "expected a folder level_1, level_2 or level_3")
                continue
            if not neutral and int(level[1]) not in levels:
                continue
            take = f"level_{level[1]}" if len(levels) > 1 and not neutral else ""
            audio = located(speaker, f"audio/{emotion_folder.name}/{level_folder.name}")
            for path in _files(level_folder):
                if path.suffix.lower() == _LANDMARKS_SUFFIX:
                    continue  # beside the video they are of
                sound = _sound(audio / path.stem)
                yield _mead_clip(id_part(speaker.name), emotion_folder.name, path, sound, take=take)


def _mead_frames(speaker: Path, kind: str) -> Found:
    """MEAD as the ASCCL README lays it out: img/EMOTION/NNN/%06d.png, audio/EMOTION/NNN.m4a."""
    for emotion_folder in _folders(located(speaker, kind)):
        audio = located(speaker, f"audio/{emotion_folder.name}")
        for path in _folders(emotion_folder):
            candidates = [audio / path.name, *(folder / path.name for folder in reversed(_folders(audio)))]
            yield _mead_clip(
                id_part(speaker.name),
                emotion_folder.name,
                path,
                next(filter(None, map(_sound, candidates)), None),
                take="",
            )


def _mead_clip(speaker: str, emotion: str, path: Path, audio: Path | None, *, take: str) -> Clip | Problem:
    if path.is_file() and path.suffix.lower() not in VIDEO_SUFFIXES:
        return Problem(str(path), f"wrong extension {path.suffix!r}: not a video")
    try:
        emotion = emotion_name(emotion)
    except ValueError as error:
        return Problem(str(path), str(error))
    name = id_part(path.stem if path.is_file() else path.name)
    return Clip(
        clip_id="/".join(filter(None, (speaker, emotion, name, take))),
        speaker=speaker,
        emotion=emotion,
        sentence=name if name in MEAD_COMMON_SENTENCES else f"{emotion}-{name}",
        name=name,
        video=path,
        audio=audio,
    )


def _find_ravdess(root: Path) -> Found:
    """RAVDESS: seven two-digit fields a file name, sound in the video or in the audio-only twin."""
    paths = sorted(_tree(root, frozenset()))
    sounds = {path.stem: path for path in paths if path.suffix.lower() in AUDIO_SUFFIXES}
    stems = {path.stem for path in paths if path.suffix.lower() in VIDEO_SUFFIXES}
    for path in paths:
        if path.suffix.lower() in AUDIO_SUFFIXES:
            continue
        fields = re.fullmatch(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)", path.stem)
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            if fields is not None:
                yield Problem(str(path), f"wrong extension {path.suffix!r}: not a video")
        elif fields is not None:
            if fields[1] == "02" and "01" + path.stem[2:] in stems:
                continue  # the same take without its sound
            sound = None if fields[1] == "01" else sounds.get("03" + path.stem[2:])
            yield _ravdess_clip(path, fields.groups(), sound)
        else:
            yield _renamed_ravdess_clip(path, sounds.get(path.stem))


def _ravdess_clip(path: Path, fields: Sequence[str], audio: Path | None) -> Clip | Problem:
    _, channel, emotion_code, intensity, statement, repetition, actor = fields
    try:
        emotion = emotion_name(_RAVDESS_EMOTIONS.get(emotion_code, emotion_code))
    except ValueError as error:
        return Problem(str(path), str(error))
    sentence = statement if channel == "01" else f"song-{statement}"
    name = f"{sentence}-{intensity}-{repetition}"
    speaker = f"Actor_{actor}"
    return Clip(
        clip_id=f"{speaker}/{emotion}/{sentence}/{intensity}-{repetition}",
        speaker=speaker,
        emotion=emotion,
        sentence=sentence,
        name=name,
        video=path,
        audio=audio,
    )


def _renamed_ravdess_clip(path: Path, audio: Path | None) -> Clip | Problem:
    """The authors' renaming, Actor_01/videos/happy_02_02.mp4: emotion, statement, repetition."""
    fields = re.fullmatch(r"([A-Za-z]+)_(\d\d)_(\d\d)", path.stem)
    actor = next((part.capitalize() for part in reversed(path.parts) if is_ravdess_actor(part)), None)
    if fields is None or actor is None:
        return Problem(str(path), "not a RAVDESS name: expected seven two-digit fields, as 01-01-03-02-01-01-05.mp4")
    try:
        emotion = emotion_name(fields[1])
    except ValueError as error:
        return Problem(str(path), str(error))
    return Clip(
        clip_id=f"{actor}/{emotion}/{fields[2]}/{fields[3]}",
        speaker=actor,
        emotion=emotion,
        sentence=fields[2],
        name=f"{fields[2]}_{fields[3]}",
        video=path,
        audio=audio,
    )


def is_ravdess_actor(name: str) -> bool:
    """Returns whether a folder is called as those of RAVDESS's actors."""
    return re.fullmatch(r"actor_\d\d", name, flags=re.IGNORECASE) is not None


def _find_listed(table: Path) -> Found:
    """A CSV with the columns path, speaker, emotion, sentence and, if wanted, split, take, audio, landmarks."""
    for number, row in read_csv(table, ("path", "speaker", "emotion", "sentence")).items():
        split, take = (row.get("split") or "").casefold() or None, row.get("take") or ""
        if split not in (None, "train", "validation", "test"):
            raise InputError(f"{table}, line {number}: split {split!r}: expected train, validation, test or nothing")
        subject = row["path"] or f"{table.name}, line {number}"
        empty = [column for column in ("path", "speaker", "emotion", "sentence") if not row[column]]
        if empty:
            yield Problem(subject, f"line {number}: no {', '.join(empty)}")
            continue
        if any("/" in part for part in (row["speaker"], take)):
            yield Problem(subject, f"line {number}: a speaker or take must not contain '/'")
            continue
        try:
            emotion = emotion_name(row["emotion"])
        except ValueError as error:
            yield Problem(subject, str(error))
            continue
        sentence = sentence_key(row["sentence"])
        video, audio, landmarks = (
            located(table.parent, row[column]) if row.get(column) else None for column in ("path", "audio", "landmarks")
        )
        assert video is not None
        if not video.exists():
            yield Problem(subject, "no such file")
            continue
        yield Clip(
            clip_id="/".join(map(id_part, filter(None, (row["speaker"], emotion, sentence, take)))),
            speaker=id_part(row["speaker"]),
            emotion=emotion,
            sentence=sentence,
            name="-".join(filter(None, (sentence, take))),
            video=video,
            audio=audio,
            landmarks=landmarks,
            split=split,
        )


def located(folder: Path, words: str) -> Path:
    """Returns the path that a table or a layout means: as it is spelled, or else the only one that differs in spelling.

    Tables come from Windows, with backslashes and letters of any size, and from macOS, where accents are letters of
    their own.
    """
    path = folder / words
    if path.exists():
        return path
    found = folder
    for part in PurePosixPath(words.replace("\\", "/")).parts:
        exact = found / part
        if not exact.exists() and found.is_dir():
            alike = [other for other in found.iterdir() if _folded(other.name) == _folded(part)]
            exact = alike[0] if len(alike) == 1 else exact
        found = exact
    return found if found.exists() else path


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def read_csv(path: Path, required: Sequence[str]) -> dict[int, dict[str, str]]:
    """Returns the rows of a table by their line, cells by the headings of the first line, without spaces around them.

    Cells are separated by commas, semicolons or tabs, and headings are of any case, as spreadsheets write them. The
    file is UTF-8, or UTF-16 that says so. Other bytes may only be in names of files.

    A cell that begins with `~/` is a path below the home folder.

    Raises:
      InputError: The file cannot be read, lacks a required column, or a row has more cells than there are headings.
    """
    try:
        text = _decoded(path.read_bytes())
        separator = _separator(text, required)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator != "\t")
        rows = [(reader.line_num, [expand_home(cell.strip()) for cell in cells]) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path} as a CSV file: {error}") from error
    rows = [(number, cells) for number, cells in rows if any(cells)]
    # Python's reader gives such a cell all that follows, row after row.
    if rows and "\n" in rows[-1][1][-1] and not text.rstrip().endswith('"'):
        last = rows[-2][0] + 1 if len(rows) > 1 else 1
        raise InputError(f"{path}, line {last}: a double quote opens a cell and none closes it")
    if rows and re.fullmatch(r"sep=.?", "".join(rows[0][1])):  # by which Excel tells itself the separator
        rows = rows[1:]
    headings = [cell.casefold() for cell in rows[0][1]] if rows else []
    missing = [column for column in required if column not in headings]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)} in its first line; expected {','.join(required)}, separated by"
            f" commas, semicolons or tabs; it has {', '.join(filter(None, headings)) or 'nothing'}"
        )
    twice = [name for name in filter(None, headings) if headings.count(name) > 1]
    if twice:
        raise InputError(f"{path}: two columns {twice[0]!r}; keep one of them")
    return {number: _row(f"{path}, line {number}", headings, cells, separator) for number, cells in rows[1:]}


def _decoded(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _separator(text: str, required: Sequence[str]) -> str:
    """What stands between the cells: the one of which the first lines have the most required headings."""
    first = [line.casefold() for line in text.splitlines() if line.strip()][:2]
    counts = {
        mark: max((sum(cell.strip(' "') in required for cell in line.split(mark)) for line in first), default=0)
        for mark in ",;\t"
    }
    return max(counts, key=lambda mark: counts[mark])


def _row(place: str, headings: Sequence[str], cells: Sequence[str], separator: str) -> dict[str, str]:
    if any(cells[len(headings) :]):
        raise InputError(
            f"{place}: {len(cells)} cells, but {len(headings)} columns; put a cell that holds {separator!r} in double"
            " quotes"
        )
    row = dict(zip(headings, [*cells, *[""] * len(headings)], strict=False))
    foreign = [name for name in row if name not in _PATHS and not _is_text(row[name])]
    if foreign:
        raise InputError(f"{place}: its {foreign[0]} is not UTF-8; save the table again as 'CSV UTF-8'")
    return {name: value for name, value in row.items() if name}


def _is_text(cell: str) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in cell)


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not is_litter(path.name))


def _files(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_file() and not is_litter(path.name))


def _tree(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Yields the files of a folder and of those in it; links are followed, but not in circles."""
    here = folder.resolve()
    if here in above:
        return
    yield from _files(folder)
    for inner in _folders(folder):
        yield from _tree(inner, above | {here})


def _sound(stem: Path) -> Path | None:
    """The sound file of that name, its ending in letters of any size; the earlier of `AUDIO_SUFFIXES` counts."""
    if not stem.parent.is_dir():
        return None
    found = {path.suffix.lower(): path for path in _files(stem.parent) if path.stem == stem.name}
    return next((found[suffix] for suffix in AUDIO_SUFFIXES if suffix in found), None)


# Which clips are trained on, selected by, and kept to report on: whole speakers, unless the input says so.

MEAD_VALIDATION_SPEAKER = "W021"
"""The speaker whom the released code holds out."""

_HELD_OUT = 0.1


def assign_splits(
    clips: Sequence[Clip],
    *,
    layout: str = "list",
    validation_speakers: Sequence[str] = (),
    test_speakers: Sequence[str] | None = None,
) -> dict[str, str]:
    """Returns the split, "train", "validation" or "test", of each clip by its id.

    Nothing trains on "test" or selects by it. It holds the test speakers, those of `TEST_SPEAKERS` where none are
    named (of whom some may be absent; if nobody else is there, they are ordinary speakers: somebody must train), and
    what the clips themselves mark so.

    Of the others, named speakers are held out for validation first of all. Else the clips' own marks count, where any
    is marked "train" or "validation" (clips without a mark train). Else MEAD holds out W021, where it is there, and
    anything else the last tenth of all speakers, at least one. A single speaker is not held out: there would be nothing
    to train on.

    Args:
      clips: What to split.
      layout: One of `layouts.LAYOUTS`, or another that has no test speakers.
      validation_speakers: Speakers to hold out.
      test_speakers: Speakers to report on; none at all takes even the marks off the clips, None takes the default.

    Raises:
      InputError: A named speaker is not there or is named for both, or no other is left to train on.
    """
    speakers = sorted({clip.speaker for clip in clips})
    test = _test_speakers(speakers, layout, test_speakers)
    named = _named(speakers, validation_speakers, "--validation-speakers")
    if both := sorted(test & named):
        raise InputError(
            f"--validation-speakers {', '.join(both)}: test speakers, whom nothing may be selected by; choose others,"
            " or say whom to report on instead: --test-speakers NAME,NAME, or --test-speakers none"
        )
    marked = {clip.clip_id for clip in clips if clip.split == "test" and test_speakers is None}
    splits = {clip.clip_id: "test" for clip in clips if clip.speaker in test or clip.clip_id in marked}
    rest = [clip for clip in clips if clip.clip_id not in splits]
    others = sorted({clip.speaker for clip in rest})
    if named:
        held_out = named
    elif any(clip.split in ("train", "validation") for clip in rest):
        own = {clip.clip_id: "validation" if clip.split == "validation" else "train" for clip in rest}
        return splits | own
    elif layout == "mead" and MEAD_VALIDATION_SPEAKER in others and len(others) > 1:
        held_out = {MEAD_VALIDATION_SPEAKER}
    else:
        count = min(max(1, int(_HELD_OUT * len(speakers))), len(others) - 1)
        held_out = set(others[len(others) - count :])
    splits |= {clip.clip_id: "validation" if clip.speaker in held_out else "train" for clip in rest}
    if "train" not in splits.values():
        raise InputError(
            "test and validation speakers are all there are: none is left to train on; see --test-speakers,"
            " --validation-speakers and the column split of a list"
        )
    return splits


def named_speakers(words: str) -> tuple[str, ...]:
    """Returns the speakers that an option names.

    >>> named_speakers("M003, W015"), named_speakers("none")
    (('M003', 'W015'), ())
    """
    names = tuple(filter(None, (word.strip() for word in words.split(","))))
    return () if names == ("none",) else names


def _test_speakers(speakers: Sequence[str], layout: str, asked: Sequence[str] | None) -> set[str]:
    if asked is None:
        usual = {name_key(name) for name in TEST_SPEAKERS.get(layout, ())}
        found = {speaker for speaker in speakers if name_key(speaker) in usual}
        return found if found < set(speakers) else set()
    found = _named(speakers, asked, "--test-speakers")
    if found == set(speakers):
        raise InputError("--test-speakers names every speaker: none is left to train on")
    return found


def _named(speakers: Sequence[str], asked: Sequence[str], option: str) -> set[str]:
    """The speakers that an option names, in whatever spelling."""
    known = {name_key(speaker): speaker for speaker in speakers}
    if unknown := sorted(name for name in asked if name_key(name) not in known):
        raise InputError(f"{option} {', '.join(unknown)}: not among {', '.join(speakers)}")
    return {known[name_key(name)] for name in asked}
