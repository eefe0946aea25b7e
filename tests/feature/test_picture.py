"""Features of images against plain loops and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from wuxing.feature.config import ColourHistogram, Edges, Hog
from wuxing.feature.picture import Pictures, edges, grey, histogram, hog, sobel

NOISE = np.random.default_rng(4)


def picture(width: int = 37, height: int = 23) -> Image.Image:
    return Image.fromarray(NOISE.integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("space", ["rgb", "hsv", "grey"])
def test_histogram_is_that_of_loops(space: str) -> None:
    image, settings = picture(), ColourHistogram(space=space, bins=5)  # type: ignore[arg-type]
    mode = {"rgb": "RGB", "hsv": "HSV", "grey": "L"}[space]
    pixels = np.asarray(image.convert(mode)).reshape(37 * 23, -1)
    expected = np.zeros((pixels.shape[1], 5))
    for pixel in pixels:
        for axis, value in enumerate(pixel):
            expected[axis, int(value) * 5 // 256] += 1 / len(pixels)
    assert np.allclose(histogram(image, settings), expected.ravel(), atol=1e-12)
    assert len(Pictures(settings).names) == expected.size


def test_joint_histogram_names_its_bins() -> None:
    settings = ColourHistogram(joint=True, bins=4)
    row = Pictures(settings).apply([Image.new("RGB", (3, 3), (255, 0, 70))])[0]
    assert Pictures(settings).names[int(row.argmax())] == "red3 green0 blue1" and row.max() == 1


def test_sobel_is_scipys() -> None:
    pixels = NOISE.random((19, 31))
    along_x, along_y = sobel(pixels)
    assert np.allclose(along_x, ndimage.sobel(pixels, axis=1, mode="nearest") / 4)
    assert np.allclose(along_y, ndimage.sobel(pixels, axis=0, mode="nearest") / 4)


def test_an_edge_is_found_where_it_is() -> None:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:, 40:] = 255
    settings = Edges(grid=4)
    row = edges(Image.fromarray(pixels), settings).reshape(2, 4, 4)
    assert (row[1].argmax(1) == 2).all() and row[1][:, [0, 1, 3]].max() == 0
    assert row[1][0, 2] == 2 / 16  # two columns of pixels of a cell of 16 see the step


def plain_hog(pixels: np.ndarray, settings: Hog) -> np.ndarray:
    height, width = pixels.shape
    rows, columns = height // settings.cell, width // settings.cell
    cells = np.zeros((rows, columns, settings.orientations))
    for y in range(rows * settings.cell):
        for x in range(columns * settings.cell):
            gy = pixels[y + 1, x] - pixels[y - 1, x] if 0 < y < height - 1 else 0.0
            gx = pixels[y, x + 1] - pixels[y, x - 1] if 0 < x < width - 1 else 0.0
            degrees = math.degrees(math.atan2(gy, gx)) % 180
            place = min(int(degrees / (180 / settings.orientations)), settings.orientations - 1)
            cells[y // settings.cell, x // settings.cell, place] += math.hypot(gx, gy) / settings.cell**2
    found = []
    for r in range(rows - settings.block + 1):
        for c in range(columns - settings.block + 1):
            block = cells[r : r + settings.block, c : c + settings.block].ravel()
            block = np.minimum(block / math.sqrt((block**2).sum() + 1e-10), 0.2)
            found.append(block / math.sqrt((block**2).sum() + 1e-10))
    return np.concatenate(found)


@pytest.mark.parametrize(("cell", "block", "bins"), [(8, 2, 9), (5, 1, 6), (4, 3, 12)])
def test_hog_is_that_of_loops(cell: int, block: int, bins: int) -> None:
    settings = Hog(width=37, height=23, cell=cell, block=block, orientations=bins)
    pixels = NOISE.random((23, 37))
    expected = plain_hog(pixels, settings)
    assert np.allclose(hog(pixels, settings), expected, atol=1e-9)
    assert len(Pictures(settings).names) == len(expected)


def test_hog_of_a_mirrored_picture_is_mirrored() -> None:
    settings = Hog(width=32, height=32, orientations=9, block=1)
    pixels = NOISE.random((32, 32))
    plain = hog(pixels, settings).reshape(4, 4, 9)
    mirrored = hog(pixels[:, ::-1], settings).reshape(4, 4, 9)
    # an angle a becomes 180° - a; only the first and last row of pixels have angles on the border of a bin (0°)
    assert np.allclose(mirrored[1:-1], plain[1:-1, ::-1, ::-1], atol=1e-9)


def test_any_size_and_mode_gives_a_row() -> None:
    images = [
        picture(5, 90),
        Image.new("1", (9, 9), 1),
        Image.new("P", (40, 7)),
        Image.new("LA", (3, 3)),
        picture().convert("CMYK"),
    ]
    for settings in (ColourHistogram(), Edges(), Hog()):
        rows = Pictures(settings).apply(images)
        assert rows.shape == (5, len(Pictures(settings).names)) and np.isfinite(rows).all()


def test_grey_is_of_the_asked_size() -> None:
    assert grey(picture(), 12, 30).shape == (30, 12)
