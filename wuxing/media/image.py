"""Images: from the bytes of an encoded file to pixels."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

from wuxing.media.error import MediaError

if TYPE_CHECKING:
    from PIL import Image


def decode(data: bytes) -> Image.Image:
    """The picture, upright, its pixels read.  MediaError when it is broken, cut short or a decompression bomb."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                upright = ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise MediaError("the bytes are no image that Pillow knows") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise MediaError(f"the image cannot be decoded: {error}") from error
    except Image.DecompressionBombWarning as error:
        raise MediaError(f"the image has too many pixels: {error}") from error
    assert upright is not None
    return upright
