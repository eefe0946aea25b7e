"""Cleaning steps for pictures and sounds, on real data with planted faults: what they find, what they leave alone."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter
from scipy import ndimage

from wuxing.core.context import Context
from wuxing.corpus.clean.audio import AudioCheck, clipped_share, levels_dbfs
from wuxing.corpus.clean.audio_form import AudioForm
from wuxing.corpus.clean.cleaner import Cleaned
from wuxing.corpus.clean.image import ImageCheck, sharpness
from wuxing.corpus.clean.image_form import ImageForm, has_metadata
from wuxing.corpus.clean.media_config import (
    AudioConfig,
    ImageConfig,
    StandardiseAudioConfig,
    StandardiseImageConfig,
    VoiceConfig,
)
from wuxing.corpus.clean.voice import Voice
from wuxing.media.audio import Sound, as_int16
from wuxing.media.audio import decode as hear
from wuxing.media.audio import encode as sound_file
from wuxing.media.image import decode, encode, grey


def cleaned(step: Any, values: list[bytes]) -> Cleaned:
    result: Cleaned = step.clean(pa.array(values, pa.binary()), {})
    return result


@pytest.fixture(scope="module")
def pictures(data_directory: Path) -> list[bytes]:
    table = pq.read_table(data_directory / "images/fashion-mnist-test.parquet")
    return [item["bytes"] for item in table["image"].slice(0, 300).to_pylist()]


@pytest.fixture(scope="module")
def digits(data_directory: Path) -> list[bytes]:
    with tarfile.open(data_directory / "audio/spoken-digits.tar.gz") as archive:
        entries = [entry for entry in archive if entry.isfile()][::6]
        return [archive.extractfile(entry).read() for entry in entries]  # type: ignore[union-attr]


def test_sharpness_is_the_variance_of_the_laplacian(pictures: list[bytes]) -> None:
    for data in pictures[:30]:
        luma = grey(decode(data))
        assert sharpness(luma) == pytest.approx(ndimage.laplace(luma.astype(np.float64))[1:-1, 1:-1].var(), rel=1e-5)


def test_planted_faults_of_pictures_are_found_and_named(pictures: list[bytes]) -> None:
    def blurred(data: bytes) -> bytes:
        return encode(decode(data).filter(ImageFilter.GaussianBlur(2.5)))

    def even(data: bytes) -> bytes:
        image = np.full((28, 28), 120, np.uint8)
        image[::2] += 1
        return encode(Image.fromarray(image))

    def thin(data: bytes) -> bytes:
        return encode(decode(data).resize((280, 10)))

    plant = {
        "blurred": blurred,
        "nearly_uniform": even,
        "broken_image": lambda data: data[: len(data) // 2],
        "too_small": lambda data: encode(decode(data).resize((7, 28))),
        "too_long_and_thin": thin,
    }
    values, truth = list(pictures), [""] * len(pictures)
    for number, (reason, make) in enumerate(plant.items()):
        for data in pictures[number::10]:
            values.append(make(data))
            truth.append(reason)
    step = ImageCheck(ImageConfig(min_side_pixels=8, min_sharpness=700, min_contrast=3, max_aspect=5))
    result = cleaned(step, values)
    said = [result.dropped[n].reason if n in result.dropped else "" for n in range(len(values))]
    for reason in plant:
        caught = sum(a == b == reason for a, b in zip(said, truth, strict=True))
        assert caught / truth.count(reason) >= 0.95, reason
        assert caught / said.count(reason) >= 0.95, reason
    assert result.values.to_pylist() == values
    assert np.isnan(result.measures["width"]).sum() == truth.count("broken_image")
    assert result.notes["width"][0] == 28


def test_one_form_of_pictures(pictures: list[bytes]) -> None:
    step = ImageForm(StandardiseImageConfig(format="png", mode="RGB", max_side_pixels=20))
    result = cleaned(step, [*pictures[:10], b"nothing"])
    assert result.dropped[10].reason == "broken_image"
    formed = result.values.to_pylist()[:10]
    assert {(decode(data).mode, decode(data).size) for data in formed} == {("RGB", (20, 20))}
    again = cleaned(step, formed)
    assert again.values.to_pylist() == formed  # doing it twice changes nothing more
    keep = cleaned(ImageForm(StandardiseImageConfig()), pictures[:10])
    assert keep.values.to_pylist() == pictures[:10]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_metadata_go_and_orientation_stays(format: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8).repeat(4, 0).repeat(4, 1))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "SecretCamera"
    written = io.BytesIO()
    image.save(written, format, exif=exif, quality=95)
    data = written.getvalue()
    assert has_metadata(data, format.lower()) and b"SecretCamera" in data
    [after] = cleaned(ImageForm(StandardiseImageConfig()), [data]).values.to_pylist()
    assert b"SecretCamera" not in after and not has_metadata(after, format.lower())
    assert decode(after).size == decode(data).size == (80, 120)
    assert np.abs(grey(decode(after)) - grey(decode(data))).mean() < 6
    assert cleaned(ImageForm(StandardiseImageConfig()), [after]).values.to_pylist() == [after]


def test_planted_faults_of_sounds_are_found_and_named(digits: list[bytes]) -> None:
    def changed(data: bytes, change: Any) -> bytes:
        sound = hear(data)
        return sound_file(Sound(change(sound.samples_CT).astype(np.float32), sound.rate))

    def clip(x: np.ndarray) -> np.ndarray:
        return np.clip(x / np.abs(x).max() * 4, -1, 1) * 0.7  # clipped, then made quieter

    def lost(x: np.ndarray) -> np.ndarray:
        start = max(0, int(np.abs(x[0]).argmax()) - 400)
        return np.pad(x[:, start : start + 800], ((0, 0), (0, 60_000)))

    plant = {
        "clipped": lambda data: changed(data, clip),
        "silent": lambda data: changed(data, lambda x: x * 1e-4),
        "mostly_silent": lambda data: changed(data, lost),
        "broken_audio": lambda data: data[: len(data) * 2 // 3],
        "too_short": lambda data: changed(data, lambda x: x[:, 1000:1200]),
        "too_long": lambda data: changed(data, lambda x: np.tile(x, 60)),
    }
    values, truth = list(digits), [""] * len(digits)
    for number, (reason, make) in enumerate(plant.items()):
        for data in digits[number::12]:
            values.append(make(data))
            truth.append(reason)
    result = cleaned(AudioCheck(AudioConfig(max_seconds=8, min_seconds=0.05)), values)
    said = [result.dropped[n].reason if n in result.dropped else "" for n in range(len(values))]
    for reason in plant:
        caught = sum(a == b == reason for a, b in zip(said, truth, strict=True))
        assert caught / truth.count(reason) >= 0.9, (reason, caught, truth.count(reason))
        assert caught / said.count(reason) >= 0.9, (reason, caught, said.count(reason))
    assert result.measures["seconds"][0] == hear(digits[0]).seconds


def test_levels_and_clipping_against_plain_loops() -> None:
    random = np.random.default_rng(1)
    samples = (random.standard_normal(1234) * 0.2).astype(np.float32)
    frames = [samples[start : start + 160] for start in range(0, 1234, 160)]
    assert levels_dbfs(samples, 8000) == pytest.approx(
        [20 * np.log10(np.sqrt((f**2).mean())) for f in frames], abs=1e-4
    )
    flat = np.clip(random.standard_normal(4000), -1, 1).astype(np.float32)
    clipped = 0
    for sign in (1, -1):
        run = 0
        for value in [*(flat * sign), 0.0]:
            if value >= 1.0:
                run += 1
            else:
                clipped += run if run >= 3 else 0
                run = 0
    assert clipped_share(flat[None]) == clipped / 4000
    assert clipped_share(np.sin(np.arange(8000) / 20).astype(np.float32)[None]) < 0.01


def test_one_form_of_sounds(digits: list[bytes]) -> None:
    step = AudioForm(StandardiseAudioConfig(rate=16_000, format="flac", loudness_dbfs=-26))
    formed = cleaned(step, digits[:20]).values.to_pylist()
    for before, after in zip(digits, formed, strict=False):
        old, new = hear(before), hear(after)
        assert new.rate == 16_000 and abs(new.seconds - old.seconds) < 0.001 and after[:4] == b"fLaC"
        level = 20 * np.log10(np.sqrt((new.samples_CT**2).mean()))
        assert abs(level + 26) < 0.11 or np.abs(new.samples_CT).max() > 0.99
    assert cleaned(step, formed).values.to_pylist() == formed
    stereo = Sound(np.repeat(hear(digits[0]).samples_CT, 2, axis=0), 8000)
    [one] = cleaned(AudioForm(StandardiseAudioConfig()), [sound_file(stereo)]).values.to_pylist()
    assert np.array_equal(as_int16(hear(one)), as_int16(hear(digits[0]))) and one[:4] == b"RIFF"


def scene(digits: list[bytes], number: int, snr: float) -> tuple[Sound, np.ndarray]:
    """Three digits in five seconds of noise, and the truth: where each is louder than its peak less 30 dB."""
    random = np.random.default_rng([number, int(snr)])
    out, truth, at = np.zeros(40_000, np.float32), np.zeros(500, bool), int(random.integers(25, 100)) * 80
    for chosen in random.integers(0, len(digits), 3):
        x = hear(digits[chosen]).mono_T
        if at + len(x) > len(out):
            break
        x = x / np.sqrt((x**2).mean()) * 0.1
        out[at : at + len(x)] += x
        count = len(x) // 80
        level = 10 * np.log10((x[: count * 80].reshape(count, 80) ** 2).mean(axis=1) + 1e-12)
        first, last = np.flatnonzero(level > level.max() - 30)[[0, -1]]
        truth[at // 80 + first : at // 80 + last + 1] = True
        at += count * 80 + int(random.integers(30, 100)) * 80
    hiss = random.standard_normal(len(out)) * 0.1 * 10 ** (-snr / 20)
    return Sound((out + hiss).astype(np.float32)[None], 8000), truth


@pytest.mark.parametrize(("snr", "precision", "recall"), [(60, 0.8, 0.98), (20, 0.87, 0.95), (10, 0.93, 0.82)])
def test_voice_against_truth(digits: list[bytes], tmp_path: Path, snr: float, precision: float, recall: float) -> None:
    step = Voice(VoiceConfig(), Context(home=tmp_path))
    right = wrong = missed = 0
    for number in range(30):
        sound, truth = scene(digits, number, snr)
        found = np.zeros(500, bool)
        for start, stop in step.stretches(sound):
            found[round(start * 100) : round(stop * 100)] = True
        right, wrong = right + int((found & truth).sum()), wrong + int((found & ~truth).sum())
        missed += int((~found & truth).sum())
    assert right / (right + wrong) >= precision and right / (right + missed) >= recall


def test_voice_drops_what_nobody_says_and_cuts_what_lies_around(digits: list[bytes], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    hiss = [Sound((random.standard_normal(16_000) * 0.05).astype(np.float32)[None], 8000) for _ in range(20)]
    step = Voice(VoiceConfig(trim=True, pad_seconds=0.05), Context(home=tmp_path))
    empty = cleaned(step, [sound_file(sound) for sound in hiss])
    assert [drop.reason for drop in empty.dropped.values()] == ["no_speech"] * 20
    spoken = [hear(data) for data in digits[:20]]
    quiet = [random.standard_normal(len(s.mono_T) + 16_000).astype(np.float32) * np.float32(1e-4) for s in spoken]
    for sound, whole in zip(spoken, quiet, strict=True):
        whole[8000 : 8000 + len(sound.mono_T)] += sound.mono_T
    cut = cleaned(step, [sound_file(Sound(whole[None], 8000)) for whole in quiet])
    assert not cut.dropped
    for sound, after in zip(spoken, cut.values.to_pylist(), strict=True):
        assert sound.seconds * 0.5 < hear(after).seconds < sound.seconds + 0.35
    assert step.found["trimmed"] == 20


@pytest.mark.network
def test_silero_hears_the_same_digits(digits: list[bytes], tmp_path: Path) -> None:
    step = Voice(VoiceConfig(method="silero"), Context(home=tmp_path))
    right = wrong = missed = 0
    for number in range(8):
        sound, truth = scene(digits, number, 20)
        found = np.zeros(500, bool)
        for start, stop in step.stretches(sound):
            found[round(start * 100) : round(stop * 100)] = True
        right, wrong = right + int((found & truth).sum()), wrong + int((found & ~truth).sum())
        missed += int((~found & truth).sum())
    assert right / (right + wrong) >= 0.7 and right / (right + missed) >= 0.8
