"""Each operation against its definition."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wuxing.augment import image, sound
from wuxing.augment.config import (
    ColourJitter,
    Crop,
    Cutmix,
    Deletion,
    Flip,
    FrequencyMask,
    Mask,
    Mixup,
    Noise,
    Paraphrase,
    Rotate,
    Speed,
    Swap,
    Template,
    TimeMask,
    TimeShift,
    Typos,
)
from wuxing.augment.text import change, neighbours, parts_of

NUMBERS = np.random.default_rng(3)


def picture(width: int = 20, height: int = 12) -> Image.Image:
    return Image.fromarray(NUMBERS.integers(0, 256, (height, width, 3), np.uint8))


def pixels(found: Image.Image) -> np.ndarray:
    return np.asarray(found, np.int64)


# ------------------------------------------------------------------------------------------------------------- images
def test_flip_is_the_mirror() -> None:
    before = picture()
    assert np.array_equal(pixels(image.change(before, Flip(), Random(1))[0]), pixels(before)[:, ::-1])
    assert np.array_equal(pixels(image.change(before, Flip(axis="vertical"), Random(1))[0]), pixels(before)[::-1])


def test_rotation_by_a_right_angle_moves_pixels() -> None:
    square = Image.fromarray(NUMBERS.integers(0, 256, (9, 9), np.uint8))
    for fill in ("edge", "black"):
        assert np.array_equal(pixels(image.rotate(square, 90, fill)), np.rot90(pixels(square)))
        assert np.array_equal(pixels(image.rotate(square, 0, fill)), pixels(square))


def test_rotation_fills_with_the_edge() -> None:
    white = Image.new("RGB", (30, 14), "white")
    assert pixels(image.rotate(white, 33.3, "edge")).min() == 255
    assert pixels(image.rotate(white, 33.3, "black")).min() == 0
    assert image.rotate(white, 33.3, "edge").size == (30, 14)


def test_crop_is_the_box_at_the_old_size() -> None:
    before = picture(60, 40)
    for seed in range(30):
        after, numbers = image.change(before, Crop(min_area=0.5), Random(seed))
        left, top, right, bottom = numbers["box"]
        assert 0 <= left < right <= 60 and 0 <= top < bottom <= 40 and after.size == (60, 40)
        assert (right - left) * (bottom - top) / 2400 > 0.42  # half, less where a side was cut to the image's
        expected = before.crop(tuple(numbers["box"])).resize((60, 40), Image.Resampling.BILINEAR)
        assert np.array_equal(pixels(after), pixels(expected))


def test_brightness_is_a_factor() -> None:
    before = picture()
    jitter = ColourJitter(brightness=0.5, contrast=0, saturation=0)
    after, numbers = image.change(before, jitter, Random(4))
    assert set(numbers) == {"brightness"}
    expected = np.clip(pixels(before) * numbers["brightness"], 0, 255)
    assert np.abs(pixels(after) - expected).max() <= 1


def test_saturation_and_hue_leave_grey_alone() -> None:
    grey = Image.new("RGB", (4, 4), (90, 90, 90))
    jitter = ColourJitter(brightness=0, contrast=0, saturation=1, hue=0.5)
    after, numbers = image.change(grey, jitter, Random(4))
    assert np.array_equal(pixels(after), pixels(grey)) and set(numbers) == {"saturation", "hue"}
    assert image.change(Image.new("L", (4, 4), 90), jitter, Random(4))[1] == {}


def test_hue_turns_red_to_green() -> None:
    jitter = ColourJitter(brightness=0, contrast=0, saturation=0, hue=0.5)
    for seed in range(20):
        after, numbers = image.change(Image.new("RGB", (2, 2), (255, 0, 0)), jitter, Random(seed))
        hue = np.asarray(after.convert("HSV"))[0, 0, 0]
        assert abs(int(hue) - round(numbers["hue"] * 256) % 256) in (0, 1, 255)


def test_mixup_is_the_weighted_mean() -> None:
    one, other = picture(), picture()
    mixed, share, numbers = image.mix(one, other, Mixup(alpha=1), Random(2))
    assert numbers == {"lambda": share} and 0 <= share <= 1
    assert np.abs(pixels(mixed) - (share * pixels(one) + (1 - share) * pixels(other))).max() <= 0.5


def test_cutmix_shares_are_areas() -> None:
    one, other = Image.new("L", (20, 30), 10), Image.new("RGB", (7, 7), (200, 200, 200))
    shares = []
    for seed in range(60):
        mixed, share, _ = image.mix(one, other, Cutmix(), Random(seed))
        mine = (pixels(mixed)[..., 0] == 10).mean()
        assert math.isclose(mine, share, abs_tol=1e-4) and mixed.size == (20, 30)
        shares.append(share)
    assert min(shares) < 0.5 and max(shares) > 0.9


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I", "F"])
def test_every_mode_becomes_grey_or_rgb(mode: str) -> None:
    assert image.plain(Image.new(mode, (3, 2))).mode in ("L", "RGB")


# ------------------------------------------------------------------------------------------------------------- sounds
def hum(seconds: float = 0.5, rate: int = 8000) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return np.stack([0.3 * np.sin(2 * np.pi * 700 * time), 0.2 * np.sin(2 * np.pi * 900 * time)]).astype(np.float32)


def test_shift_moves_and_fills_with_silence() -> None:
    before = hum()
    later, earlier = sound.shift(before, 7, False), sound.shift(before, -7, False)
    assert np.array_equal(later[:, 7:], before[:, :-7]) and not later[:, :7].any()
    assert np.array_equal(earlier[:, :-7], before[:, 7:]) and not earlier[:, -7:].any()
    assert np.array_equal(sound.shift(before, 7, True), np.roll(before, 7, 1))
    assert not sound.shift(before, 9999, False).any()
    after, numbers = sound.change(before, 8000, TimeShift(max_seconds=0.1), Random(3))
    assert np.array_equal(after, sound.shift(before, round(numbers["seconds"] * 8000), False))


@pytest.mark.parametrize("colour", ["white", "pink"])
def test_noise_has_the_stated_ratio(colour: str) -> None:
    before = hum()
    for seed in range(5):
        after, numbers = sound.change(before, 8000, Noise(min_snr_db=3, max_snr_db=30, colour=colour), Random(seed))  # type: ignore[arg-type]
        added = after / numbers.get("gain", 1) - before
        found = 10 * math.log10(np.square(before).mean() / np.square(added).mean())
        assert abs(found - numbers["snr_db"]) < 0.01 and np.abs(after).max() <= 1


def test_pink_noise_falls_by_three_decibels_per_octave() -> None:
    silenceless = np.full((1, 1 << 15), 0.1, np.float32)
    after, _ = sound.change(silenceless, 8000, Noise(min_snr_db=0, max_snr_db=0, colour="pink"), Random(1))
    power = np.square(np.abs(np.fft.rfft(after[0] - 0.1)))
    low, high = power[500:1000].mean(), power[4000:8000].mean()
    assert abs(10 * math.log10(low / high) - 9) < 1


def test_silence_gets_no_noise() -> None:
    assert sound.change(np.zeros((1, 50), np.float32), 8000, Noise(), Random(1))[1] == {}
    assert sound.change(np.zeros((1, 0), np.float32), 8000, TimeMask(), Random(1))[1] == {}


def test_time_mask_is_silence_where_it_says() -> None:
    before = np.ones((1, 8000), np.float32)
    after, numbers = sound.change(before, 8000, TimeMask(max_seconds=0.2, masks=2), Random(5))
    hidden = np.zeros(8000, bool)
    for start, stop in numbers["seconds"]:
        hidden[round(start * 8000) : round(stop * 8000)] = True
    assert abs(int((after[0] == 0).sum()) - int(hidden.sum())) <= 4  # four decimals of a second are 0.8 samples
    assert after[0][~hidden].mean() > 0.99


def test_frequency_mask_takes_a_band_out() -> None:
    before = (NUMBERS.standard_normal((1, 8000)) * 0.1).astype(np.float32)
    after, numbers = sound.change(before, 8000, FrequencyMask(max_hz=800), Random(6))
    [[start, stop]] = numbers["hertz"]
    strength = np.abs(np.fft.rfft(after[0])) / np.abs(np.fft.rfft(before[0]))
    inside = np.zeros(4001, bool)
    inside[round(start) : round(stop)] = True
    assert strength[inside].max() < 1e-3 and np.allclose(strength[~inside], 1, atol=1e-3) and inside.sum() > 1


def test_speed_changes_length_and_pitch() -> None:
    before = hum(1.0)[:1]
    for seed in range(4):
        after, numbers = sound.change(before, 8000, Speed(), Random(seed))
        assert abs(after.shape[1] - 8000 / numbers["factor"]) <= 2
        spectrum = np.abs(np.fft.rfft(after[0], 80_000))
        assert abs(spectrum.argmax() / 10 - 700 * numbers["factor"]) < 2


def test_masks_of_features() -> None:
    lines = NUMBERS.standard_normal((20, 50))
    masked = sound.mask_spectrogram(lines, Random(2), bands=5, frames=10, masks=2, value=0.0)
    hidden = masked != lines
    rows, columns = hidden.all(1), hidden.all(0)
    assert np.array_equal(hidden, rows[:, None] | columns[None, :])
    assert 1 <= rows.sum() <= 10 and 1 <= columns.sum() <= 20 and not masked[hidden].any()
    assert np.array_equal(masked, sound.mask_spectrogram(lines, Random(2), 5, 10, 2, 0.0))


# -------------------------------------------------------------------------------------------------------------- texts
TEXTS = st.text(alphabet="abcZ 你好，.\n1é", max_size=60)


def test_neighbours_are_those_of_the_keyboard() -> None:
    near = neighbours()
    assert set(near["g"]) == set("fthvb") and set(near["q"]) == set("wa") and set(near["5"]) == set("46")
    assert all(key in near[other] for key, others in near.items() for other in others)


@given(TEXTS, st.integers(0, 10_000))
def test_typos_touch_only_letters_on_keys(text: str, seed: int) -> None:
    after, numbers = change(text, Typos(rate=0.5), Random(seed), None)
    odd = [c for c in text if c.lower() not in neighbours()]
    assert [c for c in after if c.lower() not in neighbours()] == odd
    assert abs(len(after) - len(text)) <= numbers["slips"]
    assert (after == text) or numbers["slips"]


def test_typos_come_at_the_stated_rate() -> None:
    _, numbers = change("the quick brown fox " * 2000, Typos(rate=0.05), Random(1), None)
    assert abs(numbers["slips"] / (16 * 2000) - 0.05) < 0.005  # 4 standard errors


@given(TEXTS)
def test_parts_are_the_text(text: str) -> None:
    words, gaps = parts_of(text)
    assert len(gaps) == len(words) + 1
    assert "".join(gap + word for gap, word in zip(gaps, [*words, ""], strict=True)) == text


@given(TEXTS, st.integers(0, 10_000))
def test_deletion_keeps_the_order_and_one_word(text: str, seed: int) -> None:
    after, numbers = change(text, Deletion(rate=0.6), Random(seed), None)
    words, left = parts_of(text)[0], "".join(after.split())
    rest = iter("".join(text.split()))
    assert all(letter in rest for letter in left)
    assert not words or parts_of(after)[0]
    assert numbers["deleted"] < max(1, len(words))


def test_deletion_leaves_no_double_spaces() -> None:
    for seed in range(50):
        after, _ = change("one two three, four five", Deletion(rate=0.5), Random(seed), None)
        assert "  " not in after and not after.startswith(" ")


@given(TEXTS, st.integers(0, 10_000))
def test_swap_keeps_all_words_and_all_signs(text: str, seed: int) -> None:
    after, _ = change(text, Swap(rate=0.5), Random(seed), None)
    assert sorted(after) == sorted(text)
    assert [c for c in after if not c.isalnum()] == [c for c in text if not c.isalnum()]


def test_swap_stays_within_a_phrase() -> None:
    for seed in range(40):
        after, _ = change("春眠不覺曉，處處聞啼鳥。", Swap(rate=0.5), Random(seed), None)
        first, second = after.rstrip("。").split("，")
        assert sorted(first) == sorted("春眠不覺曉") and sorted(second) == sorted("處處聞啼鳥")


def test_mask_hides_words_and_characters() -> None:
    assert change("Hello, 世界!", Mask(rate=1, sign="_"), Random(1), None)[0] == "_, __!"


def test_template_is_one_of_them() -> None:
    operation = Template(templates=("Q: {text}", "请问：{text}"))
    found = {change("x {text}", operation, Random(seed), None)[0] for seed in range(20)}
    assert found == {"Q: x {text}", "请问：x {text}"}


def test_paraphrase_asks_prompt_by_prompt() -> None:
    asked: list[str] = []

    def ask(settings: Paraphrase, prompt: str, seed: int) -> str:
        asked.append(prompt)
        return f" <{prompt}> "

    operation = Paraphrase(model="m", prompts=("to Chinese: {text}", "to English: {text}"), min_length_ratio=0.01)
    after, numbers = change("cat", operation, Random(1), ask)
    assert asked == ["to Chinese: cat", "to English: <to Chinese: cat>"]
    assert after == "<to English: <to Chinese: cat>>" and numbers["model"] == "m"


@pytest.mark.parametrize(("reply", "reason"), [("", "empty"), ("no", "too_short"), ("yes " * 50, "too_long")])
def test_bad_replies_are_refused(reply: str, reason: str) -> None:
    after, numbers = change("a text of some length", Paraphrase(model="m"), Random(1), lambda *_: reply)
    assert after == "a text of some length" and numbers["refused"] == reason


@pytest.mark.parametrize("operation", [Rotate(), Crop(), ColourJitter(), Flip()])
def test_images_come_out_the_same_twice(operation: object) -> None:
    before = picture()
    one, two = (image.change(before, operation, Random(9)) for _ in range(2))  # type: ignore[arg-type]
    assert np.array_equal(pixels(one[0]), pixels(two[0])) and one[1] == two[1]
