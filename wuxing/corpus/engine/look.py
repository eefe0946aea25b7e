"""Pictures and sounds that are nearly the same as an earlier one: their signatures, and which of them leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wuxing.corpus.clean.column import IMAGES, SOUNDS, Columns
from wuxing.corpus.config import CorpusConfig, DuplicatesConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wuxing.corpus.engine.pieces import Pieces

LOOK_BYTES = 1 + 72
"""The view that a record stands in (0: it has no signature), and its signature (`media/hash.py`)."""


def wanted(settings: DuplicatesConfig) -> dict[int, int]:
    """View → how many bits of two hashes may differ, for the views in which near duplicates are looked for."""
    bits = {IMAGES: settings.near_image_bits, SOUNDS: settings.near_audio_bits}
    return {view: most for view, most in bits.items() if most is not None}


def looks_of(columns: Columns, kept: NDArray[np.int64], settings: DuplicatesConfig) -> NDArray[np.uint8]:
    """One row of `LOOK_BYTES` for each record that is left."""
    import numpy as np

    found = np.zeros((len(kept), LOOK_BYTES), np.uint8)
    for kind in wanted(settings):
        view = columns.views.get(kind)
        if view is None:
            continue
        for row, value in zip(np.searchsorted(kept, view.owners).tolist(), view.values, strict=True):
            signature = _signature(kind, value.as_py())
            if signature is not None:
                found[row, 0], found[row, 1:] = kind, np.frombuffer(signature, np.uint8)
    return found


def _signature(kind: int, data: bytes) -> bytes | None:
    """None for what cannot be decoded: a cleaning step says so, where the recipe has one."""
    from wuxing.media import audio, hash, image
    from wuxing.media.error import MediaError

    try:
        return hash.image_signature(image.decode(data)) if kind == IMAGES else hash.sound_signature(audio.decode(data))
    except MediaError:
        return None


def lookalikes(pieces: Pieces, config: CorpusConfig, first: NDArray[Any], root: NDArray[Any]) -> None:
    """Let pictures and sounds point, in `root`, at the first kept one that they nearly equal.  73 bytes a record."""
    import numpy as np

    from wuxing.corpus.lookalike import near_media

    settings = config.duplicates
    if not wanted(settings) or not pieces.records:
        return
    looks = np.concatenate([pieces.looks(piece) for piece, _ in pieces.each()])
    alone = first == np.arange(len(first), dtype=first.dtype)
    for kind, bits in wanted(settings).items():
        usable = (looks[:, 0] == kind) & alone
        if usable.any():
            found = near_media(looks[:, 1:], bits, settings.likeness, usable)
            root[usable] = found[usable]
