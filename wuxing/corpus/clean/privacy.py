"""Private data replaced by their kind: `<mail>`, `<phone>`, `<ip>`, `<card>`, `<id_cn>`, `<key>`.

Numbers with a check digit are replaced only when it fits, so that ordinary numbers stay.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wuxing.core.context import Context
from wuxing.core.error import UsageError
from wuxing.corpus.clean.cleaner import Cleaned, Notes
from wuxing.corpus.clean.config import PRIVATE_KINDS, PrivacyConfig, PrivateKind
from wuxing.corpus.clean.text_cleaner import TextCleaner, replaced
from wuxing.text.scan import MARKS, marks

if TYPE_CHECKING:
    import pyarrow


class Rule(NamedTuple):
    """One spelling of a kind of private data."""

    pattern: re.Pattern[str]
    valid: Callable[[str], bool] | None = None
    """What else must hold of a match."""
    part: Callable[[re.Match[str]], tuple[int, int] | None] | None = None
    """Where the private data begin and end, if they are not the match itself; None: there are none."""
    mark: str | None = None
    """The mark that texts with a match have (`text/scan.py`); None: the kind's name."""

    def span(self, match: re.Match[str]) -> tuple[int, int] | None:
        """Where the private data of a match begin and end."""
        if self.part is not None:
            return self.part(match)
        return match.span() if self.valid is None or self.valid(match[0]) else None


def luhn(digits: str) -> bool:
    """Whether the last digit is Luhn's check digit (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


CARD_NETWORKS: dict[int, str] = {
    13: "4",
    14: "30|36|38|39",
    15: "34|37",
    16: "4|5[0-8]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720|35|6[02-57]",
    17: "5[06-8]|6[02-57]",
    18: "5[06-8]|6[02-57]",
    19: "4|5[06-8]|6[02-57]",
}
"""How numbers of each length begin: Visa, Diners, American Express, Mastercard, JCB, UnionPay, Discover, Maestro."""


def is_card(text: str) -> bool:
    """A number of a card network's range and length with a fitting check digit."""
    digits = re.sub(r"\D", "", text)
    begins = CARD_NETWORKS.get(len(digits))
    return begins is not None and re.match(begins, digits) is not None and len(set(digits)) > 1 and luhn(digits)


def is_chinese_id(text: str) -> bool:
    """A resident identity number: date of birth and check character (GB 11643-1999, ISO 7064 MOD 11-2)."""
    year, month, day = int(text[6:10]), int(text[10:12]), int(text[12:14])
    if not (1850 <= year <= 2100 and 1 <= month <= 12 and 1 <= day <= 31):
        return False
    total = sum(int(digit) * (2 ** (17 - place) % 11) for place, digit in enumerate(text[:17]))
    return "10X98765432"[total % 11] == text[17].upper()


def account_span(match: re.Match[str]) -> tuple[int, int] | None:
    """A bank account (ISO 13616): of a country that has them, of its length there, 1 modulo 97."""
    account, end = "", 0
    length = IBAN_LENGTHS.get(match[0][:2], 0)
    for end, sign in enumerate(match[0] + " "):  # noqa: B007
        if len(account) == length:
            break
        account += sign.strip()
    if not length or len(account) != length or match[0][end : end + 1].strip():
        return None
    fits = int("".join(str(int(sign, 36)) for sign in account[4:] + account[:4])) % 97 == 1
    return (match.start(), match.start() + end) if fits else None


