"""Aliases (`first-model@production`): an append-only log of who pointed what where, when and why."""

from __future__ import annotations

import getpass
from pathlib import Path

from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError, WuxingError, nearest
from wuxing.core.exchange import now
from wuxing.core.file import append_line, read_lines
from wuxing.core.lease import lock


class AliasLog:
    """The log.  Promoting pushes a target, rolling back returns to the one before; nothing is ever erased."""

    def __init__(self, path: Path):
        self.path = path

    def lines(self) -> list[dict[str, str]]:
        """Every change, oldest first."""
        return read_lines(self.path)

    def targets(self, name: str, alias: str) -> list[str]:
        """The ids that `name@alias` stood on, the present one last; rolled-back ones are gone from this list."""
        stack: list[str] = []
        for line in self.lines():
            if (line["name"], line["alias"]) != (name, alias):
                continue
            if line["action"] == "rollback":
                stack.pop()
            elif not stack or stack[-1] != line["to"]:
                stack.append(line["to"])
        return stack

    def current(self) -> dict[tuple[str, str], str]:
        """(name, alias) → id of the artifact it points at now."""
        pairs = {(line["name"], line["alias"]) for line in self.lines()}
        return {pair: self.targets(*pair)[-1] for pair in sorted(pairs)}

    def was_promoted(self, artifact: Artifact, alias: str) -> bool:
        """Whether this artifact ever stood under the alias."""
        return any(line["to"] == artifact.id and line["alias"] == alias for line in self.lines())

    def resolve(self, alias: str, name: str | None = None) -> str:
        """The id behind `name@alias`, or behind `@alias` where only one name has it."""
        return self.current()[(self._name(alias, name), alias)]

    def promote(self, artifact: Artifact, alias: str, why: str, who: str | None = None) -> str | None:
        """Point `alias` of the artifact's name at it; returns the id it pointed at before."""
        with lock(self.path.with_suffix(".lock")):
            before = self.targets(artifact.name, alias)
            previous = before[-1] if before else None
            if previous != artifact.id:
                self._write(artifact.name, alias, "promote", previous, artifact.id, why, who)
        return previous

    def rollback(self, alias: str, name: str | None, why: str, who: str | None = None) -> tuple[str, str]:
        """Point the alias back at its earlier target; returns (from, to).  WuxingError when there is none."""
        with lock(self.path.with_suffix(".lock")):
            name = self._name(alias, name)
            stack = self.targets(name, alias)
            if len(stack) < 2:
                raise WuxingError(
                    f"{name}@{alias} has no earlier target than {stack[-1]}",
                    f"Point it elsewhere with: wuxing promote ID {alias}",
                )
            self._write(name, alias, "rollback", stack[-1], stack[-2], why, who)
        return stack[-1], stack[-2]

    def _write(
        self, name: str, alias: str, action: str, before: str | None, to: str, why: str, who: str | None
    ) -> None:
        line = {"time": now(), "name": name, "alias": alias, "action": action, "from": before, "to": to}
        append_line(self.path, {**line, "who": who or current_user(), "why": why}, sync=True)

    def _name(self, alias: str, name: str | None) -> str:
        pairs = {(line["name"], line["alias"]) for line in self.lines()}
        names = sorted(known for known, a in pairs if a == alias and name in (None, known))
        if not names:
            wanted = f"{name}@{alias}" if name else f"@{alias}"
            raise UsageError(f"nothing was ever promoted to {wanted}", nearest(alias, {a for _, a in pairs}))
        if len(names) > 1:
            raise UsageError(f"@{alias} can mean {', '.join(f'{n}@{alias}' for n in names)}", "Write the name in front")
        return names[0]


def current_user() -> str:
    """The login name, for audit lines."""
    return getpass.getuser()
