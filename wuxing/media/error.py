"""The error of media that cannot be decoded."""

from __future__ import annotations

from wuxing.core.error import WuxingError


class MediaError(WuxingError):
    """An image or a sound that cannot be decoded: one line that says why."""
