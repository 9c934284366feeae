"""Compiled kernels of the renderer: posing, normals, depth buffer and shading of triangles, one core, no torch.

Picture coordinates are pixels with borders at whole numbers, x right, y down; larger depth is nearer.
"""
# ruff: noqa: ANN001, ANN202 -- numba infers the arrays' types; docstrings name their shapes.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from data_prep.compiled import compiled

__all__ = ["average_blocks", "deform", "rasterise", "shade", "vertex_normals"]

_LEAST_NORMAL = np.float32(1e-20)

SKIN, EYE, MOUTH, TEETH, TONGUE, RIM, HAIR = range(7)


@compiled(fastmath=True, nogil=True)
def deform(rest, moving, fields, strengths, weights, transforms, out) -> None:
    """Writes posed vertices: blend shapes, then linear blend skinning.

    Args:
      rest: [n, 3] vertices of the person at rest.
      moving: [m] vertices that some blend shape moves.
      fields: [k, m, 3] their displacement per unit strength.
      strengths: [k] strengths; those that are 0 cost nothing.
      weights: [n, 5] skinning weights.
      transforms: [5, 3, 4] joint transforms.
      out: [n, 3] result.
    """
    out[:] = rest
    for k in range(len(strengths)):
        strength = strengths[k]
        if strength == 0.0:
            continue
        for m in range(len(moving)):
            vertex = moving[m]
            for axis in range(3):
                out[vertex, axis] += strength * fields[k, m, axis]
    for vertex in range(len(rest)):
        x, y, z = out[vertex, 0], out[vertex, 1], out[vertex, 2]
        for axis in range(3):
            total = np.float32(0.0)
            for joint in range(5):
                weight = weights[vertex, joint]
                if weight != 0.0:
                    row = transforms[joint, axis]
                    total += weight * (row[0] * x + row[1] * y + row[2] * z + row[3])
            out[vertex, axis] = total


@compiled(fastmath=True, nogil=True)
def vertex_normals(vertices, faces, out, least=_LEAST_NORMAL) -> None:
    """Writes unit normals [n, 3]: the sum of the adjacent faces' normals, larger faces counting more.

    Sums shorter than `least`, in square metres, are divided by it.
    """
    out[:] = 0
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x, y, z = vertices[a, 0], vertices[a, 1], vertices[a, 2]
        ux, uy, uz = vertices[b, 0] - x, vertices[b, 1] - y, vertices[b, 2] - z
        vx, vy, vz = vertices[c, 0] - x, vertices[c, 1] - y, vertices[c, 2] - z
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for corner in (a, b, c):
            out[corner, 0] += nx
            out[corner, 1] += ny
            out[corner, 2] += nz
    for n in range(len(out)):
        length = np.sqrt(out[n, 0] ** 2 + out[n, 1] ** 2 + out[n, 2] ** 2)
        scale = np.float32(1.0) / max(length, least)
        out[n, 0] *= scale
        out[n, 1] *= scale
        out[n, 2] *= scale


@compiled(fastmath=True)
def rasterise(points, faces, depth, face_id) -> None:
    """Fills the depth buffer [h, w] and the nearest front-facing triangle per sample [h, w], -1 for none.

    `points` [n, 3] holds picture x, picture y and depth.
    """
    height, width = depth.shape
    depth[:] = -np.inf
    face_id[:] = -1
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay = points[a, 0], points[a, 1]
        bx, by = points[b, 0] - ax, points[b, 1] - ay
        cx, cy = points[c, 0] - ax, points[c, 1] - ay
        area = bx * cy - by * cx
        if area >= -1e-9:  # y points down: what turns clockwise here is seen from outside
            continue
        top, bottom = min(0.0, by, cy), max(0.0, by, cy)
        left, right = min(0.0, bx, cx), max(0.0, bx, cx)
        row_0, row_1 = max(0, int(np.ceil(ay + top - 0.5))), min(height - 1, int(np.floor(ay + bottom - 0.5)))
        col_0, col_1 = max(0, int(np.ceil(ax + left - 0.5))), min(width - 1, int(np.floor(ax + right - 0.5)))
        if row_0 > row_1 or col_0 > col_1:
            continue
        inverse = 1.0 / area
        depth_a = points[a, 2]
        depth_b, depth_c = points[b, 2] - depth_a, points[c, 2] - depth_a
        for row in range(row_0, row_1 + 1):
            py = row + 0.5 - ay
            for column in range(col_0, col_1 + 1):
                px = column + 0.5 - ax
                weight_b = (px * cy - py * cx) * inverse
                weight_c = (py * bx - px * by) * inverse
                if weight_b < 0 or weight_c < 0 or weight_b + weight_c > 1:
                    continue
                here = depth_a + weight_b * depth_b + weight_c * depth_c
                if here > depth[row, column]:
                    depth[row, column] = here
                    face_id[row, column] = f


