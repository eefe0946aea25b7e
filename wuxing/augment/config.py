"""Augmentation, as a recipe writes it.  Imports nothing heavy: `plan` reads it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from wuxing.core.step import Choice, Config, StepConfig, plumbing

Content = Literal["text", "image", "audio"]


class Operation(Config):
    """What every operation has."""

    content: ClassVar[Content]
    """What it changes of a record."""

    share: float = Field(default=1.0, gt=0, le=1)
    """The chance that a copy meets this operation."""


class ImageOperation(Operation):
    """Operations on images."""

    content: ClassVar[Content] = "image"


class Rotate(ImageOperation):
    """Turn about the middle; what lies outside is filled."""

    max_degrees: float = Field(default=15, gt=0, le=180)
    """Angles are drawn evenly from minus to plus this."""
    fill: Literal["edge", "black", "white"] = "edge"
    """`edge`: the nearest pixel of the image."""


class Flip(ImageOperation):
    """Mirror.  Leave it out where left and right, or up and down, carry meaning (digits, writing)."""

    share: float = Field(default=0.5, gt=0, le=1)
    """The chance that a copy meets this operation."""
    axis: Literal["horizontal", "vertical"] = "horizontal"
    """`horizontal`: left becomes right."""


class Crop(ImageOperation):
    """Cut a part out and bring it to the old size (Szegedy et al. 2015)."""

    min_area: float = Field(default=0.7, gt=0, le=1)
    """Least share of the image's area; the largest is 1."""
    max_stretch: float = Field(default=4 / 3, ge=1, le=4)
    """The part's sides differ from the image's proportion by at most this factor."""


class ColourJitter(ImageOperation):
    """Change brightness, contrast, saturation, hue, in this order; each by a factor from 1 - x to 1 + x."""

    brightness: float = Field(default=0.2, ge=0, le=1)
    """0 leaves it."""
    contrast: float = Field(default=0.2, ge=0, le=1)
    """0 leaves it."""
    saturation: float = Field(default=0.2, ge=0, le=1)
    """0 leaves it."""
    hue: float = Field(default=0.0, ge=0, le=0.5)
    """Largest turn of the colour circle, in turns."""


class Mixing(ImageOperation):
    """Two images become one; so do their labels.

    `label` stays that of the larger part; `meta.soft_label` holds the shares of both, for losses that take them.
    """

    share: float = Field(default=0.5, gt=0, le=1)
    """The chance that a copy meets this operation."""


class Mixup(Mixing):
    """λ of this image and 1 - λ of another, pixel by pixel (Zhang et al. 2018)."""

    alpha: float = Field(default=0.4, gt=0, le=10)
    """λ comes from Beta(alpha, alpha); small values leave one image almost alone."""


class Cutmix(Mixing):
    """A rectangle of another image stands in this one (Yun et al. 2019)."""

    alpha: float = Field(default=1.0, gt=0, le=10)
    """The share of the image that stays comes from Beta(alpha, alpha)."""


class AudioOperation(Operation):
    """Operations on sounds."""

    content: ClassVar[Content] = "audio"


class TimeShift(AudioOperation):
    """Move the sound forwards or backwards; what falls out is lost, the gap is silence."""

    max_seconds: float = Field(default=0.1, gt=0, le=60)
    """Shifts are drawn evenly from minus to plus this."""
    wrap: bool = False
    """Whether what falls out at one end comes in at the other."""


class Noise(AudioOperation):
    """Add noise; the ratio is that of mean powers."""

    min_snr_db: float = Field(default=10, ge=-20, le=80)
    """Lowest signal-to-noise ratio."""
    max_snr_db: float = Field(default=30, ge=-20, le=80)
    """Highest signal-to-noise ratio."""
    colour: Literal["white", "pink"] = "white"
    """`pink`: power falls with frequency, as in rooms and streets."""

    @model_validator(mode="after")
    def _order(self) -> Noise:
        if self.min_snr_db > self.max_snr_db:
            raise ValueError(f"min_snr_db ({self.min_snr_db:g}) is above max_snr_db ({self.max_snr_db:g})")
        return self


class TimeMask(AudioOperation):
    """Silence a stretch (SpecAugment, Park et al. 2019)."""

    max_seconds: float = Field(default=0.1, gt=0, le=60)
    """Longest stretch; at most a third of the sound."""
    masks: int = Field(default=1, ge=1, le=10)
    """How many stretches."""


class FrequencyMask(AudioOperation):
    """Silence a band of frequencies (SpecAugment)."""

    max_hz: float = Field(default=500, gt=0, le=96_000)
    """Widest band; at most a third of all frequencies."""
    masks: int = Field(default=1, ge=1, le=10)
    """How many bands."""


class Speed(AudioOperation):
    """Play faster or slower; pitch and length follow (Ko et al. 2015)."""

    min_factor: float = Field(default=0.9, ge=0.5, le=1)
    """Slowest."""
    max_factor: float = Field(default=1.1, ge=1, le=2)
    """Fastest."""


class TextOperation(Operation):
    """Operations on text; of a dialogue they change what the user says, for the replies are what is learnt."""

    content: ClassVar[Content] = "text"


class WordOperation(TextOperation):
    """Operations on words; in scripts without spaces, on characters.  Punctuation and spaces stay."""

    rate: float = Field(default=0.1, gt=0, le=1)
    """Share of the words that are touched, by chance."""


class Typos(WordOperation):
    """Slips of the fingers on a QWERTY keyboard: a neighbouring key, a key more, a key less, two keys swapped.

    Characters that are on no key (Chinese) stay.
    """

    rate: float = Field(default=0.03, gt=0, le=1)
    """Share of the letters that are touched, by chance."""