def is_public_address(text: str) -> bool:
    """An IP address that is not the machine's own (loopback) or none at all (unspecified, broadcast)."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast or text == "255.255.255.255")


def phone_span(match: re.Match[str]) -> tuple[int, int] | None:
    """The longest opening of groups that has 8 to 15 digits (ITU-T E.164) and no decimals behind it."""
    digits, end = 0, 0
    for group in re.finditer("[0-9]+", match[0]):
        digits += len(group[0])
        decimal = re.match(r"\.[0-9]", match.string[match.start() + group.end() :][:2])
        if 8 <= digits <= 15 and not decimal:
            end = group.end()
    return (match.start(), match.start() + end) if end else None


def mail_span(match: re.Match[str]) -> tuple[int, int] | None:
    """A mail address from its domain: what stands before the sign belongs to it, without quotation marks."""
    before = match.string[max(0, match.start() - 256) : match.start()]
    local = before[len(before.rstrip(_LOCAL)) :].lstrip("'.%+-")
    return (match.start() - len(local), match.end()) if local else None


def is_long_ipv6(text: str) -> bool:
    """A public IPv6 address that is no time of day and no pair of short numbers."""
    return len(text) > 6 and any(character.isdigit() for character in text) and is_public_address(text)


_PRIVATE_KEY = r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
_KEYS = (
    "[spr]k[-_][A-Za-z0-9_-]{20,}",
    r"A[KS]IA[0-9A-Z]{16}\b",
    "gh[pousr]_[A-Za-z0-9]{30,}",
    "github_pat_[A-Za-z0-9_]{40,}",
    "AIza[0-9A-Za-z_-]{35}",
    "xox[abprs]-[0-9A-Za-z_-]{10,}",
    "hf_[A-Za-z0-9]{30,}",
    r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
)
"""Of OpenAI and Stripe, Amazon, GitHub, Google, Slack, Hugging Face; JSON web tokens."""
_MAIL_LETTER = "A-Za-z0-9\u00c0-\u024f"
"""Not `\\w`: in Chinese text an address follows the word before it without a space."""
_DOMAIN = f"@(?:[{_MAIL_LETTER}](?:[{_MAIL_LETTER}_-]{{0,61}}[{_MAIL_LETTER}])?\\.)+[A-Za-z]{{2,24}}(?![A-Za-z0-9-])"
_LOCAL = "".join(filter(re.compile(f"[{_MAIL_LETTER}_.+%'-]").match, map(chr, range(0x250))))
_CARD = r"(?<![\w.-])(?:\d{13,19}|\d{4}([ -]?)\d{4}\1\d{4}\1\d{1,7}|3\d{3}[ -]\d{6}[ -]\d{5})(?![\w-]|\.\d)"
_IPV4 = r"(?<![\w.:-])(?<![vV]ersion )(?:\d{1,3}\.){3}\d{1,3}(?![\w:]*\w\.|\.\d|\d|-\d)"
_IPV6 = r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}(?![\w:.])"
_ABROAD = r"(?<![\w+])\+\d+(?:(?=[ .()-])\)?[ .-]?\(?\d+)*"
_CHINA_MOBILE = r"(?<![\w.-])(?:86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}(?![\w-]|\.\d)"
_CHINA_FIXED = r"(?<![\w.-])0\d{2,3}-\d{7,8}(?![\w-])"
_NORTH_AMERICA = r"(?<![\w.-])(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[.-])[2-9]\d\d[ .-]\d{4}(?![\w-]|\.\d)"

_IBAN = r"(?<![\w-])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}"
_SSN = r"(?<![\w.-])(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-]|\.\d)"
_PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_PLATE = f"(?<![A-Za-z])[{_PROVINCES}][A-HJ-NP-Z][·•]?(?:(?=[A-Z]*[0-9])[A-HJ-NP-Z0-9]{{5,6}})(?![A-Za-z0-9])"
_IBANS = """15 NO;16 BE;18 DK FI FO GL NL;19 MK SI;20 AT BA EE KZ LT LU XK;21 CH HR LI LV
22 BG BH CR DE GB GE IE ME RS;23 AE GI IL IQ TL OM;24 AD CZ ES MD PK RO SA SE SK TN VG;25 LY PT ST;26 IS TR
27 BI FR GR IT MC SM MR DJ;28 AL AZ BY CY DO GT HU LB PL SV NI;29 BR EG PS QA UA;30 JO KW MU;31 MT SC;32 LC;33 RU"""
IBAN_LENGTHS = {
    country: int(row[:2]) for line in _IBANS.split("\n") for row in line.split(";") for country in row[3:].split()
}
"""Characters of an account's number by country (IBAN registry)."""

