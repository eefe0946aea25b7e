"""The rule by which a reply's final number is read.

1. If the reply holds a mark (`=`, `answer is`, `answer:`, `equals`, `####`, `答案是`, `等于`), only what
   follows its last mark counts; otherwise the whole reply does.
2. Sums that stand there unevaluated (`7 + 5`, `7 plus 5`) are left out: repeating the question is no answer.
3. Exactly one number must remain.  None, or several, is no answer: hedging earns nothing.
"""

from __future__ import annotations

import re
from decimal import Decimal

_NUMBER = r"[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_OPERATOR = r"(?:[-+−*×·xX/÷]|plus|minus|times|multiplied by|divided by|加|减|乘以?|除以)"
_EXPRESSION = re.compile(rf"{_NUMBER}(?:\s*{_OPERATOR}\s*{_NUMBER})+(?:\s*{_OPERATOR})?")
_MARK = re.compile(r"=|####|\bequals?\b|\banswer\b(?:\s+is\b)?\s*:?|答案(?:是|为)?[:：]?|等于", re.IGNORECASE)
_FINAL = re.compile(_NUMBER)


def final_number(reply: str) -> Decimal | None:
    """The one number to which `reply` commits itself, or None."""
    statement = reply[_last_mark(reply) :]
    numbers = _FINAL.findall(_EXPRESSION.sub(" ", statement))
    if len(numbers) != 1:
        return None
    return Decimal(numbers[0].replace(",", "").replace("−", "-"))


def _last_mark(reply: str) -> int:
    end = 0
    for mark in _MARK.finditer(reply):
        end = mark.end()
    return end
