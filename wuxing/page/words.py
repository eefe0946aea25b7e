"""Texts in English and Chinese, by key."""

from __future__ import annotations

from collections.abc import Mapping

from wuxing.core.error import UsageError, nearest

LANGUAGES = ("en", "zh")
Texts = Mapping[str, tuple[str, str]]
"""Key → English, Chinese.  `{names}` are replaced by figures; both languages have the same ones."""


class Words:
    """The texts of one language.  UsageError for a language that is not there."""

    def __init__(self, language: str, texts: Texts):
        if language not in LANGUAGES:
            raise UsageError(f'there is no report in "{language}"', nearest(language, LANGUAGES))
        self.language = language
        self.texts = texts
        self._place = LANGUAGES.index(language)

    def __call__(self, key: str) -> str:
        return self.texts[key][self._place]

    def get(self, key: str, otherwise: str) -> str:
        """The text of `key`, or `otherwise` for things whose names are not known beforehand."""
        return self.texts[key][self._place] if key in self.texts else otherwise

    @property
    def colon(self) -> str:
        return "：" if self.language == "zh" else ": "
