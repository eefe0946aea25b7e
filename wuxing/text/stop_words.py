"""Words that hardly any text of a language does without (Gopher's stop word rule, for languages other than English)."""

from __future__ import annotations

_WORDS = {
    "en": "the be to of and that have with is in a for as was on by it at from or",
    "de": "der die das und in zu den von mit ist auf für im nicht eine ein sich auch als dem",
    "fr": "le la les de des et à un une en que qui dans pour est du au sur par ne",
    "es": "el la los las de y en que a un una por con es para del se no su al",
    "it": "il la le di e che in un una per è del con non si da al lo i gli",
    "pt": "o a os as de e que em um uma para com do da no na é por se não",
    "nl": "de het een van en in is dat op te voor met zijn niet aan er om als ook die",
    "sv": "och i att det som en på är av för med till den har de inte om ett var från",
    "pl": "i w na z do się nie to że jest o od po za jak przez a ale oraz dla",
    "tr": "ve bir bu için ile de da olarak olan daha çok gibi en ne kadar sonra ise her o var",
    "id": "yang dan di dengan untuk dari pada ini dalam itu adalah tidak ke oleh sebagai juga akan atau bisa ada",
    "vi": "và của là có các trong cho được với một không người những để này khi đã từ ở như",
    "ru": "и в на не что с по он как это из к у за от для но а о был",
    "uk": "і в на не що з до та як це за від для але є про у й був також",
    "ar": "في من على أن إلى عن مع هذا هذه التي الذي كان لا ما أو ثم كل بعد بين قد",
    "ko": "이 그 저 수 것 등 및 있다 있는 하는 한 또는 대한 위해 그리고 의 를 을 은 는",
}
_CHARACTERS = {
    "zh": "的 是 了 在 有 不 和 一 人 我 他 这這 中 为為 之 以 其 而 于於 也 上 来來 无無 何",
    "ja": "の は に を が で と も し て た な か ら い る す こ れ り",
}
"""Simplified and traditional form are one word."""


def _numbered(words: list[str], forms: bool) -> dict[str, int]:
    """Each form of a word with the word's number; capital forms too where the script has them beyond ASCII."""
    numbered: dict[str, int] = {}
    for number, word in enumerate(words):
        for form in word if forms else {word, word.capitalize()}:
            numbered.setdefault(form.encode().lower().decode(), number)
    return numbered


STOP_WORDS: dict[str, dict[str, int]] = {
    **{name: _numbered(words.split(), False) for name, words in _WORDS.items()},
    **{name: _numbered(words.split(), True) for name, words in _CHARACTERS.items()},
}
"""Of each language the forms of its words, as tokens with ASCII letters lower-cased, and the number of each word."""
