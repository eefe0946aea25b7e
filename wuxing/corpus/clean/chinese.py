"""Chinese: simplified or traditional, conversion by phrases (OpenCC), full width, half-translated pages.

The script of a document is told by characters that only one of the two has; those that are simplified forms but stand
in traditional texts as well (里, 后, 干, ...) say nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from wuxing.core.context import Context
from wuxing.core.record import Drop
from wuxing.corpus.clean.cleaner import Cleaned, Column, Notes
from wuxing.corpus.clean.filter_config import ChineseConfig
from wuxing.corpus.clean.lines import put

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

LETTER, HAN, SIMPLIFIED, TRADITIONAL, KANA = 1, 2, 3, 4, 5
_TOP = 0x323B0
_HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))
BOTH = (
    "里却峰云征斗荆干挂游采余于岳台占咸迹烟脚栖后几凶辟熏凭范秘脉吁恒笋朴尸衮咨虬姹耻葱踪苧皂叶床凉丑灾猪膻岩麽强夸涌洼緼"
    "兹遥筑唇群郁冲蘖苹虱肴么准亘沄醖袜咤撑雇蜡悮涂藴溆咏疴蒀卧吃碍眦晒蝎凄并虫体跖个馀腊幂柜确杰洒仆汹况厦叙只面了舍松钟"
    "制系表复发向回合家志念才扎托折旋曲杆板欲注淀灶炼症碱秋种穗签粘累绷胡致芸苏术谷谥赞赝跡辛辟郁采针钩饥卷卜升吊同周困奸姜"
)
"""Simplified forms that traditional texts have too: those of 20,000 Tang poems, and those with several originals."""
MIXED_SHARE = 0.1
"""A document is mixed when the rarer script has more than this share of the telling characters ..."""
MIXED_CHARACTERS = 3
"""... and at least so many of them."""
CONFIGS = {"simplified": "t2s", "traditional": "s2t", "taiwan": "s2twp", "hongkong": "s2hk"}
CHARACTERS_PER_WORD = 1.6
"""Han characters that say as much as one English word: the measured ratio of translated help pages."""
MIN_PROSE_WORDS = 4

_FULL_LETTERS = {point: point - 0xFEE0 for point in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B))}
_FULL_LETTERS |= {point: point - 0xFEE0 for point in range(0xFF41, 0xFF5B)}
_FULL_ALL = {point: point - 0xFEE0 for point in range(0xFF01, 0xFF5F)} | {0x3000: 0x20, 0x3002: 0x2E, 0x3001: 0x2C}
WIDTHS = {"letters": (_FULL_LETTERS, "[０-９Ａ-Ｚａ-ｚ]"), "all": (_FULL_ALL, "[！-～\u3000。、]")}
_HAN_CLASS = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_HAN_CHARACTER = re.compile(f"[{_HAN_CLASS}]")
_WORD = re.compile(rf"(?<![\w.])[^\W\d_{_HAN_CLASS}][a-z'’\u00df-\u024f\u0430-\u04ff]*(?![\w.(])")


@cache
def classes() -> NDArray[np.uint8]:
    """For each code point what it is: a letter, Han of either script or of one only, kana."""
    import numpy as np
    from opencc import OpenCC

    found = np.zeros(_TOP, np.uint8)
    letters = (point for point in range(_TOP) if chr(point).isalpha())
    found[np.fromiter(letters, np.int64)] = LETTER
    found[0x3041:0x3100] = KANA
    han = [chr(point) for first, last in _HAN for point in range(first, last + 1)]
    text = "\n".join(han)
    rows = zip(han, OpenCC("s2t").convert(text).split("\n"), OpenCC("t2s").convert(text).split("\n"), strict=True)
    for character, as_traditional, as_simplified in rows:
        kind = HAN
        if as_simplified != character:
            kind = TRADITIONAL
        elif as_traditional != character and character not in BOTH:
            kind = SIMPLIFIED
        found[ord(character)] = kind
    return found


def counts(values: pyarrow.Array) -> NDArray[np.int64]:
    """For each text how many characters are of each class, one column per class."""
    import numpy as np
    import pyarrow.compute as pc

    text = "".join(values.to_pylist())
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    kinds = classes()[np.where(points < _TOP, points, 0)]
    lengths = pc.utf8_length(values).to_numpy()
    owners = np.repeat(np.arange(len(values), dtype=np.int64), lengths)
    flat = np.bincount(owners * 6 + kinds, minlength=6 * len(values))
    found: NDArray[np.int64] = flat.reshape(len(values), 6)
    return found


def counts_where_han(values: pyarrow.Array) -> NDArray[np.int64]:
    """`counts`, with zeros for texts without any Han character: a scan spares them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    found = np.zeros((len(values), 6), np.int64)
    places = np.flatnonzero(pc.match_substring_regex(values, r"\p{Han}").to_numpy(zero_copy_only=False))
    if len(places):
        found[places] = counts(values.take(pa.array(places)))
    return found


