"""Pictures: upright, whole or refused; keys of what is seen; signatures that survive re-encoding."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wuxing.media.error import MediaError
from wuxing.media.hash import SIGNATURE_BYTES, image_signature
from wuxing.media.image import Format, decode, encode, grey, in_mode, pixels_key, within

FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp")


def noise(width: int = 60, height: int = 40, mode: str = "RGB", seed: int = 0) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    small = np.random.default_rng(seed).integers(0, 256, (8, 12, channels), dtype=np.uint8)
    return Image.fromarray(small.squeeze(), mode).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    upright = noise()
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpose that stores it so (EXIF 2.3, table 4)
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    written = io.BytesIO()
    stored.save(written, "PNG", exif=exif)
    assert np.array_equal(np.asarray(decode(written.getvalue())), np.asarray(upright))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_file_cut_short_is_refused(format: Format, share: float) -> None:
    data = encode(noise(), format)
    with pytest.raises(MediaError):
        decode(data[: int(len(data) * share)])


def test_a_bomb_is_not_unpacked() -> None:
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    with pytest.raises(MediaError, match="too many pixels"):
        decode(bomb)
    with pytest.raises(MediaError, match="60 x 40"):
        decode(encode(noise()), max_pixels=2399)


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=300), format=st.sampled_from(FORMATS), place=st.floats(0, 1))
def test_garbage_is_refused_in_one_way(data: bytes, format: Format, place: float) -> None:
    whole = encode(noise(16, 16), format)
    at = int(place * len(whole))
    for broken in (data, whole[:at] + data + whole[at + len(data) :], whole[:20] + data):
        try:
            decode(broken)
        except MediaError as error:
            assert "\n" not in str(error) and "0x" not in str(error)


def test_keys_see_pixels_and_nothing_else() -> None:
    image = noise()
    same = [encode(image, "png"), encode(image.convert("RGBA"), "png")]
    lossless = io.BytesIO()
    image.save(lossless, "WEBP", lossless=True, exact=True)
    tagged = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "somebody's garden"
    image.save(tagged, "PNG", exif=exif)
    keys = {pixels_key(decode(data)) for data in (*same, lossless.getvalue(), tagged.getvalue())}
    assert len(keys) == 1
    other = image.copy()
    other.putpixel((3, 3), (1, 2, 3))
    assert pixels_key(other) not in keys and pixels_key(image.resize((40, 60))) not in keys
    shine = image.convert("RGBA")
    shine.putalpha(128)
    assert pixels_key(shine) not in keys
    assert pixels_key(noise(mode="L")) == pixels_key(noise(mode="L").convert("RGB"))


def test_modes() -> None:
    deep = Image.fromarray(np.array([[0, 32768, 65535]], np.uint16))
    assert np.asarray(in_mode(deep, "L")).tolist() == [[0, 128, 255]]
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    assert in_mode(clear, "RGB").getpixel((0, 0)) == (255, 255, 255)
    palette = noise().convert("P", palette=Image.Palette.ADAPTIVE)
    palette.info["transparency"] = bytes([0] * 128 + [255] * 128)
    assert in_mode(palette, "L").mode == "L" and grey(palette).dtype == np.float32
    assert within(noise(600, 400), 60).size == (60, 40) and within(noise(60, 1), 6).size == (6, 1)
    assert encode(noise(mode="RGBA"), "jpeg")[:3] == b"\xff\xd8\xff"


def variants(image: Image.Image) -> Iterator[Image.Image]:
    yield decode(encode(image, "jpeg", 50))
    yield decode(encode(image, "webp", 50))
    yield image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC)
    yield Image.fromarray(np.clip(np.asarray(image) * 1.15 + 5, 0, 255).astype(np.uint8))


def test_signatures_of_real_pictures(data_directory: Path) -> None:
    column = pq.read_table(data_directory / "images/fashion-mnist-test.parquet")["image"].slice(0, 150).to_pylist()
    images = [decode(item["bytes"]) for item in column]
    mine = np.frombuffer(b"".join(map(image_signature, images)), np.uint8).reshape(-1, SIGNATURE_BYTES)
    hashes = np.ascontiguousarray(mine[:, :8]).view(np.uint64).ravel()
    found = 0
    for number, image in enumerate(images):
        for variant in variants(image):
            one = np.frombuffer(image_signature(variant), np.uint8)
            distance = np.bitwise_count(hashes ^ one[:8].copy().view(np.uint64))
            found += int(distance[number]) <= 12 and int(distance.argmin()) == number
    assert found / (4 * len(images)) > 0.93
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None, :])[np.triu_indices(len(images), 1)]
    assert (apart <= 10).mean() < 0.005 and 28 < apart.mean() < 34


def test_a_picture_without_contrast_has_no_sketch() -> None:
    assert not any(image_signature(Image.new("L", (50, 50), 77))[8:])
