"""Spectrograms and cepstral coefficients against a plain Fourier transform and the written definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import fft

from wuxing.feature.config import LogMel, Mfcc
from wuxing.feature.sound import (
    Sounds,
    dct,
    delta,
    fft_size,
    log_mel,
    mel_filters,
    power,
    spectrogram,
    to_hertz,
    to_mel,
)

NOISE = np.random.default_rng(8)


def plain_power(samples: np.ndarray, size: int, window: int, hop: int) -> np.ndarray:
    frames = []
    for t in range(1 + len(samples) // hop):
        sums = np.zeros(size // 2 + 1, complex)
        for n in range(size):
            place, inside = t * hop - size // 2 + n, n - (size - window) // 2
            if 0 <= place < len(samples) and 0 <= inside < window:
                weight = 0.5 - 0.5 * math.cos(2 * math.pi * inside / window)
                sums += float(samples[place]) * weight * np.exp(-2j * np.pi * np.arange(size // 2 + 1) * n / size)
        frames.append(np.abs(sums) ** 2)
    return np.array(frames).T


def plain_filters(rate: int, size: int, bands: int, low: float, high: float, scale: str, area: bool) -> np.ndarray:
    def mel(f: float) -> float:
        if scale == "htk":
            return 2595 * math.log10(1 + f / 700)
        return f / (200 / 3) if f < 1000 else 15 + math.log(f / 1000) / (math.log(6.4) / 27)

    def hertz(m: float) -> float:
        if scale == "htk":
            return 700 * (10 ** (m / 2595) - 1)
        return m * 200 / 3 if m < 15 else 1000 * math.exp((math.log(6.4) / 27) * (m - 15))

    tips = [hertz(mel(low) + i * (mel(high) - mel(low)) / (bands + 1)) for i in range(bands + 2)]
    filters = np.zeros((bands, size // 2 + 1))
    for b in range(bands):
        left, tip, right = tips[b : b + 3]
        for k in range(size // 2 + 1):
            f = k * rate / size
            height = (f - left) / (tip - left) if f <= tip else (right - f) / (right - tip)
            filters[b, k] = max(0.0, height) * (2 / (right - left) if area else 1)
    return filters


@pytest.mark.parametrize(("scale", "area"), [("slaney", True), ("slaney", False), ("htk", True)])
def test_log_mel_is_that_of_loops(scale: str, area: bool) -> None:
    settings = LogMel(rate=4000, window_ms=12, hop_ms=5, bands=12, mel=scale, area=area)  # type: ignore[arg-type]
    samples = (NOISE.standard_normal(301) * 0.1).astype(np.float32)
    powers = plain_power(samples, 64, 48, 20)
    assert np.allclose(power(samples, 64, 48, 20), powers, rtol=1e-9, atol=1e-12)
    filters = plain_filters(4000, 64, 12, 0, 2000, scale, area)
    assert np.allclose(mel_filters(4000, 64, 12, 0, 2000, scale, area), filters, atol=1e-12)
    expected = 10 * np.log10(np.maximum(1e-10, filters @ powers))
    assert np.allclose(log_mel(samples, settings), expected, atol=1e-7)
    assert fft_size(settings) == 64


def test_mfcc_is_the_dct_of_the_decibels() -> None:
    settings = Mfcc(rate=8000, bands=26, coefficients=13)
    samples = (NOISE.standard_normal(3000) * 0.1).astype(np.float32)
    expected = fft.dct(log_mel(samples, settings), type=2, norm="ortho", axis=0)[:13]
    assert np.allclose(spectrogram(samples, settings), expected, atol=1e-9)
    assert np.allclose(dct(26) @ dct(26).T, np.eye(26), atol=1e-12)


def test_delta_is_the_slope_of_a_line() -> None:
    lines = NOISE.standard_normal((3, 30))
    for t in range(4, 26):
        slopes = np.polyfit(np.arange(-4, 5), lines[:, t - 4 : t + 5].T, 1)[0]
        assert np.allclose(delta(lines)[:, t], slopes, atol=1e-12)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_pitch_scales_are_inverted(scale: str) -> None:
    hertz = np.array([0.0, 20, 440, 999, 1000, 1001, 8000, 20_000])
    assert np.allclose(to_hertz(to_mel(hertz, scale), scale), hertz)


def test_a_tone_stands_in_its_band() -> None:
    settings = LogMel(rate=16_000, bands=40)
    for hertz in (300.0, 1000.0, 4000.0):
        tone = np.sin(2 * np.pi * hertz * np.arange(16_000) / 16_000).astype(np.float32)
        tips = to_hertz(np.linspace(0, to_mel(np.array(8000.0), "slaney"), 42), "slaney")[1:-1]
        loudest = int(log_mel(tone, settings).mean(1).argmax())
        assert abs(loudest - int(np.abs(tips - hertz).argmin())) <= 1


def test_ten_times_louder_is_twenty_decibels() -> None:
    samples = (NOISE.standard_normal(4000) * 0.01).astype(np.float32)
    settings = LogMel()
    assert np.allclose(log_mel(samples * 10, settings) - log_mel(samples, settings), 20, atol=1e-4)


def test_rows_and_names_agree() -> None:
    sounds = [np.zeros(10, np.float32), (NOISE.standard_normal(20_000) * 0.1).astype(np.float32)]
    for settings in (LogMel(), Mfcc(deltas=2), LogMel(pool="frames", seconds=0.5), Mfcc(pool="frames", seconds=1)):
        rows = Sounds(settings).apply(sounds)
        assert rows.shape == (2, len(Sounds(settings).names)) and np.isfinite(rows).all()
    frames = Sounds(LogMel(pool="frames", seconds=0.5))
    whole = log_mel(sounds[1][:8000], LogMel())
    assert np.allclose(frames.apply(sounds)[1].reshape(40, 51), whole, atol=1e-4)
