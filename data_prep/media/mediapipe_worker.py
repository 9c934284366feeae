"""MediaPipe's face mesh as a filter: frames on stdin, 68 landmarks on stdout.

Runs as a script in an environment of its own, because MediaPipe 0.10.21 (the last with a model in its wheel) pins
NumPy, OpenCV and protobuf versions of its own; it needs nothing of this package. A message is two little-endian int32,
height and width, and the RGB bytes; the answer is 68 x 2 float32, NaN without a face. Height 0 starts a new clip.
"""

import contextlib
import os
import struct
import sys
from typing import Any

__all__ = ["MESH_POINTS", "main"]

# Face-mesh vertex of each of the 68 points: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, lips 48-67.
MESH_POINTS = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87),
)


def main() -> int:
    """Serves until stdin ends; returns the exit status."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # MediaPipe's own chatter must not mix with the answers
    import mediapipe  # type: ignore[import-not-found,unused-ignore]
    import numpy as np

    def tracker() -> Any:
        return mediapipe.solutions.face_mesh.FaceMesh(max_num_faces=1, static_image_mode=False)

    mesh = tracker()
    while header := requests.read(8):
        height, width = struct.unpack("<ii", header)
        if height == 0:
            mesh.close()
            mesh = tracker()
            continue
        image = np.frombuffer(requests.read(height * width * 3), np.uint8).reshape(height, width, 3)
        faces = mesh.process(image).multi_face_landmarks
        points = np.full((68, 2), np.nan, np.float32)
        if faces:
            mesh_points = [faces[0].landmark[vertex] for vertex in MESH_POINTS]
            # Fractions of the picture's borders; a pixel's centre lies half a pixel inside.
            points = np.array([(p.x * width - 0.5, p.y * height - 0.5) for p in mesh_points], np.float32)
        with contextlib.suppress(BrokenPipeError):
            answers.write(points.tobytes())
            answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
