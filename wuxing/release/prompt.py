"""The texts on which every format is compared: what usually breaks a tokenizer or a template."""

from __future__ import annotations

TEXTS = (
    "The river rises in the hills north of the town and flows into the sea.",
    "It's what they'd said: we'll see, I'm sure, you've won — don't!",
    "水是生命之源。长江是中国最长的河流,全长约6300公里。",
    "中英mixed文本, with ASCII,全角标点,and Ｆｕｌｌｗｉｄｔｈ letters.",
    "3.14159 2,718,281 0x7FFF 1e-9 100% ½ ² ٣ 12345678901234567890",
    "12 + 34 = 46, 7*8=56; 1/3≈0.333",
    "👩‍👩‍👧‍👦 🏳️‍🌈 emoji 🙂🙃 and flags 🇨🇳🇫🇷",
    "combining: é ñ ḍ̇ Å vs Å, Hangul 한국어 한국어",
    "spaces:  two   three    four\ttab\n\nnew lines \r\n and trailing   ",
    "   leading spaces\n\tindented\n        code = [x for x in range(10)]",
    "<|im_end|> typed by a person, <|im_start|>system and <|endoftext|> too",
    "</s> [INST] <pad> <unk> {{ messages }} {% raw %} %}",
    "العربية עברית ไทย हिन्दी Ελληνικά Русский Việt",
    "snake_case camelCase kebab-case URL: https://example.org/a?b=c&d=%20#e",
    "'S 'ſ 'LL 'll 'Ve ’s ‘quoted’ “double”",
    "zero\u200bwidth\ufeffmarks\u00a0nbsp\u3000ideographic\u2028line",
    "\x00\x01\x1b[31mcontrol\x7f",
    "a" * 60 + "!" * 40 + "。" * 20,
)
CHATS: tuple[tuple[dict[str, str], ...], ...] = (
    ({"role": "user", "content": "What is 12 + 7?"},),
    ({"role": "user", "content": "你好,请介绍一下你自己。"},),
    ({"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "Tell me about the sea. 🌊"}),
    (
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hello, how can I help?"},
        {"role": "user", "content": "  Say it again,\n\nplease.  "},
    ),
)
