"""Private data found by walking over characters and groups of digits: the independent check of redaction.

It shares no pattern with `clean/privacy.py`, and is not narrower: of whatever that step finds it finds the same kind.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator
from string import ascii_letters, ascii_uppercase, digits, hexdigits

PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
MAY_BE_PRIVATE = "|".join(
    (
        "[A-Za-z0-9_.+%'À-ɏ-]@[A-Za-z0-9À-ɏ]",
        "::[0-9A-Fa-f]|[0-9A-Fa-f]?(?::[0-9A-Fa-f]{0,4}){6}",
        r"[0-9](?:\.[0-9]{1,3}){3}",
        "[0-9]{13}|[0-9]{4}[ -][0-9]{4}[ -][0-9]{4}[ -][0-9]|3[0-9]{3}[ -][0-9]{6}[ -][0-9]{5}",
        r"\+[0-9](?:[ .()-]{0,3}[0-9]){7}",
        "1[3-9][0-9][ -]?[0-9]{4}[ -]?[0-9]{4}|0[0-9]{2,3}-[0-9]{7}",
        r"[2-9][0-9]{2}(?:[.-]|\) ?)[2-9][0-9]{2}[ .-][0-9]{4}|[0-9]{3}-[0-9]{2}-[0-9]{4}",
        "[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11}",
        f"[{PROVINCES}][A-Z][·•]?[A-Z0-9]{{5}}",
        "PRIVATE KEY-----|[spr]k[-_][A-Za-z0-9_-]{20}|A[KS]IA[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{35}",
        "gh[pousr]_[A-Za-z0-9]{30}|github_pat_|xox[abprs]-|hf_[A-Za-z0-9]{30}|eyJ[A-Za-z0-9_-]{8}",
    )
)
"""RE2: matches any text in which `private_findings` finds something."""
_WORD = frozenset(ascii_letters + digits + "_")
_LATIN = frozenset(ascii_letters + digits) | {chr(point) for point in range(0xC0, 0x250)}
_PLATE = frozenset(ascii_uppercase + digits) - {"I", "O"}
_PREFIXES = {
    **{f"{letter}k{sign}": ("-", 20, None) for letter in "spr" for sign in "-_"},
    **dict.fromkeys(("AKIA", "ASIA"), ("", 16, 16)),
    **{f"gh{letter}_": ("", 30, None) for letter in "pousr"},
    **{"github_pat_": ("_", 40, None), "AIza": ("-", 35, None), "hf_": ("", 30, None)},
    **{f"xox{letter}-": ("-", 10, None) for letter in "abprs"},
}
"""Of each key's beginning: what besides letters and digits follows, and how many signs at least and at most."""


class Text:
    """A text, and those of its groups of digits that stand together, seven signs of them at least."""

    def __init__(self, text: str):
        self.text = text
        self.groups = [
            (cluster.start() + group.start(), cluster.start() + group.end())
            for cluster in re.finditer(r"[0-9]+(?:[ .()-]{1,3}[0-9]+)*", text)
            if cluster.end() - cluster.start() >= 7
            for group in re.finditer("[0-9]+", cluster[0])
        ]

    def at(self, place: int) -> str:
        return self.text[place] if 0 <= place < len(self.text) else ""

    def digit(self, place: int) -> bool:
        return "0" <= self.at(place) <= "9"

    def free(self, first: int, end: int, number: bool = True) -> bool:
        """Whether a number from `first` to `end` is no part of a word or a longer number."""
        before, after = self.at(first - 1), self.at(end)
        if before in _WORD or before in (".", "-") or after in _WORD or after == "-":
            return False
        return not (number and after == "." and self.digit(end + 1))

    def run(self, place: int, characters: frozenset[str]) -> int:
        """Where the run of these characters ends."""
        while place < len(self.text) and self.text[place] in characters:
            place += 1
        return place

    def chains(self) -> Iterator[tuple[list[tuple[int, int]], list[str]]]:
        """Each one to four groups of digits in a row, with what stands between them: up to three signs.

        Behind a plus as many as sixteen, for numbers of other countries are written in groups of any size.
        """
        for first in range(len(self.groups)):
            gaps: list[str] = []
            most = 16 if self.at(self.groups[first][0] - 1) == "+" else 4
            for last in range(first, min(first + most, len(self.groups))):
                if last > first:
                    gap = self.text[self.groups[last - 1][1] : self.groups[last][0]]
                    if len(gap) > 3 or gap.strip(" .()-"):
                        break
                    gaps = [*gaps, gap]
                yield self.groups[first : last + 1], gaps


