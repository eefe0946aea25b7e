"""Directories as they are: circles, pipes, sockets, devices, names that are no text, files that go away."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from wuxing.core.context import Context
from wuxing.core.error import UsageError
from wuxing.core.record import Drop
from wuxing.source import open_source, rows_in, rows_of, source_digest
from wuxing.source.config import SourceConfig


def fates(path: Path | str) -> dict[str, str]:
    source = SourceConfig(files=str(path))
    rows = list(rows_in(source, Context(home=Path("/nowhere"))))
    found = {row.place: row.value.reason if isinstance(row.value, Drop) else row.value["text"] for row in rows}
    assert len(found) == len(rows)
    return found


def test_circles_of_links_end(tmp_path: Path) -> None:
    room = tmp_path / "d"
    for number in range(12):
        (room / f"{number:02}").mkdir(parents=True)
        (room / f"{number:02}" / "t.txt").write_text(str(number))
    for number in range(12):  # every directory links to every other, to itself and to the top
        for other in range(12):
            (room / f"{number:02}" / f"to{other:02}").symlink_to(room / f"{other:02}")
        (room / f"{number:02}" / "top").symlink_to(room)
    (room / "self").symlink_to(room / "self")
    began = time.monotonic()
    found = fates(room)
    assert time.monotonic() - began < 60  # followed, the links are 12! ways
    texts = {place: text for place, text in found.items() if text.isdigit()}
    assert texts == {f"{number:02}/t.txt#0": str(number) for number in range(12)}
    assert set(found.values()) - set(texts.values()) == {"symlink_loop", "linked_twice"}
    assert sum(reason == "symlink_loop" for reason in found.values()) == 12 + 12 + 1


def test_a_linked_directory_elsewhere_is_read(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "t.txt").write_text("far")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "d" / "broken.txt").symlink_to(tmp_path / "nothing")
    assert fates(tmp_path / "d") == {"broken.txt": "broken_link", "link/t.txt#0": "far"}


def test_what_is_no_regular_file_is_never_opened(tmp_path: Path) -> None:
    """Opening the pipe would wait for a writer for ever."""
    os.mkfifo(tmp_path / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.txt"))
        (tmp_path / "zero.txt").symlink_to("/dev/zero")
        (tmp_path / "t.txt").write_text("text")
        refused = dict.fromkeys(("pipe.txt", "socket.txt", "zero.txt"), "no_regular_file")
        assert fates(tmp_path) == {**refused, "t.txt#0": "text"}
        assert fates(f"{tmp_path}/*.txt") == {**refused, "t.txt#0": "text"}
        assert fates(tmp_path / "pipe.txt") == {"pipe.txt": "no_regular_file"}


def test_a_file_that_turns_into_a_pipe_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("text")
    source = SourceConfig(files=str(tmp_path))
    origin = open_source(source, Context(home=tmp_path))
    (tmp_path / "t.txt").unlink()
    assert [row.value.reason for part in origin.parts for row in rows_of(part, source)] == ["vanished"]
    os.mkfifo(tmp_path / "t.txt")
    assert [row.value.reason for part in origin.parts for row in rows_of(part, source)] == ["broken_file"]


def test_names_that_are_no_text_keep_apart(tmp_path: Path) -> None:
    for name in (b"a\xff.txt", b"a\\xff.txt", "ü.txt".encode(), b"a\nb.txt", b"x#1.txt"):
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_text(repr(name))
    found = fates(tmp_path)
    assert len(found) == 5
    assert all(place.encode() for place in found)
    assert sorted(found.values()) == sorted(
        map(repr, (b"a\xff.txt", b"a\\xff.txt", "ü.txt".encode(), b"a\nb.txt", b"x#1.txt"))
    )


def test_a_deep_tree_is_walked(tmp_path: Path) -> None:
    room = tmp_path / "d"
    room.mkdir()
    here = os.open(room, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("deeper-than-the-longest-path", dir_fd=here)
        below = os.open("deeper-than-the-longest-path", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    found = fates(room)
    assert list(found.values()) == ["unreachable"]


def test_the_digest_is_that_of_what_is_read(tmp_path: Path) -> None:
    room, context = tmp_path / "d", Context(home=tmp_path / "home")
    room.mkdir()
    (room / "t.txt").write_text("one")
    source = SourceConfig(files=str(room))
    before = source_digest(source, context)
    os.mkfifo(room / "pipe")
    with_pipe = source_digest(source, context)
    (room / "pipe").unlink()
    assert source_digest(source, context) == before != with_pipe


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        fates(tmp_path / "nothing.txt")
