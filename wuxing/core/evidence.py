"""Evidence: what a step measured about its own result, and the verdict that the next step waits for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from wuxing.core.file import read_json

Verdict = Literal["passed", "failed", "measured"]


@dataclass(frozen=True)
class Check:
    """One measured fact.  `measured` states a value without judging it; the other two judge it against `threshold`."""

    name: str
    verdict: Verdict
    value: Any = None
    threshold: Any = None
    note: str = ""


@dataclass
class Evidence:
    """The checks of one artifact, in the order in which they were made."""

    checks: list[Check] = field(default_factory=list)

    def judge(self, name: str, passed: bool, value: Any = None, threshold: Any = None, note: str = "") -> bool:
        """Record a check that can fail; returns `passed` so that a step may stop early."""
        self._add(Check(name, "passed" if passed else "failed", value, threshold, note))
        return passed

    def measure(self, name: str, value: Any, note: str = "") -> None:
        """Record a figure that nothing depends on."""
        self._add(Check(name, "measured", value, None, note))

    def _add(self, check: Check) -> None:
        if any(check.name == other.name for other in self.checks):
            raise AssertionError(f"evidence {check.name} was given twice")
        self.checks.append(check)

    def value(self, name: str) -> Any:
        """The value of the check `name`; KeyError when it was not made."""
        for check in self.checks:
            if check.name == name:
                return check.value
        raise KeyError(name)

    def failures(self, required: Iterable[str] = ()) -> list[str]:
        """One line for each check that failed and for each required one that is missing: no evidence is a failure."""
        made = {check.name for check in self.checks}
        lines = [_line(check) for check in self.checks if check.verdict == "failed"]
        return lines + [f"{name}: no evidence was left" for name in required if name not in made]

    def to_json(self) -> list[dict[str, Any]]:
        """The checks as JSON values."""
        return [asdict(check) for check in self.checks]

    @classmethod
    def load(cls, path: Path) -> Evidence:
        """Read `evidence.json`."""
        return cls([Check(**check) for check in read_json(path)])


def _line(check: Check) -> str:
    text = f"{check.name} is {_short(check.value)}"
    if check.threshold is not None:
        text += f", asked for {_short(check.threshold)}"
    return f"{text} ({check.note})" if check.note else text


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."
