"""Sounds: whole or refused; keys of what is heard; resampling against theory; signatures that survive re-encoding."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.media.audio import Format, Sound, as_int16, decode, encode, mono, resampled, samples_key
from wuxing.media.error import MediaError
from wuxing.media.hash import SIGNATURE_BYTES, sound_signature

FORMATS: tuple[Format, ...] = ("wav", "flac", "ogg", "mp3")


def tone(hertz: float = 440.0, rate: int = 16_000, seconds: float = 0.6, channels: int = 1) -> Sound:
    time = np.arange(int(rate * seconds)) / rate
    wave = 0.5 * np.sin(2 * np.pi * hertz * time)
    return Sound(np.stack([wave * (c + 1) / channels for c in range(channels)]).astype(np.float32), rate)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("format", ["wav", "flac"])
def test_lossless_files_come_back_to_the_sample(format: Format, channels: int) -> None:
    sound = tone(channels=channels)
    again = decode(encode(sound, format))
    assert np.array_equal(as_int16(again), as_int16(sound)) and again.rate == sound.rate
    assert encode(again, format) == encode(sound, format)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.98])
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_cut_short_is_refused(format: Format, share: float) -> None:
    data = encode(tone(), format)
    assert abs(decode(data).seconds - 0.6) < 0.06
    with pytest.raises(MediaError):
        decode(data[: int(len(data) * share)])


def test_what_is_too_long_is_not_unpacked() -> None:
    hours = io.BytesIO()
    soundfile.write(hours, np.zeros((8000 * 600, 1), np.int16), 8000, format="FLAC")
    assert len(hours.getvalue()) < 100_000
    with pytest.raises(MediaError, match="longer than 60 s"):
        decode(hours.getvalue(), max_seconds=60)
    assert decode(hours.getvalue(), max_seconds=601).seconds == 600


def test_values_that_are_no_number_and_empty_files() -> None:
    odd = io.BytesIO()
    soundfile.write(odd, np.array([0.0, np.nan, 0.1]), 8000, format="WAV", subtype="FLOAT")
    with pytest.raises(MediaError, match="no number"):
        decode(odd.getvalue())
    empty = io.BytesIO()
    soundfile.write(empty, np.zeros(0), 8000, format="WAV")
    with pytest.raises(MediaError):
        decode(empty.getvalue())


@settings(max_examples=120, deadline=None)
@given(data=st.binary(max_size=300), format=st.sampled_from(FORMATS), place=st.floats(0, 1))
def test_garbage_is_refused_in_one_way(data: bytes, format: Format, place: float) -> None:
    whole = encode(tone(seconds=0.1), format)
    at = int(place * len(whole))
    for broken in (data, whole[:at] + data + whole[at + len(data) :], whole[:20] + data):
        try:
            decode(broken)
        except MediaError as error:
            assert "\n" not in str(error) and "0x" not in str(error)


def test_keys_hear_samples_and_nothing_else() -> None:
    sound = tone(channels=2)
    key = samples_key(sound)
    assert samples_key(decode(encode(sound, "wav"))) == samples_key(decode(encode(sound, "flac"))) == key
    tagged = io.BytesIO()
    with soundfile.SoundFile(tagged, "w", sound.rate, 2, format="FLAC") as file:
        file.title = "somebody's garden"
        file.write(as_int16(sound).T)
    assert samples_key(decode(tagged.getvalue())) == key
    louder = Sound(sound.samples_CT * np.float32(1.01), sound.rate)
    assert len({key, samples_key(louder), samples_key(Sound(sound.samples_CT, 8000)), samples_key(mono(sound))}) == 4


def test_resampling_keeps_the_tone_and_removes_what_would_fold() -> None:
    low = resampled(tone(440.0, 44_100), 8000)
    time = np.arange(low.samples_CT.shape[1]) / 8000
    inside = slice(400, -400)
    assert np.abs(low.samples_CT[0] - 0.5 * np.sin(2 * np.pi * 440 * time))[inside].max() < 1e-3
    folding = resampled(tone(6000.0, 44_100), 8000)
    assert np.abs(folding.samples_CT[0][inside]).max() < 1e-3


def test_signatures_of_real_sounds(data_directory: Path) -> None:
    with tarfile.open(data_directory / "audio/spoken-digits.tar.gz") as archive:
        entries = [entry for entry in archive if entry.isfile()][::10]
        sounds = [decode(archive.extractfile(entry).read()) for entry in entries]  # type: ignore[union-attr]
    mine = np.frombuffer(b"".join(map(sound_signature, sounds)), np.uint8).reshape(-1, SIGNATURE_BYTES)
    hashes = np.ascontiguousarray(mine[:, :8]).view(np.uint64).ravel()
    found = made = 0
    for number, sound in enumerate(sounds):
        pause = np.pad(sound.samples_CT, ((0, 0), (800, 1600)))
        again = (decode(encode(sound, "ogg")), resampled(sound, 16_000), Sound(pause, sound.rate))
        for variant in (*again, Sound(sound.samples_CT * np.float32(0.5), sound.rate)):
            one = np.frombuffer(sound_signature(variant), np.uint8)
            made += 1
            found += int(np.bitwise_count(hashes[number] ^ one[:8].copy().view(np.uint64)[0])) <= 10
    assert found / made > 0.97
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None, :])[np.triu_indices(len(sounds), 1)]
    assert (apart <= 10).mean() < 0.01
    assert sound_signature(Sound(np.zeros((1, 8000), np.float32), 8000)) == bytes(SIGNATURE_BYTES)