@compiled(fastmath=True, inline="always")
def _step(value, start, end):
    t = min(max((value - start) / (end - start), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@compiled(fastmath=True)
def _sample(texture, u, v, out):
    """Bilinear look-up of a texture [s, s, channels] at u, v in 0..1."""
    size = texture.shape[0]
    x = min(max(u * size - 0.5, 0.0), size - 1.001)
    y = min(max(v * size - 0.5, 0.0), size - 1.001)
    column, row = int(x), int(y)
    fx, fy = np.float32(x - column), np.float32(y - row)
    for channel in range(texture.shape[2]):
        upper = texture[row, column, channel] * (1 - fx) + texture[row, column + 1, channel] * fx
        lower = texture[row + 1, column, channel] * (1 - fx) + texture[row + 1, column + 1, channel] * fx
        out[channel] = upper * (1 - fy) + lower * fy


@compiled(fastmath=True)
def _eye_colour(u, v, iris, out):
    """Paint of the eyeball at u, v in radii from the middle of the iris; returns its gloss."""
    radius = np.sqrt(u * u + v * v)
    white = (1.0 - 0.30 * _step(abs(u), 0.45, 0.95)) * (1.0 - 0.45 * _step(v, 0.05, 0.48))  # the upper lid's shadow
    out[0], out[1], out[2] = 0.56 * (0.6 + 0.4 * white), 0.52 * white, 0.50 * white
    inside = 1.0 - _step(radius, 0.465, 0.515)
    if inside > 0:
        turn = np.arctan2(v, u)
        streak = 0.86 + 0.10 * np.sin(turn * 23.0 + 5.0 * radius) + 0.08 * np.sin(turn * 37.0 + 1.3)
        shade = (0.55 + 0.75 * _step(radius, 0.46, 0.22)) * streak * (1.0 - 0.65 * _step(radius, 0.40, 0.50))
        pupil = _step(radius, 0.185, 0.225)
        for channel in range(3):
            out[channel] += inside * (
                iris[channel] * shade * pupil * (1.1 - 0.5 * _step(v, 0.0, 0.42)) + 0.004 - out[channel]
            )
    return np.float32(0.9)


@compiled(fastmath=True)
def _part_colour(material, u, v, paint, out):
    """Paint of what is in the mouth and of the lids' rims; returns its gloss."""
    if material == TEETH:
        side = abs(2.0 * u - 1.0)
        shade = (1.0 - 0.90 * side**1.4) * (0.80 + 0.20 * _step(v, 0.1, 0.6))
        gum = _step(v, 0.30, 0.12)
        gap = 1.0 - 0.35 * (1.0 - min(1.0, abs(np.sin(np.pi * 10.0 * u)) * 3.0))
        out[0] = shade * (0.80 * gap * (1 - gum) + 0.48 * gum)
        out[1] = shade * (0.72 * gap * (1 - gum) + 0.17 * gum)
        out[2] = shade * (0.58 * gap * (1 - gum) + 0.16 * gum)
        return np.float32(0.5)
    if material == TONGUE:
        shade = 0.35 + 0.65 * _step(v, 0.05, 0.45)
        out[0], out[1], out[2] = 0.42 * shade, 0.115 * shade, 0.115 * shade
        return np.float32(0.35)
    if material == RIM:
        fade = 0.75 - 0.35 * v
        for channel in range(3):
            out[channel] = paint[0, channel] * fade
        return np.float32(0.4)
    if v >= 1.0:
        out[0], out[1], out[2] = 0.030, 0.008, 0.008
        return np.float32(0.0)
    shade = 1.0 - 0.90 * _step(v, 0.10, 0.85)
    for channel in range(3):
        out[channel] = paint[1, channel] * shade
    return np.float32(0.6 * shade)


@compiled(fastmath=True)
def shade(
    points, normals, faces, label, uv, tangents, exposure, face_id, skin, hair, paint, lights, background, out
) -> None:
    """Writes linear RGB [h, w, 3] of every sample.

    Args:
      points: [n, 3] picture coordinates, as `rasterise` takes them.
      normals: [n, 3] unit normals, y up.
      faces: [f, 3] triangles.
      label: [f] material of each.
      uv: [n, 2] paint coordinates.
      tangents: [n, 3] direction of the strands of hair.
      exposure: [n, 2] how much of the sky and of the main light each vertex sees.
      face_id: [h, w] triangle per sample.
      skin: [s, s, 4] colour and gloss of the skin sheet.
      hair: [s, s, 2] brightness of the strands, shift of their highlight.
      paint: [4, 3] colour of lids' rims, inner lips, iris, hair.
      lights: [5, 3] main direction, main colour, fill direction, fill colour, sky colour.
      background: [h, w, 3] what is seen where nothing is.
      out: [h, w, 3] result.
    """
    height, width = face_id.shape
    texel = np.empty(4, np.float32)
    n, t = np.empty(3, np.float32), np.empty(3, np.float32)
    half = np.empty(3, np.float32)
    length = np.sqrt(lights[0, 0] ** 2 + lights[0, 1] ** 2 + (lights[0, 2] + 1) ** 2)
    half[0], half[1], half[2] = lights[0, 0] / length, lights[0, 1] / length, (lights[0, 2] + 1) / length
    for row in range(height):
        for column in range(width):
            f = face_id[row, column]
            if f < 0:
                for channel in range(3):
                    out[row, column, channel] = background[row, column, channel]
                continue
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            ax, ay = points[a, 0], points[a, 1]
            bx, by, cx, cy = points[b, 0] - ax, points[b, 1] - ay, points[c, 0] - ax, points[c, 1] - ay
            px, py = column + np.float32(0.5) - ax, row + np.float32(0.5) - ay
            inverse = np.float32(1.0) / (bx * cy - by * cx)
            wb, wc = (px * cy - py * cx) * inverse, (py * bx - px * by) * inverse
            wa = 1 - wb - wc
            for i in range(3):
                n[i] = wa * normals[a, i] + wb * normals[b, i] + wc * normals[c, i]
            scale = 1 / np.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2] + np.float32(1e-12))
            n[0], n[1], n[2] = n[0] * scale, n[1] * scale, n[2] * scale
            u = wa * uv[a, 0] + wb * uv[b, 0] + wc * uv[c, 0]
            v = wa * uv[a, 1] + wb * uv[b, 1] + wc * uv[c, 1]
            sky = wa * exposure[a, 0] + wb * exposure[b, 0] + wc * exposure[c, 0]
            sun = wa * exposure[a, 1] + wb * exposure[b, 1] + wc * exposure[c, 1]
            to_main = n[0] * lights[0, 0] + n[1] * lights[0, 1] + n[2] * lights[0, 2]
            to_fill = n[0] * lights[2, 0] + n[1] * lights[2, 1] + n[2] * lights[2, 2]
            to_half = max(np.float32(0.0), n[0] * half[0] + n[1] * half[1] + n[2] * half[2])
            up = np.float32(0.62) + np.float32(0.38) * n[1]
            material = label[f]
            if material == HAIR:
                for i in range(3):
                    t[i] = wa * tangents[a, i] + wb * tangents[b, i] + wc * tangents[c, i]
                _sample(hair, u, v, texel)
                strand = texel[0]
                along = t[0] * half[0] + t[1] * half[1] + t[2] * half[2] + texel[1]
                glint = max(np.float32(0.0), 1 - along * along)
                glint = glint**12 * max(np.float32(0.0), np.float32(0.25) + to_main) * sun
                wrapped = max(np.float32(0.0), (to_main + np.float32(0.35)) / np.float32(1.35)) * sun
                filled = max(np.float32(0.0), (to_fill + np.float32(0.3)) / np.float32(1.3))
                for i in range(3):
                    light = wrapped * lights[1, i] + filled * lights[3, i] + sky * up * lights[4, i]
                    colour = paint[3, i]
                    sheen = glint * (np.float32(0.40) * colour + np.float32(0.012)) * lights[1, i]
                    out[row, column, i] = strand * (colour * light + sheen)
                continue
            if material == SKIN:
                _sample(skin, u, v, texel)
                gloss = texel[3]
            elif material == EYE:
                gloss = _eye_colour(u, v, paint[2], texel)
            else:
                gloss = _part_colour(material, u, v, paint, texel)
            edge = 1 - max(np.float32(0.0), n[2])
            fresnel = np.float32(0.6) + np.float32(3.0) * edge * edge * edge
            if material == SKIN:
                broad = to_half**8
                shine = gloss * fresnel * (np.float32(0.16) * broad + np.float32(0.20) * broad * broad * broad) * sun
            elif material == EYE:
                shine = np.float32(1.6) * to_half**160 + np.float32(0.05) * to_half**20
            else:
                shine = gloss * np.float32(0.35) * to_half**40 * sky
            filled = max(np.float32(0.0), (to_fill + np.float32(0.3)) / np.float32(1.3))
            for i in range(3):
                # Light goes round corners under skin, red farthest.
                wrap = np.float32(0.42 - 0.13 * i) if material == SKIN else np.float32(0.2)
                direct = max(np.float32(0.0), (to_main + wrap) / (1 + wrap)) * sun
                bounced = sky ** np.float32(0.75 + 0.15 * i)
                light = direct * lights[1, i] + (filled * lights[3, i] + up * lights[4, i]) * bounced
                out[row, column, i] = texel[i] * light + shine * lights[1, i]


@compiled()
def average_blocks(samples, factor, curve, brightest, out) -> None:
    """Writes the 8-bit picture [h, w, 3]: the mean of factor x factor samples through a brightness curve.

    `curve` [k] maps linear light 0..`brightest`, in k even steps, to 0..255.
    """
    height, width = out.shape[:2]
    top = len(curve) - 1
    scale = top / (factor * factor * brightest)
    for row in range(height):
        for column in range(width):
            for channel in range(3):
                total = 0.0
                for i in range(factor):
                    for j in range(factor):
                        total += min(samples[row * factor + i, column * factor + j, channel], brightest)
                out[row, column, channel] = curve[int(total * scale + 0.5)]
