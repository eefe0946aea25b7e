"""Keys, sessions and the rate: who may ask, and how often."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wuxing.core.error import UsageError, WuxingError
from wuxing.serve.key import KeyRing, create_key, ensure_key, list_keys, revoke_key
from wuxing.serve.limit import Rate
from wuxing.serve.session import HOURS, TICKET_MINUTES, Sessions


def test_a_key_is_kept_as_a_salted_hash_only(tmp_path: Path) -> None:
    first, second = create_key(tmp_path, "ann"), create_key(tmp_path, "ben")
    text = (tmp_path / "keys.json").read_text()
    assert first not in text and first[3:] not in text and second not in text
    assert len({entry.salt for entry in list_keys(tmp_path)}) == 2
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    ring = KeyRing(tmp_path)
    assert (ring.name_of(first), ring.name_of(second)) == ("ann", "ben")
    for wrong in ("", "wx-", first[:-1], first + "x", first.upper(), "\ud800", "ann"):
        assert ring.name_of(wrong) is None


def test_a_running_ring_sees_new_revoked_and_damaged_keys(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    assert ring.name_of("wx-anything") is None
    ann, ben = create_key(tmp_path, "ann"), create_key(tmp_path, "ben")
    assert ring.name_of(ann) == "ann"
    revoke_key(tmp_path, "ann")
    assert ring.name_of(ann) is None and not ring.holds("ann") and ring.name_of(ben) == "ben"
    (tmp_path / "keys.json").write_text('{"keys": [')
    assert ring.name_of(ben) is None
    (tmp_path / "keys.json").unlink()
    assert ring.name_of(ben) is None


def test_errors_name_the_remedy(tmp_path: Path) -> None:
    create_key(tmp_path, "ann")
    with pytest.raises(UsageError, match='there is already a key "ann"'):
        create_key(tmp_path, "ann")
    with pytest.raises(UsageError, match='there is no key "anne". Did you mean "ann"?'):
        revoke_key(tmp_path, "anne")
    with pytest.raises(UsageError, match="is no name for a key"):
        create_key(tmp_path, "../ann")
    (tmp_path / "keys.json").write_text("[]")
    with pytest.raises(WuxingError, match=r"keys.json is damaged .* Move it away and create new keys"):
        list_keys(tmp_path)


def test_two_first_servers_make_one_first_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: ensure_key(tmp_path), range(16)))
    made = [key for key in keys if key]
    assert len(made) == 1 and KeyRing(tmp_path).name_of(made[0]) == "first"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: create_key(tmp_path, f"k{n}"), range(16)))
    assert len(list_keys(tmp_path)) == 17
    assert len(json.loads((tmp_path / "keys.json").read_text())["keys"]) == 17


def test_a_ticket_opens_once_and_not_for_ever() -> None:
    now = [0.0]
    sessions = Sessions(clock=lambda: now[0])
    ticket = sessions.ticket()
    cookie = sessions.redeem(ticket)
    assert cookie and sessions.redeem(ticket) is None
    assert sessions.who(cookie) == ("page", False) and sessions.who(ticket) is None
    late = sessions.ticket()
    now[0] = TICKET_MINUTES * 60 + 1
    assert sessions.redeem(late) is None
    now[0] = HOURS * 3600 + 1
    assert sessions.who(cookie) is None


def test_the_rate_refills_evenly_and_per_key() -> None:
    now = [0.0]
    rate = Rate(60, clock=lambda: now[0])
    assert [rate.take("a") for _ in range(60)] == [0.0] * 60
    assert rate.take("a") == pytest.approx(1.0) and rate.take("b") == 0.0
    now[0] = 0.5
    assert rate.take("a") == pytest.approx(0.5)
    now[0] = 1.0
    assert rate.take("a") == 0.0 and rate.take("a") > 0
    assert [Rate(0).take("a") for _ in range(1000)] == [0.0] * 1000
