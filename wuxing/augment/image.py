"""Operations on images: each is a pure function of the picture, its settings and a source of random numbers."""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageEnhance

from wuxing.augment.config import ColourJitter, Crop, Cutmix, Flip, ImageOperation, Mixing, Mixup, Rotate
from wuxing.media.image import in_mode

if TYPE_CHECKING:
    from numpy.typing import NDArray

Numbers = dict[str, Any]
DIGITS = 4
"""Decimals of the numbers that are recorded; the same rounded numbers are applied."""


def plain(image: Image.Image) -> Image.Image:
    """The picture as grey or RGB of 8 bits; what is transparent stands on white."""
    if image.mode in ("L", "RGB"):
        return image
    return in_mode(image, "L" if image.mode in ("1", "I;16", "I", "F") else "RGB")


def change(image: Image.Image, operation: ImageOperation, random: Random) -> tuple[Image.Image, Numbers]:
    """The changed picture (of the same size), and the numbers that were drawn."""
    match operation:
        case Rotate():
            degrees = round(random.uniform(-operation.max_degrees, operation.max_degrees), DIGITS)
            return rotate(image, degrees, operation.fill), {"degrees": degrees}
        case Flip(axis="horizontal"):
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), {"axis": "horizontal"}
        case Flip():
            return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), {"axis": "vertical"}
        case Crop():
            return crop(image, operation, random)
        case ColourJitter():
            return jitter(image, operation, random)
    raise AssertionError(f"no image operation {operation}")


def rotate(image: Image.Image, degrees: float, fill: str) -> Image.Image:
    """Turn anti-clockwise about the middle, bilinear."""
    if fill != "edge":
        return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=fill)
    width, height = image.size
    margin = math.ceil((math.hypot(width, height) - min(width, height)) / 2) + 1
    pixels = np.asarray(image)
    border = ((margin, margin), (margin, margin), *[(0, 0)] * (pixels.ndim - 2))
    wide = Image.fromarray(np.pad(pixels, border, mode="edge")).rotate(degrees, Image.Resampling.BILINEAR)
    return wide.crop((margin, margin, margin + width, margin + height))


def crop(image: Image.Image, operation: Crop, random: Random) -> tuple[Image.Image, Numbers]:
    """A box of a drawn area and proportion, somewhere inside, at the old size."""
    width, height = image.size
    area = random.uniform(operation.min_area, 1)
    stretch = math.exp(random.uniform(-1, 1) * math.log(operation.max_stretch))
    wide = max(1, min(width, round(width * math.sqrt(area * stretch))))
    high = max(1, min(height, round(height * math.sqrt(area / stretch))))
    left, top = random.randint(0, width - wide), random.randint(0, height - high)
    box = (left, top, left + wide, top + high)
    return image.crop(box).resize((width, height), Image.Resampling.BILINEAR), {"box": list(box)}


def jitter(image: Image.Image, operation: ColourJitter, random: Random) -> tuple[Image.Image, Numbers]:
    """Brightness, contrast, saturation, hue; grey pictures have only the first two."""
    numbers: Numbers = {}
    for name, kind in (
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ):
        most = getattr(operation, name)
        factor = round(random.uniform(1 - most, 1 + most), DIGITS)
        if most and not (name == "saturation" and image.mode == "L"):
            image, numbers[name] = kind(image).enhance(factor), factor
    turn = round(random.uniform(-operation.hue, operation.hue), DIGITS)
    if operation.hue and image.mode == "RGB":
        hsv = np.array(image.convert("HSV"))
        hsv[..., 0] = (hsv[..., 0].astype(np.int64) + round(turn * 256)) % 256
        image, numbers["hue"] = Image.fromarray(hsv, "HSV").convert("RGB"), turn
    return image, numbers


def mix(
    image: Image.Image, other: Image.Image, operation: Mixing, random: Random
) -> tuple[Image.Image, float, Numbers]:
    """This picture with a part of another; the share of this one; the numbers that were drawn."""
    if "RGB" in (image.mode, other.mode):
        image, other = image.convert("RGB"), other.convert("RGB")
    if other.size != image.size:
        other = other.resize(image.size, Image.Resampling.BILINEAR)
    if isinstance(operation, Mixup):
        share = round(random.betavariate(operation.alpha, operation.alpha), DIGITS)
        mixed = share * _pixels(image) + (1 - share) * _pixels(other)
        return Image.fromarray(np.clip(mixed.round(), 0, 255).astype(np.uint8)), share, {"lambda": share}
    assert isinstance(operation, Cutmix)
    width, height = image.size
    side = math.sqrt(1 - random.betavariate(operation.alpha, operation.alpha))
    wide, high = round(width * side), round(height * side)
    left, top = random.randint(0, width) - wide // 2, random.randint(0, height) - high // 2
    box = (max(0, left), max(0, top), min(width, left + wide), min(height, top + high))
    pasted = image.copy()
    pasted.paste(other.crop(box), box[:2])
    share = round(1 - (box[2] - box[0]) * (box[3] - box[1]) / (width * height), DIGITS)
    return pasted, share, {"lambda": share, "box": list(box)}


def _pixels(image: Image.Image) -> NDArray[np.float64]:
    return np.asarray(image, np.float64)