RULES: dict[PrivateKind, tuple[Rule, ...]] = {
    "key": (Rule(re.compile(_PRIVATE_KEY, re.S)), Rule(re.compile(f"\\b(?:{'|'.join(_KEYS)})", re.A))),
    "mail": (Rule(re.compile(_DOMAIN), part=mail_span),),
    "id_cn": (Rule(re.compile(r"(?<![\w.-])[1-9]\d{16}[\dXx](?![\w-])", re.A), is_chinese_id),),
    "iban": (Rule(re.compile(_IBAN, re.A), part=account_span),),
    "card": (Rule(re.compile(_CARD, re.A), is_card),),
    "ip": (Rule(re.compile(_IPV4, re.A), is_public_address), Rule(re.compile(_IPV6, re.A), is_long_ipv6, mark="ipv6")),
    "ssn_us": (Rule(re.compile(_SSN, re.A)),),
    "plate_cn": (Rule(re.compile(_PLATE)),),
    "phone": (
        Rule(re.compile(_ABROAD, re.A), part=phone_span),
        Rule(re.compile(_CHINA_MOBILE, re.A), mark="phone_cn"),
        Rule(re.compile(_CHINA_FIXED, re.A), mark="phone_cn"),
        Rule(re.compile(_NORTH_AMERICA, re.A), mark="phone_us"),
    ),
}
"""In the order in which they are applied."""


EVERY_MARK = (1 << len(MARKS)) - 1


def mark_of(kind: PrivateKind, rule: Rule) -> int:
    """The bit of the mark that every text with a match of the rule has."""
    return 1 << MARKS.index(rule.mark or kind)


class Privacy(TextCleaner):
    """Replaces each finding by `<kind>` and counts it."""

    def __init__(self, kinds: tuple[PrivateKind, ...] = PRIVATE_KINDS, replacement: str = "<{kind}>"):
        super().__init__()
        self.kinds = kinds
        self.replacement = replacement
        self._rules = [(kind, mark_of(kind, rule), rule) for kind in RULES if kind in kinds for rule in RULES[kind]]
        self._parts = replacement[:1] == "<" and replacement[-1:] == ">"
        """Whether what stands on its two sides stays apart, so that no mark is missing after a replacement."""
        self._asked = 0
        for _, bit, _ in self._rules:
            self._asked |= bit

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The column and the facts kept beside it, redacted."""
        return Cleaned(self._redacted(values), notes=self.clean_facts(notes))

    def clean_facts(self, notes: Notes) -> dict[str, Sequence[Any]]:
        """Those columns of facts in which something was redacted."""
        import pyarrow as pa

        found: dict[str, Sequence[Any]] = {}
        for name, column in notes.items():
            texts = pa.array([value if isinstance(value, str) else "" for value in column], pa.large_string())
            redacted = self._redacted(texts)
            said = redacted.to_pylist() if redacted is not texts else [""] * len(column)
            new = [
                (text or value) if isinstance(value, str) else self._inside(value)
                for text, value in zip(said, column, strict=True)
            ]
            if new != list(column):
                found[name] = new
        return found

    def _redacted(self, values: pyarrow.Array) -> pyarrow.Array:
        import numpy as np

        found = marks(values) & np.uint32(self._asked)
        places = np.flatnonzero(found)
        hints = iter(found[places].tolist())
        return replaced(values, places, lambda text: self.change(text, next(hints)))

    def _inside(self, value: Any) -> Any:
        """A fact that is no string, with the strings inside it redacted."""
        if isinstance(value, str):
            return self.change(value)
        if isinstance(value, list | tuple):
            return [self._inside(one) for one in value]
        if isinstance(value, dict):
            return {name: self._inside(one) for name, one in value.items()}
        return value

    def change(self, text: str, hints: int = EVERY_MARK) -> str:
        """The redacted text; `hints`: the marks that it has (`text/scan.py`)."""
        for kind, bit, rule in self._rules:
            if hints & bit:
                new = self._replaced(text, kind, rule)
                if new is not text and not self._parts:
                    hints = EVERY_MARK
                text = new
        return text

    def _replaced(self, text: str, kind: str, rule: Rule) -> str:
        """The text without what the rule finds; the same object when there is nothing."""
        pieces: list[str] = []
        last, place = 0, 0
        while match := rule.pattern.search(text, place):
            span = rule.span(match)
            place = match.start() + 1 if span is None else span[1]
            if span is not None:
                first = max(last, span[0])
                pieces += [text[last:first], self.replacement.replace("{kind}", kind)]
                last = span[1]
                self.found[kind] += 1
        return "".join([*pieces, text[last:]]) if pieces else text


def build(config: PrivacyConfig, context: Context, fitted: Path | None = None) -> Privacy:
    """The step for a recipe."""
    for kind in config.kinds:
        put = config.replacement.replace("{kind}", kind)
        if Privacy(config.kinds).change(put) != put:
            raise UsageError(
                f'privacy.replacement: "{put}" looks like private data itself', 'Write something like "<{kind}>"'
            )
    return Privacy(config.kinds, config.replacement)
