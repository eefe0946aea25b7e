"""What cleaning left behind, found by other means than those of cleaning: the evidence must be able to fail."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import TYPE_CHECKING

from wuxing.text.key import script_of

__all__ = ["MAY_BE_PRIVATE", "near_twins", "private_findings", "script_of"]

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

FILTER_BITS = 24
"""The sample's shingles are looked up by so many bits first: nearly all others go no further."""
_AROUND = "\"'`<>()[]{}.,;:!?|=*_/\\“”‘’«»（）【】《》，。；：！？、~#&-+%"
_CARD_STARTS = "23456"
MAY_BE_PRIVATE = r"@|[0-9][0-9.\-]{6}"
"""RE2; any text in which `private_findings` finds something matches: an `@`, or a number of seven signs."""
_NUMBERED = re.compile(r"(version\s+)?((?<!\S)[^\s\d]*\d\S*)", re.IGNORECASE)
"""A word with a digit, and whether it is called a version."""


def private_findings(text: str) -> Counter[str]:
    """Mail and IP addresses, card and Chinese identity numbers, found by splitting at spaces: no shared pattern."""
    found: Counter[str] = Counter()
    if "@" in text:
        found["mail"] = sum(_is_mail(word) for word in text.split() if "@" in word)
    for match in _NUMBERED.finditer(text):
        before, word = match[1], match[2]
        if len(word) < 7:
            continue
        if word.count(".") >= 3 and not before:
            found["ip"] += _is_address(word.strip(_AROUND))
        if len(word) >= 13 and sum(map(str.isdigit, word)) >= 13:
            found["card"] += _is_card(word.strip(_AROUND))
            found["id_cn"] += _is_identity(word.strip(_AROUND))
    return +found


def _is_mail(word: str) -> bool:
    local, _, rest = word.rpartition("@")
    domain = "".join(takewhile(lambda c: c in ".-_" or (c.isalnum() and c < "\u0250"), rest)).strip(_AROUND)
    labels = domain.split(".")
    plain = all(label and all(c.isalnum() or c in "-_" for c in label) for label in labels)
    ends_well = len(labels) >= 2 and labels[-1].isalpha() and 2 <= len(labels[-1]) <= 24
    return local[-1:].isalnum() and local[-1:] < "\u0250" and plain and ends_well


def _is_address(word: str) -> bool:
    if word.count(".") != 3 or not word.replace(".", "").isdigit():
        return False
    try:
        address = ipaddress.IPv4Address(word)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast or word == "255.255.255.255")


def _is_card(word: str) -> bool:
    digits = word.replace("-", "")
    if not digits.isascii() or not digits.isdigit() or not 13 <= len(digits) <= 19 or digits[0] not in _CARD_STARTS:
        return False
    values = [int(d) for d in digits]
    for place in range(len(values) - 2, -1, -2):
        values[place] = sum(divmod(2 * values[place], 10))
    return len(set(digits)) > 1 and sum(values) % 10 == 0


def _is_identity(word: str) -> bool:
    body, check = word[:17], word[17:].upper()
    if not body.isascii() or not body.isdigit() or len(word) != 18 or body[0] == "0" or check not in "0123456789X":
        return False
    if not (1850 <= int(body[6:10]) <= 2100 and 1 <= int(body[10:12]) <= 12 and 1 <= int(body[12:14]) <= 31):
        return False
    remainder = 0  # ISO 7064: the number with its check character is 1 modulo 11, read from the left with radix 2
    for digit in body:
        remainder = (remainder + int(digit)) * 2 % 11
    return (remainder + (10 if check == "X" else int(check))) % 11 == 1


def near_twins(
    texts: Callable[[], Iterable[pyarrow.Array]], sampled: NDArray[np.int64], width: int, least: float = 0.0
) -> NDArray[np.float64]:
    """For each sampled document the largest exact Jaccard similarity of its shingle set with any other document's.

    A similarity below `least` may count as 0.  An inverted index over the shingles of the sample, no MinHash; `texts`
    gives the documents in chunks, twice.  Only the sample's shingles are held in memory.
    """
    import numpy as np

    mine = _sample_pairs(texts(), sampled, width)
    order = np.argsort(mine.astype(np.uint32), kind="stable")
    hashes, owners = mine.astype(np.uint32)[order], (mine >> np.uint64(32)).astype(np.int64)[order]
    my_sizes = np.bincount(owners, minlength=len(sampled))
    known = np.zeros(1 << FILTER_BITS, bool)
    known[hashes >> np.uint32(32 - FILTER_BITS)] = True
    best, first = np.zeros(len(sampled)), 0
    for chunk in texts():
        count = len(chunk)
        pairs, sizes = _shared_pairs(chunk, width, known)
        documents, theirs = (pairs >> np.uint64(32)).astype(np.int64), pairs.astype(np.uint32)
        left = np.searchsorted(hashes, theirs, side="left")
        repeats = np.searchsorted(hashes, theirs, side="right") - left
        places = np.repeat(left - np.cumsum(repeats) + repeats, repeats) + np.arange(repeats.sum())
        cells, shared = np.unique(owners[places] * count + np.repeat(documents, repeats), return_counts=True)
        mine_of, theirs_of = np.divmod(cells, max(1, count))
        close = (shared >= least * my_sizes[mine_of]) & (sampled[mine_of] != theirs_of + first)
        shared, mine_of, theirs_of = shared[close], mine_of[close], theirs_of[close]
        similar = shared / np.maximum(1, my_sizes[mine_of] + sizes(theirs_of) - shared)
        np.maximum.at(best, mine_of, similar)
        first += count
    return best


def _shared_pairs(
    texts: pyarrow.Array, width: int, known: NDArray[np.bool_]
) -> tuple[NDArray[np.uint64], Callable[[NDArray[np.int64]], NDArray[np.int64]]]:
    """`_pairs`, but only those whose shingle may stand in the sample; and the sizes of the whole sets of documents."""
    import numpy as np

    from wuxing.text.kernel import shingles

    hashes, ends = shingles(texts, width)
    there = np.flatnonzero(known[hashes >> np.uint32(32 - FILTER_BITS)])
    documents = np.searchsorted(ends, there, side="right").astype(np.uint64)
    values = np.unique(documents << np.uint64(32) | hashes[there].astype(np.uint64))

    def sizes(wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        different, place = np.unique(wanted, return_inverse=True)
        starts = np.concatenate([[0], ends])
        return np.array([len(np.unique(hashes[starts[n] : starts[n + 1]])) for n in different], np.int64)[place]

    return values, sizes


def _pairs(texts: pyarrow.Array, width: int) -> NDArray[np.uint64]:
    """Document number and shingle in one value each, sorted, without repeats."""
    import numpy as np

    from wuxing.text.kernel import shingles

    hashes, ends = shingles(texts, width)
    documents = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(ends, prepend=0))
    values = np.sort(documents << np.uint64(32) | hashes.astype(np.uint64))
    return values[np.diff(values, prepend=~values[:1]) != 0]


def _sample_pairs(texts: Iterable[pyarrow.Array], sampled: NDArray[np.int64], width: int) -> NDArray[np.uint64]:
    """`_pairs` of the sampled documents, numbered by their place in the sample."""
    import numpy as np

    parts, first = [np.empty(0, np.uint64)], 0
    for chunk in texts:
        inside = np.flatnonzero((sampled >= first) & (sampled < first + len(chunk)))
        if len(inside):
            offset = np.uint64(int(inside[0])) << np.uint64(32)
            parts.append(_pairs(chunk.take(sampled[inside] - first), width) + offset)
        first += len(chunk)
    return np.concatenate(parts)
