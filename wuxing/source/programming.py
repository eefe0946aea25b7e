"""What a file of a repository is written in, by its name, and which licence a text states, by its words."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_LANGUAGES = {
    "python": ".py .pyi .pyx", "c": ".c .h", "cpp": ".cc .cpp .cxx .hh .hpp .hxx", "rust": ".rs", "go": ".go",
    "java": ".java", "kotlin": ".kt .kts", "scala": ".scala", "swift": ".swift", "csharp": ".cs",
    "javascript": ".js .mjs .cjs .jsx", "typescript": ".ts .tsx", "html": ".html .htm", "css": ".css .scss .less",
    "shell": ".sh .bash .zsh", "ruby": ".rb", "php": ".php", "perl": ".pl .pm", "lua": ".lua", "r": ".r",
    "julia": ".jl", "haskell": ".hs", "ocaml": ".ml .mli", "elixir": ".ex .exs", "erlang": ".erl", "clojure": ".clj",
    "dart": ".dart", "sql": ".sql", "fortran": ".f .f90", "cuda": ".cu .cuh", "assembly": ".s .asm",
    "markdown": ".md .markdown", "restructuredtext": ".rst", "tex": ".tex", "json": ".json .jsonl",
    "yaml": ".yaml .yml", "toml": ".toml", "ini": ".ini .cfg", "xml": ".xml .svg", "text": ".txt", "csv": ".csv",
    "tsv": ".tsv", "notebook": ".ipynb", "protobuf": ".proto", "zig": ".zig", "nim": ".nim", "vue": ".vue",
}  # fmt: skip
_BY_SUFFIX = {suffix: language for language, suffixes in _LANGUAGES.items() for suffix in suffixes.split()}
_BY_NAME = {"makefile": "make", "gnumakefile": "make", "dockerfile": "dockerfile", "cmakelists.txt": "cmake"}
_LICENSES = (
    ("Apache-2.0", r"apache license,?\s+version 2\.0"),
    ("AGPL-3.0", r"gnu affero general public license\s+version 3"),
    ("LGPL-3.0", r"gnu lesser general public license\s+version 3"),
    ("LGPL-2.1", r"gnu lesser general public license\s+version 2\.1"),
    ("GPL-3.0", r"gnu general public license\s+version 3"),
    ("GPL-2.0", r"gnu general public license\s+version 2"),
    ("MPL-2.0", r"mozilla public license,?\s+(version|v\.) ?2\.0"),
    ("BSL-1.0", r"boost software license - version 1\.0"),
    ("Unlicense", r"this is free and unencumbered software released into the public domain"),
    ("CC0-1.0", r"cc0 1\.0 universal"),
    ("CC-BY-SA-4.0", r"(attribution-sharealike 4\.0 international|cc[- ]by[- ]sa 4\.0)"),
    ("CC-BY-4.0", r"(attribution 4\.0 international|cc[- ]by 4\.0)"),
    ("BSD-3-Clause", r"redistribution and use in source and binary forms.*neither the names? of"),
    ("BSD-2-Clause", r"redistribution and use in source and binary forms"),
    ("ISC", r"permission to use, copy, modify, and/or distribute this software for any purpose"),
    ("MIT", r"permission is hereby granted, free of charge, to any person obtaining a copy"),
)


def language_of(path: str) -> str:
    """The language of a file by its name; its bare suffix, or `unknown`, where that is not known."""
    name = PurePosixPath(path.lower())
    return _BY_NAME.get(name.name) or _BY_SUFFIX.get(name.suffix) or name.suffix.lstrip(".") or "unknown"


def license_of(text: str) -> str:
    """The SPDX name that a text states or is the wording of; `unknown` for others."""
    stated = re.search(r"SPDX-License-Identifier:\s*([A-Za-z0-9.+-]+)", text)
    if stated:
        return stated[1]
    words = " ".join(text.lower().split())
    return next((name for name, wording in _LICENSES if re.search(wording, words)), "unknown")