def script_of(simplified: int, traditional: int) -> str | None:
    """The script that so many telling characters show; None where there is none."""
    few, many = sorted((simplified, traditional))
    if not many:
        return None
    if few >= MIXED_CHARACTERS and few > MIXED_SHARE * (few + many):
        return "mixed"
    return "simplified" if simplified > traditional else "traditional"


def chinese_prose_share(text: str) -> float:
    """Han characters, of these and the words on lines of another script; 1 where there is neither."""
    han, words = 0, 0
    for line in text.split("\n"):
        mine = len(_HAN_CHARACTER.findall(line))
        han += mine
        if not mine and not line.startswith(("  ", "\t")):
            said = len(_WORD.findall(line))
            words += said if said >= MIN_PROSE_WORDS else 0
    return han / (han + CHARACTERS_PER_WORD * words) if han or words else 1.0


class Chinese:
    """Says which script Chinese texts are in, converts them, and drops those that are only half translated."""

    column: ClassVar[Column] = "text"
    dialogues: ClassVar[bool] = True

    def __init__(self, config: ChineseConfig):
        from opencc import OpenCC

        self.config = config
        self.found: Counter[str] = Counter()
        self._convert = OpenCC(CONFIGS[config.to]).convert if config.to else None

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The column in one script and width, with `script` noted."""
        import numpy as np

        values = self._narrowed(values)
        count = counts_where_han(values)
        han = count[:, HAN] + count[:, SIMPLIFIED] + count[:, TRADITIONAL]
        letters = han + count[:, LETTER] + count[:, KANA]
        ratio = np.divide(han, letters, out=np.full(len(values), np.nan), where=letters > 0)
        chinese = (ratio >= self.config.foreign_han_ratio) & (han > 0) & (count[:, KANA] * 20 <= han)
        if (languages := notes.get("language")) is not None:
            chinese &= np.array([language != "ja" for language in languages], bool)
        scripts: list[str | None] = [None] * len(values)
        new: dict[int, str] = {}
        dropped: dict[int, Drop] = {}
        for place in np.flatnonzero(chinese).tolist():
            script = script_of(int(count[place, SIMPLIFIED]), int(count[place, TRADITIONAL]))
            scripts[place] = self._put(values, place, script, new)
            self.found[script or "either script"] += 1
        if self.config.min_han_ratio:
            for place in np.flatnonzero(chinese & (ratio < 0.95)).tolist():
                ratio[place] = share = chinese_prose_share(values[place].as_py())
                if share < self.config.min_han_ratio:
                    dropped[place] = Drop("half_translated", f"{share:.0%} of its prose is Chinese")
        measures = {"han_ratio": np.where(chinese, ratio, np.nan)}
        return Cleaned(put(values, new), dropped, {"script": scripts}, measures)

    def _put(self, values: pyarrow.Array, place: int, script: str | None, new: dict[int, str]) -> str | None:
        """Convert one text where it needs it; returns the script it is in then."""
        wanted = self.config.to
        if self._convert is None or wanted is None or (wanted == "simplified" and script in (None, "simplified")):
            return script
        if wanted == "traditional" and script in (None, "traditional"):
            return script
        old = values[place].as_py()
        text = self._convert(old)
        if text != old:
            new[place] = text
        return "simplified" if wanted == "simplified" else "traditional"

    def _narrowed(self, values: pyarrow.Array) -> pyarrow.Array:
        import numpy as np
        import pyarrow.compute as pc

        if self.config.width is None:
            return values
        table, pattern = WIDTHS[self.config.width]
        wide = np.flatnonzero(pc.match_substring_regex(values, pattern).to_numpy(zero_copy_only=False))
        texts: list[Any] = values.take(wide).to_pylist() if len(wide) else []
        self.found["full width"] += len(texts)
        return put(values, {int(n): text.translate(table) for n, text in zip(wide, texts, strict=True)})


def build(config: ChineseConfig, context: Context, fitted: Path | None = None) -> Chinese:
    """The step for a recipe."""
    return Chinese(config)
