"""Where somebody speaks in a sound.  Shape letters: T time, F frames, B frequency bins."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from wuxing.core.context import Context
from wuxing.core.error import UsageError
from wuxing.core.record import Drop
from wuxing.corpus.clean.cleaner import Column
from wuxing.corpus.clean.media_cleaner import Look, MediaCleaner
from wuxing.corpus.clean.media_config import VoiceConfig
from wuxing.source.config import PackageSource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wuxing.media.audio import Sound

HOP_SECONDS = 0.01
WINDOW_SECONDS = 0.03
RATE = 8000
"""Speech is looked for below 4 kHz."""
BANDS = 16
SMOOTHED_FRAMES = 5
FLOOR_BIAS = 1.6
"""The mean of a smoothed power over its 10th percentile, for steady noise."""
MIN_SPEECH_SECONDS = 0.06
MAX_PAUSE_SECONDS = 0.15
SILERO = PackageSource(
    registry="pypi",
    name="silero-vad",
    version="6.2.3",
    member="silero_vad/data/silero_vad.onnx",
    sha256="7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
)
SILERO_WINDOW, SILERO_CONTEXT, SILERO_RATE = 512, 64, 16_000


class Voice(MediaCleaner):
    """Measures speech, drops what lacks it, cuts what lies around it."""

    column: ClassVar[Column] = "audio"

    def __init__(self, settings: VoiceConfig, context: Context):
        super().__init__()
        self.settings, self.context = settings, context

    def look(self, data: bytes) -> Look:
        """Stretches of speech."""
        from wuxing.media.audio import decode
        from wuxing.media.error import MediaError

        try:
            sound = decode(data)
        except MediaError as error:
            return Look(Drop("broken_audio", error.what))
        stretches = self.stretches(sound)
        spoken = sum(stop - start for start, stop in stretches)
        measures = {"speech_seconds": spoken, "speech_share": min(1.0, spoken / sound.seconds)}
        if spoken < self.settings.min_speech_seconds:
            return Look(Drop("no_speech", f"{spoken:.2f} s of {sound.seconds:.2f} s"), measures=measures)
        if measures["speech_share"] < self.settings.min_speech_share:
            return Look(Drop("too_little_speech", f"{measures['speech_share']:.1%}"), measures=measures)
        notes: dict[str, Any] = {"speech_seconds": round(spoken, 3)}
        if self.settings.trim and (shorter := self._trimmed(sound, stretches)):
            self.found["trimmed"] += 1
            return Look(data=shorter[0], measures=measures, notes={**notes, "seconds": shorter[1]})
        return Look(measures=measures, notes=notes)

    def stretches(self, sound: Sound) -> list[tuple[float, float]]:
        """Start and stop in seconds of each stretch of speech."""
        from wuxing.media.audio import mono, resampled

        if self.settings.method == "silero":
            chances_F = self._silero.chances(resampled(mono(sound), SILERO_RATE).mono_T)
            speech_F, hop = chances_F >= self.settings.threshold, SILERO_WINDOW / SILERO_RATE
        else:
            speech_F = spoken_frames(resampled(mono(sound), RATE).mono_T, self.settings.min_snr_db)
            hop = HOP_SECONDS
        return [(start * hop, min(stop * hop, sound.seconds)) for start, stop in smoothed(speech_F, hop)]

    @cached_property
    def _silero(self) -> Silero:
        return Silero(self.context)

    def _trimmed(self, sound: Sound, stretches: list[tuple[float, float]]) -> tuple[bytes, float] | None:
        """A FLAC of what lies between the first and the last speech, and its seconds; None when that is all of it."""
        from wuxing.media.audio import Sound, encode

        pad = self.settings.pad_seconds
        first = max(0, round((stretches[0][0] - pad) * sound.rate))
        last = min(sound.samples_CT.shape[1], round((stretches[-1][1] + pad) * sound.rate))
        if first == 0 and last == sound.samples_CT.shape[1]:
            return None
        shorter = Sound(sound.samples_CT[:, first:last], sound.rate)
        return encode(shorter, "flac"), round(shorter.seconds, 4)


def spoken_frames(samples_T: NDArray[np.float32], min_snr_db: float) -> NDArray[np.bool_]:
    """Frames of 10 ms that stand out of the steady noise of the same sound.

    The power of 16 bands between 100 and 3,800 Hz, smoothed over 50 ms, is compared with its own floor, the 10th
    percentile over the sound; a frame is speech when the likelihood ratio of Sohn, Kim and Sung, A Statistical
    Model-Based Voice Activity Detection (1999), averaged over the bands, reaches that of `min_snr_db`, and it is not
    more than 40 dB below the loudest frames.  What is steady (hum, hiss) is noise, however loud; music is not.
    """
    import numpy as np

    window, hop = round(WINDOW_SECONDS * RATE), round(HOP_SECONDS * RATE)
    if not len(samples_T):
        return np.zeros(0, bool)
    count = -(-len(samples_T) // hop)
    padded_T = np.pad(samples_T.astype(np.float64), (window // 2, window + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded_T, window)[::hop][:count]
    spectrum_FB = np.abs(np.fft.rfft(frames * np.hanning(window), 256, axis=1)) ** 2
    edges = np.unique(np.rint(np.geomspace(3, 122, BANDS + 1)).astype(int))
    power_FB = np.add.reduceat(spectrum_FB[:, :122], edges[:-1], axis=1) / np.diff(edges) + 1e-9
    smooth_FB = _smoothed_over_time(power_FB, SMOOTHED_FRAMES)
    floor_B = np.percentile(smooth_FB, 10, axis=0) * FLOOR_BIAS
    ratio_FB = smooth_FB / np.maximum(floor_B, 1e-7)
    ratio_FB = np.minimum(np.maximum(ratio_FB, 1.0), 1e4)
    likelihood_F = (ratio_FB - np.log(ratio_FB) - 1).mean(axis=1)
    level_F = 10 * np.log10(smooth_FB.sum(axis=1))
    least = 10 ** (min_snr_db / 10)
    near_loudest_F = level_F >= float(level_F.max()) - 40.0
    spoken: NDArray[np.bool_] = (likelihood_F >= least - np.log(least) - 1) & near_loudest_F
    return spoken


def _smoothed_over_time(power_FB: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    import numpy as np

    padded_FB = np.pad(power_FB, ((frames // 2, frames // 2), (0, 0)), mode="edge")
    sums_FB = np.cumsum(np.vstack([np.zeros((1, power_FB.shape[1])), padded_FB]), axis=0)
    return np.maximum((sums_FB[frames:] - sums_FB[:-frames]) / frames, 1e-9)


def smoothed(speech_F: NDArray[np.bool_], hop: float) -> list[tuple[int, int]]:
    """Runs of speech, with short pauses closed and then single clicks left out."""
    import numpy as np

    edges = np.flatnonzero(np.diff(np.concatenate([[False], speech_F, [False]]).astype(np.int8)))
    runs: list[tuple[int, int]] = []
    for start, stop in edges.reshape(-1, 2).tolist():
        if runs and (start - runs[-1][1]) * hop <= MAX_PAUSE_SECONDS:
            runs[-1] = (runs[-1][0], stop)
        else:
            runs.append((start, stop))
    return [(start, stop) for start, stop in runs if (stop - start) * hop >= MIN_SPEECH_SECONDS]


class Silero:
    """The Silero network for voice activity, at 16 kHz, run by onnxruntime."""

    def __init__(self, context: Context):
        from wuxing.source.package import read_member

        try:
            import onnxruntime
        except ImportError as error:
            raise UsageError(
                "voice: {method: silero} needs onnxruntime", 'Install it: pip install "wuxing[voice]", or use energy'
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        weights = read_member(SILERO, context)
        self._session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])

    def chances(self, samples_T: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probability of speech in each window of 32 ms."""
        import numpy as np

        state, rate = np.zeros((2, 1, 128), np.float32), np.array(SILERO_RATE, np.int64)
        count = -(-len(samples_T) // SILERO_WINDOW)
        padded_T = np.pad(samples_T, (SILERO_CONTEXT, count * SILERO_WINDOW - len(samples_T)))
        chances = np.zeros(count, np.float32)
        for number in range(count):
            start = number * SILERO_WINDOW
            window = padded_T[None, start : start + SILERO_CONTEXT + SILERO_WINDOW]
            chance, state = self._session.run(None, {"input": window, "state": state, "sr": rate})
            chances[number] = float(chance[0, 0])
        return chances


def build(settings: VoiceConfig, context: Context, fitted: Path | None = None) -> Voice:
    """The step."""
    return Voice(settings, context)
