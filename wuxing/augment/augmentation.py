"""One augmented copy of a record: a pure function of the record, the seed and the epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from wuxing.augment.config import (
    AudioOperation,
    ImageOperation,
    Mixing,
    OperationsConfig,
    Paraphrase,
    TextOperation,
)
from wuxing.core.record import Drop, Record

Numbers = dict[str, Any]
Ask = Callable[[Paraphrase, str, int], str]
"""A model that answers: settings, the prompt, a seed → its reply."""
SOFT_DIGITS = 6
PARTNER_TRIALS = 8


def copy_id(id: str, epoch: int) -> str:
    """The id of a record's copy."""
    return f"{id}~{epoch}"


@dataclass
class _Work:
    """A record on its way through the operations."""

    record: Record
    value: Any
    """Text or dialogue, picture, or samples with their rate."""
    done: list[dict[str, Numbers]] = field(default_factory=list)
    labels: dict[str, float] | None = None
    """Shares of classes, once another record has a part in it."""


class Augmentation:
    """A chain of operations.  `partners` are what mixup and cutmix mix in; `ask` is the model that paraphrases."""

    def __init__(
        self, config: OperationsConfig, seed: int, partners: Sequence[Record] = (), ask: Ask | None = None
    ) -> None:
        if config.mixes and not partners:
            raise ValueError("mixup and cutmix need partners")
        self.config, self.seed, self.partners, self.ask = config, seed, partners, ask

    def apply(self, record: Record, epoch: int) -> Record | Drop:
        """The copy `<id>~<epoch>`, the same whenever and wherever it is made; or why there is none.

        `meta.augmentation` says of what it is a copy, and which operations changed it by which numbers; the list is
        empty, and the content the record's own, when chance left it alone.
        """
        value = self._opened(record)
        if isinstance(value, Drop):
            return value
        work = _Work(record, value)
        for place, step in enumerate(self.config.steps):
            random = Random(f"{self.seed}/{epoch}/{record.id}/{place}")
            if random.random() < step.operation.share:
                numbers = self._changed(work, step.operation, random)
                if numbers:
                    work.done.append({step.chosen: numbers})
        return self._closed(work, epoch)

    def _opened(self, record: Record) -> Any | Drop:
        content = self.config.content
        if content == "text":
            if record.text is not None:
                return record.text
            if record.messages is not None:
                return [dict(message) for message in record.messages]
            return Drop("filtered:no_text", "the record holds something else")
        data = record.image if content == "image" else record.audio
        if data is None:
            return Drop(f"filtered:no_{content}", "the record holds something else")
        return _decoded(content, data)

    def _changed(self, work: _Work, operation: Any, random: Random) -> Numbers:
        if isinstance(operation, TextOperation):
            return self._change_text(work, operation, random)
        if isinstance(operation, Mixing):
            return self._mix(work, operation, random)
        if isinstance(operation, ImageOperation):
            from wuxing.augment import image

            work.value, numbers = image.change(work.value, operation, random)
            return numbers
        assert isinstance(operation, AudioOperation)
        from wuxing.augment import sound

        samples, rate = work.value
        changed, numbers = sound.change(samples, rate, operation, random)
        work.value = (changed, rate)
        return numbers

    def _change_text(self, work: _Work, operation: TextOperation, random: Random) -> Numbers:
        from wuxing.augment.text import change

        if isinstance(work.value, str):
            changed, numbers = change(work.value, operation, random, self.ask)
            moved = changed != work.value
            work.value = changed
            return numbers if moved or "refused" in numbers else {}
        turns: Numbers = {}
        for place, message in enumerate(work.value):
            if message["role"] == "user":
                changed, numbers = change(message["content"], operation, random, self.ask)
                if changed != message["content"] or "refused" in numbers:
                    turns[str(place)] = numbers
                message["content"] = changed
        return {"turns": turns} if turns else {}

    def _mix(self, work: _Work, operation: Mixing, random: Random) -> Numbers:
        from wuxing.augment.image import mix

        partner, picture = self._partner(work.record, random)
        if partner is None:
            return {}
        work.value, share, numbers = mix(work.value, picture, operation, random)
        if work.record.label is not None and partner.label is not None:
            before = work.labels or {work.record.label: 1.0}
            work.labels = {label: part * share for label, part in before.items()}
            work.labels[partner.label] = work.labels.get(partner.label, 0.0) + 1 - share
        return {"with": partner.id, **numbers}

    def _partner(self, record: Record, random: Random) -> tuple[Record | None, Any]:
        """Another record, drawn evenly, whose picture can be read."""
        for _ in range(PARTNER_TRIALS):
            partner = self.partners[random.randrange(len(self.partners))]
            if partner.id == record.id or partner.image is None:
                continue
            picture = _decoded("image", partner.image)
            if not isinstance(picture, Drop):
                return partner, picture
        return None, None

    def _closed(self, work: _Work, epoch: int) -> Record:
        record = work.record
        story = {"of": record.id, "epoch": epoch, "operations": work.done}
        meta = {**record.meta, "augmentation": story}
        label = record.label
        if work.labels is not None:
            meta["soft_label"] = {name: round(part, SOFT_DIGITS) for name, part in sorted(work.labels.items())}
            label = largest(meta["soft_label"], record.label)
        return replace(record, id=copy_id(record.id, epoch), label=label, meta=meta, **self._content(work))

    def _content(self, work: _Work) -> dict[str, Any]:
        if not work.done:
            return {}
        if self.config.content == "image":
            from wuxing.media.image import encode

            return {"image": encode(work.value)}
        if self.config.content == "audio":
            from wuxing.media import audio

            return {"audio": audio.encode(audio.Sound(*work.value))}
        return {"text": work.value} if isinstance(work.value, str) else {"messages": work.value}


def largest(shares: dict[str, float], own: str | None) -> str:
    """The class with the largest share; the record's own among equals."""
    return max(sorted(shares), key=lambda name: (shares[name], name == own))


def changed(copy: Record) -> bool:
    """Whether a copy differs from its record: some operation did something."""
    done = copy.meta["augmentation"]["operations"]
    return any(not _only_refused(numbers) for operation in done for numbers in operation.values())


def _only_refused(numbers: Numbers) -> bool:
    turns = numbers.get("turns")
    if isinstance(turns, dict):
        return all("refused" in inner for inner in turns.values())
    return "refused" in numbers


def _decoded(content: str, data: bytes) -> Any | Drop:
    from wuxing.media.error import MediaError

    try:
        if content == "image":
            from wuxing.augment.image import plain
            from wuxing.media.image import decode

            return plain(decode(data))
        from wuxing.media.audio import decode as decode_sound

        sound = decode_sound(data)
        return sound.samples_CT, sound.rate
    except MediaError as error:
        return Drop(f"unreadable:{content}", str(error))
