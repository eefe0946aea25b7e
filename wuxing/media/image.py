"""Images: from the bytes of an encoded file to pixels, and back."""

from __future__ import annotations

import io
import struct
import warnings
from typing import TYPE_CHECKING, Literal

from wuxing.media.error import MediaError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

MAX_PIXELS = 64_000_000
"""More pixels are taken for a decompression bomb: 192 MB as RGB."""
Mode = Literal["RGB", "RGBA", "L"]
Format = Literal["png", "jpeg", "webp"]


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture, upright by its EXIF orientation, its pixels read; of an animation the first frame.

    MediaError when it is broken, cut short, or larger than `max_pixels` (nothing of it is unpacked then).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the bound below is stricter; odd EXIF data and palettes are no faults
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > max_pixels:
                    raise MediaError(f"the image has too many pixels: {image.width} x {image.height}")
                image.load()
                upright = ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise MediaError("the bytes are no image that Pillow knows") from error
    except Image.DecompressionBombError as error:
        raise MediaError(f"the image has too many pixels: {error}") from error
    except MediaError:
        raise
    # Pillow's plugins raise whatever a broken header makes them do
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, KeyError, TypeError) as error:
        raise MediaError(f"the image cannot be decoded: {' '.join(str(error).split())}") from error
    except (OverflowError, ZeroDivisionError, AttributeError, MemoryError, AssertionError, RuntimeError) as error:
        raise MediaError(f"the image cannot be decoded: {' '.join(str(error).split())}") from error
    assert upright is not None
    return upright


def encode(image: Image.Image, format: Format = "png", quality: int = 90) -> bytes:
    """A file without metadata; equal pixels give equal bytes.  `quality` is for JPEG and WebP; JPEG has no alpha."""
    written = io.BytesIO()
    plain = in_mode(image, "RGB") if format == "jpeg" and image.mode not in ("RGB", "L") else image.copy()
    plain.info = {}
    if format == "png":
        plain.save(written, "PNG", compress_level=6)
    else:
        plain.save(written, format.upper(), quality=quality)
    return written.getvalue()


def in_mode(image: Image.Image, mode: Mode) -> Image.Image:
    """The picture with other channels; what was transparent stands on white where the new mode has no alpha.

    16-bit and float greys are brought to 8 bits by their format's range, not cut off at 255 as Pillow does.
    """
    from PIL import Image

    if image.mode == mode:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _eight_bits(image)
    if mode != "RGBA" and (image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info):
        clear = image.convert("RGBA")
        ground = Image.new("RGBA", clear.size, (255, 255, 255, 255))
        ground.alpha_composite(clear)
        image = ground.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    import numpy as np
    from PIL import Image

    values = np.asarray(image, dtype=np.float64)
    top = 65535.0 if values.max(initial=0.0) > 255.0 else 255.0 if values.max(initial=0.0) > 1.0 else 1.0
    return Image.fromarray((np.clip(values / top, 0.0, 1.0) * 255.0).round().astype(np.uint8), "L")


def within(image: Image.Image, max_side: int) -> Image.Image:
    """The picture made smaller, in proportion, so that its longer side has at most `max_side` pixels."""
    from PIL import Image

    longer = max(image.size)
    if longer <= max_side:
        return image
    size = tuple(max(1, round(side * max_side / longer)) for side in image.size)
    if image.mode in ("P", "1"):
        image = in_mode(image, "RGB")
    return image.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def grey(image: Image.Image) -> NDArray[np.float32]:
    """Luma of each pixel, 0 to 255, height × width."""
    import numpy as np

    return np.asarray(in_mode(image, "L"), dtype=np.float32)


def pixels_key(image: Image.Image) -> bytes:
    """128 bits of what is seen: the same for every lossless file of the same pixels, grey or colour, any metadata."""
    import hashlib

    seen = image.convert("RGBA") if _clear(image) else in_mode(image, "RGB")
    state = hashlib.blake2b(digest_size=16, person=b"image")
    state.update(f"{seen.width}x{seen.height}x{seen.mode}".encode())
    state.update(seen.tobytes())
    return state.digest()


def _clear(image: Image.Image) -> bool:
    """Whether any pixel is not opaque."""
    if image.mode in ("RGBA", "LA"):
        low = image.getextrema()[-1]
        return isinstance(low, tuple) and low[0] < 255
    return "transparency" in image.info and image.convert("RGBA").getextrema()[-1][0] < 255  # type: ignore[index]
