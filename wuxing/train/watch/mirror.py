"""The log of a run, sent on to a tracker: each line once, whatever is killed and however often this is asked for.

Training knows nothing of it.  Another process reads what the run has written, so that a slow tracker, or one that
cannot be reached, costs a run neither time nor bits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from wuxing.core.file import read_json, write_json
from wuxing.train.plan.budget import START
from wuxing.train.run import LOG
from wuxing.train.watch.adjust import ADJUSTED

Setting = str | int | float | bool
RECORD = "record.json"
LEFT_OUT = ("step", "spike")
"""Keys of a log line that are no figures of their own."""


@dataclass(frozen=True)
class Subject:
    """The run that is mirrored, as a tracker shows it."""

    name: str
    identity: str
    """The same for all attempts of one run: the fingerprint of the artifact that it makes."""


class Tracker(Protocol):
    """Where figures go.  Steps never fall, but after `rewind`."""

    def begin(self, subject: Subject) -> None:
        """Open, or open again, the place of one run."""
        ...

    def settings(self, values: Mapping[str, Setting]) -> None:
        """What decided the run: `config.optimizer.kind`, `start.threads`, ...; more comes once it is signed."""
        ...

    def scalars(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        """Figures of one step; `seconds`: when that was, since 1970."""
        ...

    def note(self, step: int, text: str) -> None:
        """Something that happened: a knob, a leap of the loss."""
        ...

    def rewind(self, step: int) -> None:
        """What was sent of later steps is not so: the run went back."""
        ...

    def end(self, finished: bool) -> None:
        """Write all that is still held; `finished`: the run is over, and well."""
        ...


@dataclass
class Tail:
    """The complete lines of a file that grows, and that may be replaced by a shorter one."""

    path: Path
    _inode: int = -1
    _offset: int = 0

    def lines(self) -> Iterator[dict[str, Any]]:
        """Those that came since the last call; all of them again after a replacement."""
        try:
            stream = self.path.open("rb")
        except FileNotFoundError:
            return
        with stream:
            facts = os.fstat(stream.fileno())
            if facts.st_ino != self._inode or facts.st_size < self._offset:
                self._inode, self._offset = facts.st_ino, 0
            stream.seek(self._offset)
            for raw in stream:
                if not raw.endswith(b"\n"):
                    break
                self._offset += len(raw)
                yield json.loads(raw)


@dataclass
class Mirror:
    """One run and one tracker.  `state` remembers what was sent, over processes."""

    directory: Path
    subject: Subject
    tracker: Tracker
    state: Path
    _sent: dict[str, int] = field(default_factory=dict)
    _clock: float = 0.0

    def __post_init__(self) -> None:
        self._sent = {"step": 0, "measured": -1, "rewinds": 0, "knobs": 0, "settings": 0}
        if self.state.exists():
            self._sent |= read_json(self.state)
        self._log = Tail(self.directory / LOG)
        self._rewinds = 0
        self._began = (self.directory / START).stat().st_mtime
        self._open = False

    def end(self, finished: bool) -> None:
        """Let go of the tracker, if it was needed."""
        if self._open:
            self.tracker.end(finished)

    def _tracker(self) -> Tracker:
        if not self._open:
            self.tracker.begin(self.subject)
            self._open = True
        return self.tracker

    def move(self, directory: Path) -> None:
        """The same run now lies in `directory`: its artifact was signed."""
        self.directory = directory
        self._log.path = directory / LOG

    def follow(self) -> int:
        """Send what is new; returns how many lines that were."""
        count = 0
        settings = self._settings()
        if len(settings) > self._sent["settings"]:
            self._tracker().settings(settings)
            self._sent["settings"] = len(settings)
            count += 1
        for line in self._log.lines():
            count += self._take(line)
        knobs = list(Tail(self.directory / ADJUSTED).lines())
        for knob in knobs[self._sent["knobs"] :]:
            self._tracker().note(knob["step"], f"{knob['knob']} = {knob['value']:g} ({knob['who']}: {knob['why']})")
            self._sent["knobs"] += 1
            count += 1
        if count:
            self.state.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.state, self._sent)
        return count

    def _settings(self) -> dict[str, Setting]:
        """What is known of the run by now; its config stands in the record of the signed artifact."""
        found = {}
        for name, path in (("start", self.directory / START), ("config", self.directory / RECORD)):
            if path.exists():
                value = read_json(path)
                found[name] = value["config"] if name == "config" else value
        return flat(found)

    def _take(self, line: Mapping[str, Any]) -> bool:
        step, sent = int(line["step"]), self._sent
        if "rewound" in line:
            self._rewinds += 1
            if self._rewinds <= sent["rewinds"]:
                return False
            sent |= {"step": step, "measured": min(step, sent["measured"]), "rewinds": self._rewinds}
            self._tracker().rewind(step)
            return True
        if "validation" in line:
            if step <= sent["measured"]:
                return False
            self._tracker().scalars(step, self._began + self._clock, _figures("validation/", line["validation"]))
            sent["measured"] = step
            return True
        self._clock += float(line.get("seconds", 0.0))
        if step <= sent["step"]:
            return False
        self._tracker().scalars(step, self._began + self._clock, _figures("train/", line))
        if line.get("spike"):
            self._tracker().note(step, f"the loss leapt: {', '.join(line['spike'][:8])}")
        sent["step"] = step
        return True


def _figures(prefix: str, values: Mapping[str, Any]) -> dict[str, float]:
    return {
        f"{prefix}{name}": float(value)
        for name, value in values.items()
        if name not in LEFT_OUT and isinstance(value, int | float)
    }


def flat(value: Any, path: str = "") -> dict[str, Setting]:
    """`{"optimizer": {"kind": "muon"}}` as `{"optimizer.kind": "muon"}`; what is None is left out."""
    if isinstance(value, Mapping):
        return {key: leaf for name, item in value.items() for key, leaf in flat(item, f"{path}.{name}").items()}
    if value is None:
        return {}
    return {path.removeprefix("."): value if isinstance(value, str | int | float | bool) else json.dumps(value)}
