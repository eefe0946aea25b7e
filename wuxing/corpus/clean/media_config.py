"""The cleaning steps for pictures and sounds, as a recipe writes them.  Imports nothing heavy: `plan` reads it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from wuxing.core.step import Config


class ImageConfig(Config):
    """Decode every picture, measure it, and drop what is broken, too small, too blurred or empty."""

    min_side_pixels: int = Field(default=1, ge=1)
    """A shorter side below this: `too_small`."""
    max_pixels: int = Field(default=64_000_000, ge=1)
    """More pixels, width times height: `too_many_pixels`; nothing of them is unpacked."""
    max_aspect: float = Field(default=20.0, ge=1)
    """Longer side over shorter side above this: `too_long_and_thin`."""
    min_sharpness: float = Field(default=0.0, ge=0)
    """Variance of the Laplacian of the luma (0 to 255, shrunk to 512 pixels) below this: `blurred`.

    It grows with contrast and detail, so look at the histogram of a first run; photographs are often cut near 100.
    """
    min_contrast: float = Field(default=2.0, ge=0)
    """Standard deviation of the luma below this: `nearly_uniform`, an empty page or a black frame."""


class StandardiseImageConfig(Config):
    """Bring all pictures into one form: upright, one format, one mode, not larger than `max_side_pixels`.

    Metadata (place, camera, thumbnails) are left out.  A picture that is in that form already keeps its bytes.
    """

    format: Literal["keep", "png", "jpeg", "webp"] = "keep"
    """`keep` leaves PNG, JPEG and WebP as they are and makes PNG of all others."""
    mode: Literal["keep", "RGB", "RGBA", "L"] = "keep"
    """Channels; what was transparent stands on white where the new mode has none."""
    max_side_pixels: int | None = Field(default=None, ge=1)
    """Larger pictures are shrunk in proportion (Lanczos)."""
    quality: int = Field(default=90, ge=1, le=100)
    """Of JPEG and WebP."""


class AudioConfig(Config):
    """Decode every sound, measure it, and drop what is broken, too short, too long, silent, quiet or clipped."""

    min_seconds: float = Field(default=0.05, ge=0)
    """Shorter: `too_short`."""
    max_seconds: float = Field(default=3600.0, gt=0)
    """Longer: `too_long`; nothing beyond is unpacked."""
    min_rate: int = Field(default=4000, ge=1)
    """Fewer samples per second: `low_rate`.  Resampling cannot bring back what is not there."""
    min_loudness_dbfs: float = Field(default=-60.0, le=0)
    """Root mean square, in dB below full scale, below this: `silent`."""
    silence_dbfs: float = Field(default=-50.0, le=0)
    """A frame of 20 ms below this level counts as silence."""
    max_silence_share: float = Field(default=0.95, ge=0, le=1)
    """Larger share of silent frames: `mostly_silent`."""
    max_clipped_share: float = Field(default=0.01, ge=0, le=1)
    """Larger share of samples in flat tops (three or more at the highest or lowest level): `clipped`."""


class VoiceConfig(Config):
    """Find where somebody speaks; drop what holds too little of it, and cut what lies before and after."""

    method: Literal["energy", "silero"] = "energy"
    """`energy`: level and shape of the spectrum against the noise of the same sound.  `silero`: the Silero network.

    Silero needs the extra `voice` (onnxruntime); its weights (MIT) are read from a package, nothing of it is run.
    """
    min_speech_share: float = Field(default=0.0, ge=0, le=1)
    """Smaller share of speech: `too_little_speech`."""
    min_speech_seconds: float = Field(default=0.1, ge=0)
    """Less speech: `no_speech`."""
    min_snr_db: float = Field(default=4.0, ge=0)
    """For `energy`: how far speech stands above the noise."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """For `silero`: the probability from which on a window is speech."""
    trim: bool = False
    """Whether what lies before the first and after the last speech is cut off."""
    pad_seconds: float = Field(default=0.1, ge=0)
    """With `trim`: what stays of it on each side."""


class StandardiseAudioConfig(Config):
    """Bring all sounds into one form; one that is in that form already keeps its bytes."""

    rate: int | None = Field(default=None, ge=1000, le=384_000)
    """Samples per second (soxr, high quality)."""
    mono: bool = True
    """Whether channels are averaged into one."""
    format: Literal["keep", "wav", "flac"] = "keep"
    """`keep` leaves WAV and FLAC as they are and makes FLAC of all others that had to be changed."""
    loudness_dbfs: float | None = Field(default=None, le=0)
    """Root mean square to which each sound is brought, as far as no sample leaves full scale."""

    @model_validator(mode="after")
    def _some_change(self) -> StandardiseAudioConfig:
        if not (self.rate or self.mono or self.loudness_dbfs is not None or self.format != "keep"):
            raise ValueError("standardise_audio changes nothing; set rate, mono, format or loudness_dbfs")
        return self
