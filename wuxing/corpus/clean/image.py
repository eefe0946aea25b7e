"""Pictures that decode, are large enough, sharp enough, and show something."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wuxing.core.context import Context
from wuxing.core.record import Drop
from wuxing.corpus.clean.cleaner import Column
from wuxing.corpus.clean.media_cleaner import Look, MediaCleaner
from wuxing.corpus.clean.media_config import ImageConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MEASURED_SIDE = 512
"""Pixels to which the longer side is shrunk before blur is measured, so that it compares over resolutions."""


class ImageCheck(MediaCleaner):
    """Decodes, measures, drops."""

    column: ClassVar[Column] = "image"

    def __init__(self, settings: ImageConfig):
        super().__init__()
        self.settings = settings

    def look(self, data: bytes) -> Look:
        """Size, shape, sharpness, contrast."""
        from wuxing.media.error import MediaError
        from wuxing.media.image import decode, grey, within

        try:
            image = decode(data, self.settings.max_pixels)
            luma = grey(within(image, MEASURED_SIDE))
        except MediaError as error:
            return Look(Drop("too_many_pixels" if "too many pixels" in str(error) else "broken_image", error.what))
        measures = {
            "width": float(image.width),
            "height": float(image.height),
            "aspect": max(image.size) / min(image.size),
            "sharpness": sharpness(luma),
            "contrast": float(luma.std()),
            "brightness": float(luma.mean()),
            "bytes": float(len(data)),
        }
        notes = {"width": image.width, "height": image.height}
        return Look(self._fault(measures), measures=measures, notes=notes)

    def _fault(self, seen: dict[str, float]) -> Drop | None:
        asked, size = self.settings, f"{seen['width']:.0f} x {seen['height']:.0f} pixels"
        if min(seen["width"], seen["height"]) < asked.min_side_pixels:
            return Drop("too_small", size)
        if seen["aspect"] > asked.max_aspect:
            return Drop("too_long_and_thin", size)
        if seen["contrast"] < asked.min_contrast:
            return Drop("nearly_uniform", f"the luma's standard deviation is {seen['contrast']:.2f}")
        if seen["sharpness"] < asked.min_sharpness:
            return Drop("blurred", f"the Laplacian's variance is {seen['sharpness']:.1f}")
        return None


def sharpness(luma: NDArray[np.float32]) -> float:
    """Variance of the Laplacian (4 neighbours) over the pixels inside; 0 for less than 3 pixels a side."""
    if min(luma.shape) < 3:
        return 0.0
    inside = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inside
    return float(laplacian.var(dtype="float64"))


def build(settings: ImageConfig, context: Context, fitted: Path | None = None) -> ImageCheck:
    """The step."""
    return ImageCheck(settings)
