"""Several processes find one another, or say by name who was not there."""

from __future__ import annotations

import socket

import pytest

from wuxing.compute.team import Team
from wuxing.core.error import WuxingError


@pytest.fixture
def taken() -> socket.socket:
    """A socket that holds a port of this host."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    return held


def test_a_rank_whose_lead_never_comes_says_so(taken: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Team, "_patience", 1.0)
    port = taken.getsockname()[1]  # nobody listens there
    with taken, pytest.raises(WuxingError, match=rf"rank 1 found no rank 0 at 127\.0\.0\.1:{port} within 1 s"):
        Team(1, 2, "127.0.0.1", port)


def test_a_lead_whose_port_is_taken_says_so(taken: socket.socket) -> None:
    taken.listen()
    port = taken.getsockname()[1]
    with taken, pytest.raises(WuxingError, match=rf"rank 0 cannot listen at 127\.0\.0\.1:{port}.*already in use"):
        Team(0, 2, "127.0.0.1", port)