class Deletion(WordOperation):
    """Leave words out; at least one stays (Wei & Zou 2019)."""


class Swap(WordOperation):
    """Exchange neighbouring words."""


class Mask(WordOperation):
    """Put a sign in the place of words."""

    rate: float = Field(default=0.15, gt=0, le=1)
    """Share of the words that are touched, by chance."""
    sign: str = Field(default="[MASK]", min_length=1)
    """What stands there."""


class Template(TextOperation):
    """Say it in other words around it: one of the templates, drawn evenly."""

    templates: tuple[str, ...] = Field(min_length=1)
    """Texts with the place `{text}`."""

    @field_validator("templates")
    @classmethod
    def _have_the_place(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for template in value:
            if template.count("{text}") != 1:
                raise ValueError(f'"{template}" must hold the place {{text}} once')
        return value


class Paraphrase(TextOperation):
    """Ask a model to say it anew, over the OpenAI protocol: `wuxing serve`, vLLM, a provider.

    The texts leave this machine when the endpoint is elsewhere.  Replies are stored in `replies.jsonl`.
    """

    endpoint: str = plumbing("http://127.0.0.1:8000/v1", pattern=r"^https?://")
    """Where the model answers."""
    model: str
    """Its name there; it decides the version of the artifact."""
    prompts: tuple[str, ...] = Field(
        default=(
            "Rewrite this text in other words. Keep its meaning and language. Answer with the text alone.\n\n{text}",
        ),
        min_length=1,
    )
    """Asked one after the other, each with the reply to the one before: two make a back-translation."""
    key_variable: str | None = plumbing(None)
    """The environment variable that holds the key."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """0: always the likeliest word."""
    max_tokens: int = Field(default=512, ge=1, le=32768)
    """Longest reply."""
    min_length_ratio: float = Field(default=0.4, ge=0, le=1)
    """A reply that is shorter than this share of the text, or longer than its inverse, is refused; the text stays."""
    timeout_seconds: float = plumbing(60, gt=0)
    """How long one reply may take."""
    concurrency: int = plumbing(8, ge=1, le=256)
    """Questions asked at once by each process."""

    @field_validator("prompts")
    @classmethod
    def _have_the_place(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in value:
            if prompt.count("{text}") != 1:
                raise ValueError(f'"{prompt}" must hold the place {{text}} once')
        return value


class OperationChoice(Choice):
    """One operation with its settings, or its bare name."""

    rotate: Rotate = Rotate()
    """Image: turn."""
    flip: Flip = Flip()
    """Image: mirror."""
    crop: Crop = Crop()
    """Image: cut a part out."""
    colour_jitter: ColourJitter = ColourJitter()
    """Image: other colours."""
    mixup: Mixup = Mixup()
    """Image: blend with another."""
    cutmix: Cutmix = Cutmix()
    """Image: paste a part of another."""
    time_shift: TimeShift = TimeShift()
    """Audio: move."""
    noise: Noise = Noise()
    """Audio: add noise."""
    time_mask: TimeMask = TimeMask()
    """Audio: silence a stretch."""
    frequency_mask: FrequencyMask = FrequencyMask()
    """Audio: silence a band."""
    speed: Speed = Speed()
    """Audio: faster or slower."""
    typos: Typos = Typos()
    """Text: slips of the fingers."""
    deletion: Deletion = Deletion()
    """Text: leave words out."""
    swap: Swap = Swap()
    """Text: exchange neighbours."""
    mask: Mask = Mask()
    """Text: hide words."""
    template: Template | None = None
    """Text: words around it."""
    paraphrase: Paraphrase | None = None
    """Text: a model says it anew."""

    @property
    def operation(self) -> Operation:
        """The chosen settings."""
        settings = self.settings
        assert isinstance(settings, Operation)
        return settings


class OperationsConfig(Config):
    """A chain of operations; a pure function of the record, the seed and the epoch."""

    steps: tuple[OperationChoice, ...] = Field(min_length=1)
    """The operations, in order; all of them change text, or images, or audio."""

    @model_validator(mode="after")
    def _one_content(self) -> OperationsConfig:
        contents = {step.operation.content for step in self.steps}
        if len(contents) > 1:
            raise ValueError(f"one step changes one kind of content, not {' and '.join(sorted(contents))}")
        return self

    @property
    def content(self) -> Content:
        """What the operations change."""
        return self.steps[0].operation.content

    @property
    def mixes(self) -> bool:
        """Whether another record has a part in it."""
        return any(isinstance(step.operation, Mixing) for step in self.steps)


class AugmentationConfig(StepConfig):
    """More records for the train split, made from those that are there; what is held out stays as it is."""

    data: str
    """The corpus or task to start from."""
    steps: tuple[OperationChoice, ...] = Field(min_length=1)
    """The operations, in order; all of them change text, or images, or audio."""
    copies: int = Field(default=1, ge=1, le=100)
    """Augmented copies of each record; copy n has the id `<id>~n` and draws the numbers of epoch n."""
    keep_originals: bool = True
    """Whether the records themselves stay in the train split, before their copies."""
    partners: int = Field(default=4096, ge=2, le=1_000_000)
    """For mixup and cutmix: so many records, drawn from the train split, are mixed in; they are held in memory."""
    workers: int | None = plumbing(None, ge=1)
    """Processes that compute; as many as the machine has cores unless given.  The result does not depend on it."""

    @model_validator(mode="after")
    def _one_content(self) -> AugmentationConfig:
        self.operations  # noqa: B018 - its validator speaks
        return self

    @property
    def operations(self) -> OperationsConfig:
        """The chain alone."""
        return OperationsConfig(steps=self.steps)