def private_findings(text: str) -> Counter[str]:
    """How much private data of each kind a text holds."""
    held = Text(text)
    found = Counter({kind: search(held) for kind, search in SEARCHES.items()})
    for groups, gaps in held.chains():
        if groups[-1][1] - groups[0][0] < 7:
            continue
        found["ip"] += _is_ipv4(held, groups, gaps)
        found["card"] += _is_card(held, groups, gaps)
        found["id_cn"] += len(groups) == 1 and _is_identity(held, *groups[0])
        found["ssn_us"] += _is_social_security(held, groups, gaps)
        found["phone"] += any(rule(held, groups, gaps) for rule in (_is_abroad, _is_mobile, _is_fixed, _is_american))
    return +found


Gaps = list[str]
Groups = list[tuple[int, int]]


def _places(text: str, sign: str) -> Iterator[int]:
    place = text.find(sign)
    while place >= 0:
        yield place
        place = text.find(sign, place + 1)


def _count_mails(held: Text) -> int:
    return sum(_is_mail(held, place) for place in _places(held.text, "@"))


def _is_mail(held: Text, place: int) -> bool:
    text, first = held.text, place
    while first and place - first < 256 and (text[first - 1] in _LATIN or text[first - 1] in "_.+%'-"):
        first -= 1
    if not text[first:place].strip("'.+%-"):
        return False
    domain = text[place + 1 : held.run(place + 1, _LATIN | set("_.-"))]
    labels = domain.split(".")
    for count in range(len(labels), 1, -1):
        *names, last = labels[:count]
        top = last[: next((n for n, c in enumerate(last) if c not in ascii_letters), len(last))]
        whole = len(top) == len(last) or last[len(top)] not in "-" + digits
        if all(_is_label(name) for name in names) and 2 <= len(top) <= 24 and whole:
            return True
    return False


def _is_label(name: str) -> bool:
    return 0 < len(name) <= 63 and name[0] in _LATIN and name[-1] in _LATIN


def _is_ipv4(held: Text, groups: Groups, gaps: Gaps) -> bool:
    if len(groups) != 4 or gaps != [".", ".", "."] or any(end - first > 3 for first, end in groups):
        return False
    first, end = groups[0][0], groups[3][1]
    if held.at(first - 1) in _WORD | {".", ":", "-"} or held.text[:first].endswith(("version ", "Version ")):
        return False
    after = held.run(end, _WORD | {":"})
    if after > end and held.at(after) == "." and held.at(after - 1) != ":":
        return False
    if held.at(end) in (".", "-") and held.digit(end + 1):
        return False
    return _is_public(held.text[first:end])


