"""What a recipe says about a model: strict, and contradictions name both keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wuxing.compute.mesh import Sharding
from wuxing.core.step import Choice, Config, StepConfig, plumbing
from wuxing.model.architecture import Architecture
from wuxing.objective.classify import Classify
from wuxing.objective.grpo import Grpo
from wuxing.objective.masked import Masked
from wuxing.objective.next_token import NextToken
from wuxing.train.order import Adapt, Curriculum, DataPhase, contradiction
from wuxing.train.plan import ramp
from wuxing.train.update.freeze import Freeze
from wuxing.train.update.guard import Guard
from wuxing.train.update.schedule import Schedule

OptimizerKind = Literal["muon", "adamw", "lion", "adafactor", "schedule_free"]


class Budget(Config):
    """How long training goes on: exactly one of the four."""

    steps: int | None = Field(default=None, gt=0)
    """Optimizer steps."""
    tokens: int | None = Field(default=None, gt=0)
    """Positions that the model sees; with a task, prompts and replies count as `length_tokens` a row."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the data (one data set, or the prompts of a task)."""
    minutes: float | None = Field(default=None, gt=0)
    """Wall time, validation and checkpoints included.  Turned into steps once, at the first start, and then kept."""

    @model_validator(mode="after")
    def _one(self) -> Budget:
        given = [name for name in ("steps", "tokens", "epochs", "minutes") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none"
            raise ValueError(f"a budget is one of steps, tokens, epochs or minutes; {found} given")
        return self


Beta = Annotated[float, Field(ge=0, lt=1)]
"""What a moving average keeps of itself in a step."""


class OptimizerConfig(Config):
    """How gradients become updates."""

    kind: OptimizerKind = "muon"
    """`muon` orthogonalises the updates of the matrices inside the blocks and leaves the rest to AdamW; `adamw`;
    `lion` moves by signs and holds one moment; `adafactor` holds rows and columns of the second moment only;
    `schedule_free` is AdamW that averages its own path, best with `schedule: {shape: constant}`."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Highest learning rate.  Left out: derived from the width and the batch, and printed."""
    embedding_rate: float | None = Field(default=None, gt=0)
    """Learning rate of the token table, as a multiple of `learning_rate`.  Left out: derived (10 for a new network)."""
    vector_rate: float = Field(default=1.0, gt=0)
    """Learning rate of norms and biases, as a multiple of `learning_rate`."""
    rates: dict[str, float] = {}
    """Patterns of parameter names → multiples of the rate that they would have; the last that fits counts:
    `{"model.embed_tokens.*": 0.1, "model.layers.0.*": 0.5}`."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Share of each matrix taken away per unit of learning rate; larger regularises more."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Muon's."""
    momentum_warmup_steps: int = Field(default=300, ge=0)
    """Muon's momentum rises from 0.85 within so many steps, for the first gradients are soon out of date; 0: never."""
    betas: tuple[Beta, Beta] | None = None
    """AdamW's, Lion's (0.9, 0.99 is usual there) and schedule_free's; adafactor has its own.  Left out: 0.8, 0.98 for
    what `muon` leaves to AdamW in a new network, 0.9, 0.95 elsewhere."""
    l1: float = Field(default=0.0, ge=0)
    """Weight of the sum of absolute values of the matrices in the gradient; larger makes more of them small."""
    l2: float = Field(default=0.0, ge=0)
    """Weight of half the sum of their squares; unlike `weight_decay` it goes through the optimizer's scaling."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the whole gradient; longer ones are scaled down to it."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # `rates` is a dictionary


class Stop(Config):
    """Ends before the budget does; judged whenever is measured."""

    target: float | None = None
    """Stop once the held-out measure is as good as this (bits per byte: at or below; accuracy: at or above)."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many measurements in a row without an improvement."""
    min_improvement: float = Field(default=0.0, ge=0)
    """A smaller change of the measure is no improvement."""

    @model_validator(mode="after")
    def _some(self) -> Stop:
        if self.target is None and self.patience is None:
            raise ValueError("stop needs target or patience")
        return self


class Validation(Config):
    """Measuring on held-out data while training."""

    times: int = Field(default=4, ge=1)
    """How often, the last step included; the start is measured too."""
    tokens: int = Field(default=1 << 18, gt=0)
    """At most so many positions of each data set's `validation` split."""
    every_steps: int | None = Field(default=None, gt=0)
    """Measure every so many steps instead, and after the last one."""
    tasks: tuple[str, ...] = ()
    """Tasks whose `validation` splits are answered greedily as well: `accuracy/<task>`."""
    prompts: int = Field(default=128, gt=0)
    """At most so many prompts of each task's `validation` split."""
    reply_tokens: int = Field(default=32, gt=0)
    """Longest reply to a task of `tasks`."""
    rows: int = Field(default=32, gt=0, json_schema_extra={"fingerprint": False})
    """Replies to a task of `tasks` that are computed at once: their caches are what it holds in memory."""
    metric: str | None = None
    """The figure that `stop`, `keep: best` and a plateau follow: `bits_per_byte`, `bits_per_byte/<data>`,
    `accuracy/<task>`, ... Left out: the first of the log's measurements."""

    def moments(self, steps: int) -> set[int]:
        """The steps after which is measured, in a run of so many."""
        if self.every_steps is not None:
            return {*range(self.every_steps, steps, self.every_steps), steps}
        return {round(steps * part / self.times) for part in range(1, self.times + 1)}


class Rollout(Config):
    """How replies are drawn for reinforcement learning: at temperature 1, from the model's own distribution."""

    prompts: int = Field(gt=0)
    """Prompts of one step."""
    group: int = Field(ge=2)
    """Replies to each prompt, judged against each other; larger groups give a steadier gradient."""
    reply_tokens: int = Field(gt=0)
    """Longest reply."""
    reward: dict[str, float] = Field(default={"correct": 1.0})
    """Weights of the task's scores in the reward."""
    normalise: bool = True
    """Divide advantages by the group's deviation; without it, groups near certainty weigh less (Liu et al. 2025)."""
    negative_share: float = Field(default=1.0, ge=0, le=1)
    """Weight of replies that earned less than their group's mean.  0 learns from the better ones only (RAFT, Dong et
    al. 2023): slower to forget a fault, but steady where batches are so small that the gradient is mostly noise."""
    rows: int | None = plumbing(None, gt=0)
    """Replies that are drawn at once in a process: their caches of keys and values are what drawing holds in memory.
    Left out: all of a step, or as many as fit; decided once."""

    def replies(self, processes: int = 1) -> int:
        """Replies that one of so many processes draws in a step."""
        return -(-self.prompts // processes) * self.group


class ObjectiveConfig(Choice):
    """Exactly one objective: by its name alone, or with settings below it."""

    next_token: NextToken | None = None
    """Predict the next token: pretraining and supervised tuning."""
    masked: Masked | None = None
    """Guess masked tokens from both sides: an encoder, for classifiers and embeddings; it writes no text."""
    grpo: Grpo | None = None
    """Group-relative policy optimisation on a task."""
    classify: Classify | None = None
    """Name the class of each document of a corpus."""

    @property
    def learns_text(self) -> bool:
        """Whether its labels are tokens of the data."""
        return (self.next_token or self.masked) is not None


def of_text(objective: ObjectiveConfig) -> NextToken:
    """The loss over tokens of an objective that learns from text alone."""
    found = objective.next_token or objective.masked
    assert found is not None
    return found


class ModelConfig(StepConfig):
    """A model: what it starts from, what it learns, from what, and for how long."""

    architecture: Architecture | None = None
    """A new network.  Either this or `start_from`."""
    start_from: str | None = None
    """The model to go on from, with its tokenizer."""
    tokenizer: str | None = None
    """The tokenizer of a new network."""
    data: dict[str, float] | None = Field(default=None, min_length=1)
    """Corpora and tasks to learn from → share of the rows.  Rows have one length, so this is the share of positions."""
    phases: tuple[DataPhase, ...] = ()
    """Other shares later in the run: `[{after: 0.9, data: {textbooks: 1.0}}]`."""
    mixture: Adapt | None = None
    """Shares that follow the losses, `data` being where they begin: `{rule: progress}`."""
    curriculum: Curriculum | None = None
    """The order inside each data set; left out: shuffled."""
    task: str | None = None
    """The task whose prompts are answered and judged (grpo)."""
    objective: ObjectiveConfig
    """What is learnt: `next_token`, `masked`, `classify` or `grpo`."""
    rollout: Rollout | None = None
    """How replies are drawn (grpo)."""
    length_tokens: int = Field(gt=0)
    """Tokens of a row: the longest context that is trained.  With a task: prompt and reply together."""
    batch_tokens: int | None = Field(default=None, gt=0)
    """Positions of one optimizer step.  With a task, `rollout` says it."""
    batch_ramp: tuple[ramp.BatchStage, ...] = ()
    """Smaller steps first (batch-size warm-up): `[{until: 0.1, batch_tokens: 4096}, {until: 0.3, batch_tokens: 8192}]`,
    then `batch_tokens`.  The learning rate follows by `schedule.batch_law`."""
    length_ramp: tuple[ramp.LengthStage, ...] = ()
    """Shorter rows first (sequence-length warm-up, Li et al. 2022): `[{until: 0.2, length_tokens: 64}]`.  Rows are cut,
    so steps keep their positions and the samples their order; not for whole documents."""
    whole_documents: bool | None = None
    """True: documents are not torn (best fit); false: the stream is cut (blocks).  Left out: true for dialogues."""
    document_mask: bool = True
    """Whether a token sees its own document only, or all of the row that stands before it."""
    budget: Budget
    """How long."""
    seed: int | None = Field(default=None, ge=0)
    """Of the first weights, the order of the samples and all that is drawn; left out: the recipe's."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How gradients become updates."""
    schedule: Schedule = Schedule()
    """How the learning rate moves."""
    validation: Validation = Validation()
    """Measuring while training."""
    stop: Stop | None = None
    """Early stopping, besides the budget."""
    keep: Literal["last", "best"] = "last"
    """Which weights become the model: those of the last step, or of the step that measured best."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the channels of each block's two branches that are left out while learning (Srivastava et al. 2014);
    more keeps a model from learning small data by heart.  The masks follow from the sample alone."""
    average: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, which is then measured and kept; 0.999 is usual."""
    freeze: Freeze = Freeze()
    """Which parameters do not learn."""
    guard: Guard = Guard()
    """What happens when the loss leaps or runs away."""
    piece_tokens: int | None = plumbing(None, gt=0)
    """Positions that go through the network at once; smaller needs less memory.  The gradient stays the same."""
    recompute: bool | None = plumbing(None)
    """Compute each block again in the backward pass instead of keeping what it made (activation checkpointing): the
    same bits, a third more arithmetic, a fraction of the memory.  Left out: where nothing else makes it fit."""
    precision: Literal["auto", "fp32", "bf16", "float8"] = "auto"
    """The type of the products; weights, sums and optimizer state stay fp32.  `auto`: bf16 where the device has it.
    `float8` multiplies the blocks' matrices in 8 bits with a scale for each row, on cards that have it."""
    compile: Literal["auto", "never", "always"] = plumbing("auto")
    """Compile the blocks.  `auto`: where a probe of one block, made once per machine, says that this run will end
    earlier; runs under half an hour on a CPU, or two minutes on a GPU, are not probed."""
    sharding: Sharding = plumbing("auto")
    """How several processes share weights, gradients and optimizer state.  `replicate`: whole on each; `shard`: cut
    over all (FSDP, ZeRO 3), least memory; `hybrid`: cut within groups that repeat one another, so that gathering stays
    on a host's fast links; `auto`: whole where that fits, else cut within a host, else over all."""
    shard_processes: int | None = plumbing(None, ge=2)
    """`hybrid`: processes of one group; left out: those of a host."""
    exact_sums: bool | None = plumbing(None)
    """Cut each step into the same pieces on any number of processes (eight at least) and add their gradients up
    without rounding: the same bits on 1, 2 or 8 processes with as many threads each, for 8 bytes per parameter, and
    however the state is cut.  Left out: where the shares of a `mixture` follow the losses, so that the samples stay the
    same."""
    save_every_seconds: float = plumbing(60.0, gt=0)
    """Time between checkpoints; a kill loses at most so much work."""
    keep_for_replay: int = plumbing(0, ge=0)
    """Checkpoints, spread evenly over the run, that stay in the artifact: `wuxing verify --replay` starts from them."""
    keep_checkpoints: int = plumbing(2, ge=1)
    """How many of the last ones stay on the disk, besides the best."""

    def kept_steps(self, steps: int) -> frozenset[int]:
        """The steps whose checkpoints stay in the artifact."""
        turns = self.keep_for_replay
        return frozenset(max(1, round(steps * turn / (turns + 1))) for turn in range(1, turns + 1))

    @property
    def adds_exactly(self) -> bool:
        """Whether sums must not depend on the number of processes."""
        return self.mixture is not None if self.exact_sums is None else self.exact_sums

    @property
    def step_positions(self) -> int:
        """Positions of one optimizer step; with a task, the most there can be."""
        if self.rollout is not None:
            return self.rollout.replies() * self.length_tokens
        return self.batch_tokens or 0

    @property
    def measurements(self) -> float:
        """How many times the cost of a measurement of `validation` is paid in a run."""
        looks = self.mixture.times * self.mixture.tokens / self.validation.tokens if self.mixture else 0.0
        return (2 if self.validation.every_steps else self.validation.times + 1) + looks

    @model_validator(mode="after")
    def _fits(self) -> ModelConfig:
        both = [("architecture", "start_from"), ("tokenizer", "start_from"), ("data", "task")]
        for one, other in both:
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"{one} and {other} contradict each other: give one of them")
        if self.architecture is None and self.start_from is None:
            raise ValueError("neither architecture nor start_from says what to train: give one of them")
        if self.architecture is not None and self.tokenizer is None:
            raise ValueError("architecture needs a tokenizer beside it")
        self._fits_objective()
        if wrong := contradiction(self.data or {}, self.phases) or ramp.contradiction(self):
            raise ValueError(wrong)
        if self.mixture is not None:
            if self.phases:
                raise ValueError("mixture and phases contradict each other: shares follow the losses, or a list")
            if len(self.data or {}) < 2 or self.mixture.min_share * len(self.data or {}) > 1:
                raise ValueError("mixture needs several data sets, and room for mixture.min_share of each")
        if self.budget.epochs is not None and len(self.data or {}) > 1:
            raise ValueError("budget.epochs and several data sets contradict each other: give steps or tokens")
        if self.architecture is not None and self.length_tokens > self.architecture.max_positions:
            raise ValueError("length_tokens is above architecture.max_positions: lower the one or raise the other")
        if self.batch_tokens is not None and self.batch_tokens < self.length_tokens:
            raise ValueError("batch_tokens is below length_tokens: a step holds one row at least")
        return self

    def _fits_objective(self) -> None:
        learns_by_reward = self.objective.grpo is not None
        word = self.objective.chosen
        needed = ("task", "rollout") if learns_by_reward else ("data", "batch_tokens")
        of_data = ("data", "batch_tokens", "batch_ramp", "length_ramp", "curriculum", "mixture")
        foreign = of_data if learns_by_reward else ("task", "rollout")
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"objective {word} needs {name}")
        for name in foreign:
            if getattr(self, name) not in (None, ()):
                raise ValueError(f"{name} and objective {word} contradict each other: take one of them out")
        for name in ("mixture", "length_ramp", "whole_documents") if self.objective.classify is not None else ():
            if getattr(self, name) not in (None, ()):
                raise ValueError(f"{name} and objective classify contradict each other: take one of them out")
        if self.validation.tasks and (self.objective.classify or self.objective.masked) is not None:
            raise ValueError(f"validation.tasks and objective {word} contradict each other: it writes no replies")
        attention = self.architecture.attention if self.architecture is not None else None
        if attention == "causal" and self.objective.masked is not None:
            raise ValueError(
                "architecture.attention causal and objective masked contradict each other: it sees both ways"
            )
        if attention == "bidirectional" and (self.objective.next_token or self.objective.grpo) is not None:
            raise ValueError(
                f"architecture.attention bidirectional and objective {word} contradict each other: a token would see "
                "what it is to predict"
            )
        if learns_by_reward and self.exact_sums:
            raise ValueError(
                "exact_sums and objective grpo contradict each other: which replies are drawn together "
                "depends on the processes; take exact_sums out"
            )
        if learns_by_reward and self.dropout:
            raise ValueError("dropout and objective grpo contradict each other: replies are drawn without it")
        if self.rollout is not None and self.rollout.reply_tokens >= self.length_tokens:
            raise ValueError("rollout.reply_tokens leaves no room for the prompt in length_tokens")
