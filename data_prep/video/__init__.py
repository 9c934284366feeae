"""From a video to the same video in another emotion: stages, composing of faces, files of video."""