def _is_public(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (found.is_loopback or found.is_unspecified or found.is_multicast or address == "255.255.255.255")


def _count_ipv6(held: Text) -> int:
    count, end = 0, 0
    inside = _WORD | {":", "."}
    for place in _places(held.text, ":"):
        if place < end:
            continue
        first = place
        while first and held.text[first - 1] in inside:
            first -= 1
        end = held.run(place, inside)
        word = held.text[first:end]
        fits = 2 <= word.count(":") <= 7 and not word.strip(hexdigits + ":") and word[-1] != ":" and len(word) > 6
        count += fits and any(c in digits for c in word) and _is_public(word)
    return count


def _luhn(number: str) -> bool:
    values = [int(digit) for digit in number]
    for place in range(len(values) - 2, -1, -2):
        values[place] = sum(divmod(2 * values[place], 10))
    return len(set(number)) > 1 and sum(values) % 10 == 0


def _is_of_a_network(number: str) -> bool:
    size, two, four = len(number), int(number[:2]), int(number[:4])
    visa = number[0] == "4" and size in (13, 16, 19)
    diners, express = two in (30, 36, 38, 39) and size == 14, two in (34, 37) and size == 15
    jcb = two == 35 and size == 16
    mastercard = size == 16 and (51 <= two <= 55 or 2221 <= four <= 2720)
    maestro = 16 <= size <= 19 and (two in (50, 56, 57, 58) or two in (60, 62, 63, 64, 65, 67))
    return visa or diners or express or jcb or mastercard or maestro


def _is_card(held: Text, groups: Groups, gaps: Gaps) -> bool:
    sizes = [end - first for first, end in groups]
    number = "".join(held.text[first:end] for first, end in groups)
    if len(groups) == 1:
        shaped = 13 <= sizes[0] <= 19
    elif len(groups) == 4:
        shaped = sizes[:3] == [4, 4, 4] and sizes[3] <= 7 and gaps in ([" "] * 3, ["-"] * 3)
    else:
        shaped = sizes == [4, 6, 5] and number[0] == "3" and all(gap in (" ", "-") for gap in gaps)
    free = shaped and len(number) >= 13 and held.free(groups[0][0], groups[-1][1])
    return free and _is_of_a_network(number) and _luhn(number)


def _is_identity(held: Text, first: int, end: int) -> bool:
    size = end - first
    if size == 17 and held.at(end) in ("X", "x"):
        end += 1
    if end - first != 18 or held.at(first) == "0" or not held.free(first, end, number=False):
        return False
    body, check = held.text[first : first + 17], held.text[end - 1].upper()
    if not (1850 <= int(body[6:10]) <= 2100 and 1 <= int(body[10:12]) <= 12 and 1 <= int(body[12:14]) <= 31):
        return False
    remainder = 0  # ISO 7064: the number with its check character is 1 modulo 11, read from the left with radix 2
    for digit in body:
        remainder = (remainder + int(digit)) * 2 % 11
    return (remainder + (10 if check == "X" else int(check))) % 11 == 1


def _is_social_security(held: Text, groups: Groups, gaps: Gaps) -> bool:
    if [end - first for first, end in groups] != [3, 2, 4] or gaps != ["-", "-"]:
        return False
    area, pair, serial = (held.text[first:end] for first, end in groups)
    valid = area not in ("000", "666") and area[0] != "9" and pair != "00" and serial != "0000"
    return valid and held.free(groups[0][0], groups[2][1])


def _is_abroad(held: Text, groups: Groups, gaps: Gaps) -> bool:
    first = groups[0][0]
    if held.at(first - 1) != "+" or held.at(first - 2) in _WORD | {"+"}:
        return False
    joined = all(gap.removeprefix(")").removesuffix("(") in ("", " ", ".", "-") for gap in gaps)
    decimal = held.at(groups[-1][1]) == "." and held.digit(groups[-1][1] + 1)
    return joined and not decimal and 8 <= sum(end - first for first, end in groups) <= 15


def _is_mobile(held: Text, groups: Groups, gaps: Gaps) -> bool:
    if len(groups) > 4 or any(gap not in (" ", "-") for gap in gaps):
        return False
    number, cuts = "", set()
    for first, end in groups:
        cuts.add(len(number))
        number += held.text[first:end]
    if len(number) == 13 and number.startswith("86"):
        number, allowed = number[2:], {0, 2, 5, 9}
    else:
        allowed = {0, 3, 7}
    shaped = len(number) == 11 and number[0] == "1" and number[1] in "3456789" and cuts <= allowed
    return shaped and held.free(groups[0][0], groups[-1][1])


def _is_fixed(held: Text, groups: Groups, gaps: Gaps) -> bool:
    sizes = [end - first for first, end in groups]
    shaped = gaps == ["-"] and sizes[0] in (3, 4) and sizes[1] in (7, 8) and held.at(groups[0][0]) == "0"
    return shaped and held.free(groups[0][0], groups[1][1], number=False)


def _is_american(held: Text, groups: Groups, gaps: Gaps) -> bool:
    if [end - first for first, end in groups[-3:]] != [3, 3, 4] or len(groups) > 4:
        return False
    (first, _), (second, _), (_, end) = groups[-3:]
    if held.at(first) in ("0", "1") or held.at(second) in ("0", "1") or gaps[-1] not in (" ", ".", "-"):
        return False
    opened = gaps[-2] in (")", ") ")
    if held.at(first - 1) != "(" if opened else gaps[-2] not in (".", "-"):
        return False
    start = first - opened
    if len(groups) == 4:
        leading = held.text[groups[0][0] : groups[0][1]] == "1" and start - groups[0][1] == 1
        return leading and held.at(start - 1) in (" ", ".", "-") and held.free(groups[0][0], end)
    return held.free(start, end)


def _count_accounts(held: Text) -> int:
    from wuxing.corpus.clean.privacy import IBAN_LENGTHS

    count = 0
    for match in re.finditer("[A-Z]{2}(?=[0-9]{2})", held.text):
        account, place = "", match.start()
        length = IBAN_LENGTHS.get(match[0])
        if not length or held.at(place - 1) in _WORD or held.at(place - 1) == "-":
            continue
        while len(account) < length and held.at(place) and held.at(place) in ascii_uppercase + digits + " ":
            if held.at(place) == " " and held.at(place - 1) == " ":
                break
            account += held.at(place).strip()
            place += 1
        value = 0
        for sign in account[4:] + account[:4]:
            value = (value * (10 if sign in digits else 100) + int(sign, 36)) % 97
        ended = held.at(place) not in frozenset(ascii_uppercase + digits)
        count += len(account) == length and ended and value == 1
    return count


def _count_plates(held: Text) -> int:
    count = 0
    for match in re.finditer(f"[{PROVINCES}]", held.text):
        place = match.start()
        if held.at(place + 1) not in _PLATE or held.digit(place + 1):
            continue
        first = place + 2 + (held.at(place + 2) in ("·", "•"))
        number = held.text[first : held.run(first, frozenset(ascii_letters + digits))]
        fits = 5 <= len(number) <= 6 and set(number) <= _PLATE and any(c in digits for c in number)
        count += fits and held.at(place - 1) not in frozenset(ascii_letters)
    return count


def _count_keys(held: Text) -> int:
    text, count = held.text, 0
    for prefix, (signs, least, most) in _PREFIXES.items():
        inside = frozenset(
            (ascii_uppercase if most else ascii_letters) + digits + signs + ("_" if signs == "-" else "")
        )
        for place in _places(text, prefix):
            end = held.run(place + len(prefix), inside)
            size = end - place - len(prefix)
            fits = size >= least and (most is None or (size == most and held.at(end) not in _WORD))
            count += fits and held.at(place - 1) not in _WORD
    for place in _places(text, "-----BEGIN "):
        name = text[place + 11 : held.run(place + 11, frozenset(ascii_uppercase + " "))]
        count += name.endswith("PRIVATE KEY") and text.startswith("-----", place + 11 + len(name))
    inside = frozenset(ascii_letters + digits + "_-")
    for place in _places(text, "eyJ"):
        first = held.run(place, inside)
        second = held.run(first + 1, inside)
        dots = held.at(first) == "." and held.at(second) == "." and text.startswith("eyJ", first + 1)
        sizes = first - place >= 11 and second - first >= 12 and held.run(second + 1, inside) - second > 8
        count += dots and sizes and held.at(place - 1) not in _WORD
    return count


SEARCHES: dict[str, Callable[[Text], int]] = {
    "mail": _count_mails,
    "ip": _count_ipv6,
    "iban": _count_accounts,
    "plate_cn": _count_plates,
    "key": _count_keys,
}
"""Kinds that are not found among groups of digits alone."""
