"""Features of images: colour histograms, Sobel edges, histograms of oriented gradients.  Nothing in them is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from wuxing.feature.config import ColourHistogram, Edges, Hog, PictureSettings
from wuxing.media.image import in_mode

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from wuxing.feature.fitted import Room

_AXES = {"rgb": ("red", "green", "blue"), "hsv": ("hue", "saturation", "value"), "grey": ("grey",)}
_MODES = {"rgb": "RGB", "hsv": "HSV", "grey": "L"}
HYSTERESIS = 0.2
"""L2-Hys: block values are cut here after the first normalisation (Dalal & Triggs 2005; Lowe 2004)."""
HOG_EPSILON = 1e-5


class Pictures:
    """A transform of single images."""

    sparse: ClassVar[bool] = False
    tolerance: ClassVar[float] = 0.0

    def __init__(self, settings: PictureSettings):
        self.settings = settings

    @cached_property
    def names(self) -> list[str]:
        """What each column is."""
        match self.settings:
            case ColourHistogram():
                return _histogram_names(self.settings)
            case Edges(grid=grid):
                cells = [f"r{row}c{column}" for row in range(grid) for column in range(grid)]
                return [f"{what} {cell}" for what in ("strength", "share") for cell in cells]
            case Hog():
                return _hog_names(self.settings)
        raise AssertionError(f"no image transform {self.settings}")

    def apply(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """One row per image."""
        rows = np.zeros((len(images), len(self.names)), np.float32)
        for row, image in zip(rows, images, strict=True):
            row[:] = self._one(image)
        return rows

    def _one(self, image: Image.Image) -> NDArray[np.float64]:
        match self.settings:
            case ColourHistogram():
                return histogram(image, self.settings)
            case Edges():
                return edges(image, self.settings)
            case Hog():
                return hog(grey(image, self.settings.width, self.settings.height), self.settings)
        raise AssertionError(f"no image transform {self.settings}")

    def save(self, directory: Path) -> None:
        """Nothing is fitted: the settings say all."""

    @classmethod
    def load(cls, directory: Path, settings: PictureSettings) -> Pictures:
        """From the settings."""
        return cls(settings)


def fit(settings: PictureSettings, images: object, room: Room) -> Pictures:
    """Nothing is fitted."""
    return Pictures(settings)


def grey(image: Image.Image, width: int, height: int) -> NDArray[np.float64]:
    """The image as grey (ITU-R 601 luma) of a size, 0 black to 1 white."""
    from PIL import Image

    small = in_mode(image, "L")
    if small.size != (width, height):
        small = small.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(small, np.float64) / 255


def histogram(image: Image.Image, settings: ColourHistogram) -> NDArray[np.float64]:
    """Shares of pixels per bin: one histogram after the other, or the bins of the whole space; each sums to 1."""
    values = np.asarray(in_mode(image, "RGB").convert(_MODES[settings.space]), np.int64)
    channels = values.reshape(-1, len(_AXES[settings.space])) * settings.bins // 256
    if settings.joint:
        flat = np.zeros(len(channels), np.int64)
        for column in channels.T:
            flat = flat * settings.bins + column
        return np.bincount(flat, minlength=settings.bins ** channels.shape[1]) / len(channels)
    parts = [np.bincount(column, minlength=settings.bins) for column in channels.T]
    return np.concatenate(parts) / len(channels)


def sobel(pixels: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sobel's gradients along x and y, edges repeated; a step of 1 over one pixel gives 1."""
    wide = np.pad(pixels, 1, mode="edge")
    across = wide[:, 2:] - wide[:, :-2]
    down = wide[2:, :] - wide[:-2, :]
    return (
        (across[:-2] + 2 * across[1:-1] + across[2:]) / 4,
        (down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]) / 4,
    )


def edges(image: Image.Image, settings: Edges) -> NDArray[np.float64]:
    """Per cell the mean size of the gradient, then per cell the share of pixels above the threshold."""
    along_x, along_y = sobel(grey(image, settings.width, settings.height))
    size = np.hypot(along_x, along_y)
    return np.concatenate([_cells(size, settings.grid), _cells(size > settings.threshold, settings.grid)])


def _cells(values: NDArray[np.float64] | NDArray[np.bool_], grid: int) -> NDArray[np.float64]:
    """Means of the cells of a grid whose lines are as even as whole pixels allow."""
    height, width = values.shape
    rows, columns = np.arange(grid) * height // grid, np.arange(grid) * width // grid
    sums = np.add.reduceat(np.add.reduceat(values.astype(np.float64), rows, 0), columns, 1)
    areas = np.outer(np.diff(rows, append=height), np.diff(columns, append=width))
    return (sums / areas).ravel()


def hog(pixels: NDArray[np.float64], settings: Hog) -> NDArray[np.float64]:
    """Dalal & Triggs 2005 in the form of scikit-image: central differences (0 at the border), each pixel votes with
    its size for one bin of orientation of its cell, blocks step by one cell and are normalised by L2-Hys."""
    along_y, along_x = np.zeros_like(pixels), np.zeros_like(pixels)
    along_y[1:-1] = pixels[2:] - pixels[:-2]
    along_x[:, 1:-1] = pixels[:, 2:] - pixels[:, :-2]
    size = np.hypot(along_x, along_y)
    angle = np.rad2deg(np.arctan2(along_y, along_x)) % 180
    bins = np.minimum((angle * settings.orientations / 180).astype(np.int64), settings.orientations - 1)
    cell, block = settings.cell, settings.block
    rows, columns = pixels.shape[0] // cell, pixels.shape[1] // cell
    whole = (slice(0, rows * cell), slice(0, columns * cell))
    cells = (np.arange(rows * cell) // cell)[:, None] * columns + (np.arange(columns * cell) // cell)[None, :]
    flat = (cells * settings.orientations + bins[whole]).ravel()
    votes = np.bincount(flat, size[whole].ravel(), rows * columns * settings.orientations)
    cells_RCO = votes.reshape(rows, columns, settings.orientations) / (cell * cell)
    windows = np.lib.stride_tricks.sliding_window_view(cells_RCO, (block, block), (0, 1))
    blocks = windows.transpose(0, 1, 3, 4, 2).reshape(-1, block * block * settings.orientations)
    blocks = np.minimum(_unit(blocks), HYSTERESIS)
    return _unit(blocks).ravel()


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.sqrt(np.square(rows).sum(1, keepdims=True) + HOG_EPSILON**2)


def _histogram_names(settings: ColourHistogram) -> list[str]:
    axes, bins = _AXES[settings.space], settings.bins
    if settings.joint:
        places = np.indices((bins,) * len(axes)).reshape(len(axes), -1).T
        return [" ".join(f"{axis}{i}" for axis, i in zip(axes, place, strict=True)) for place in places]
    return [f"{axis}{i}" for axis in axes for i in range(bins)]


def _hog_names(settings: Hog) -> list[str]:
    rows = settings.height // settings.cell - settings.block + 1
    columns = settings.width // settings.cell - settings.block + 1
    inner = [
        f"cell {i}{j} {round(k * 180 / settings.orientations)}°"
        for i in range(settings.block)
        for j in range(settings.block)
        for k in range(settings.orientations)
    ]
    return [f"block r{row}c{column} {name}" for row in range(rows) for column in range(columns) for name in inner]
