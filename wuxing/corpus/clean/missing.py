"""Placeholders: texts that only say that there is nothing."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wuxing.core.context import Context
from wuxing.core.record import Drop
from wuxing.corpus.clean.cleaner import Cleaned, Column, Notes
from wuxing.corpus.clean.filter_config import PlaceholderConfig

if TYPE_CHECKING:
    import pyarrow

WORDS = (
    *("n/a", "n.a", "na", "nan", "null", "nil", "none", "empty", "undefined", "unknown", "missing"),
    *(
        "not available",
        "not applicable",
        "no data",
        "no content",
        "no text",
        "no description",
        "no value",
        "tbd",
        "tba",
    ),
    *("todo", "to do", "to be determined", "to be announced", "coming soon", "placeholder", "lorem ipsum"),
    *("deleted", "removed", "redacted", "xxx", "#n/a", "#value!", "#ref!", "#null!", "#div/0!"),
    *(
        "无",
        "無",
        "暂无",
        "暫無",
        "空",
        "空白",
        "没有",
        "沒有",
        "未知",
        "不详",
        "不詳",
        "不明",
        "略",
        "从略",
        "待补充",
        "待補充",
        "待定",
    ),
    *(
        "暂无内容",
        "暫無內容",
        "暂无数据",
        "暫無數據",
        "无内容",
        "無內容",
        "无数据",
        "无描述",
        "暂无描述",
        "暂无简介",
        "暂缺",
        "缺失",
        "待完善",
    ),
    *("已删除", "已刪除", "内容已删除", "该内容已被删除", "敬请期待", "敬請期待"),
)
"""Without case, and without the space and signs around them."""
MAX_CHARACTERS = 40
_AROUND = re.compile(r"^[\s\W_]+|[\s\W_]+$")


class Placeholder:
    """Drops a text that is a placeholder, or nothing but signs (`-`, `...`)."""

    column: ClassVar[Column] = "text"

    def __init__(self, config: PlaceholderConfig):
        self.dialogues = config.turns
        self.found: Counter[str] = Counter()
        self.words = {_plain(word) for word in (*WORDS, *config.words)}

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The column, and `placeholder` for each text that is one."""
        import numpy as np
        import pyarrow.compute as pc

        dropped = {}
        short = np.flatnonzero(pc.utf8_length(values).to_numpy() <= MAX_CHARACTERS)
        for place in short.tolist():
            text = values[place].as_py()
            plain = _plain(text)
            if not plain or plain in self.words:
                self.found[plain or "signs"] += 1
                dropped[place] = Drop("placeholder", text.strip())
        return Cleaned(values, dropped)


def _plain(text: str) -> str:
    """A text without case and without the space and signs around it; inside, single spaces."""
    inner = _AROUND.sub("", text)
    return " ".join(inner.casefold().split())


def build(config: PlaceholderConfig, context: Context, fitted: Path | None = None) -> Placeholder:
    """The step for a recipe."""
    return Placeholder(config)
