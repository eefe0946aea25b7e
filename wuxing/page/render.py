"""From blocks to one HTML file that loads nothing, and to Markdown.

The page carries a content security policy that allows its own style and script by their digests and pictures and
sounds that are written into it, nothing else: whatever a record holds, a browser neither runs nor fetches it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.page.block import Code, Figure, Report, Table
from wuxing.page.text import visible
from wuxing.page.words import Words

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
_LOADED = re.compile(
    r"""<[^>]*?\s(?:src|href|xlink:href|srcset|data|poster)\s*=\s*["'](?!#|data:(?:image|audio)/|[\w.-]+\.html["'])"""
    r"""|@import|url\(\s*["']?(?!#|data:)""",
    re.IGNORECASE,
)
"""What would make a browser load something; links to pages beside this one are only followed by a person."""


def render_html(report: Report, words: Words) -> str:
    """The page.  Equal reports give equal bytes."""
    page = _environment(report, html=True).get_template("page.html.jinja")
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8").strip()
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8").strip() if _sorts(report.sections) else ""
    policy = content_policy(style, script)
    return page.render(report=report, t=words, style=style, script=script, policy=policy)


def render_markdown(report: Report, words: Words) -> str:
    """The same as Markdown; its plots are files in `plots/`."""
    text = _environment(report, html=False).get_template("page.md.jinja").render(report=report, t=words)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def content_policy(style: str, script: str) -> str:
    """The content security policy of a page with this style and this script written into it."""
    scripts = f"script-src {_digest(script)}; " if script else ""
    return (
        f"default-src 'none'; style-src {_digest(style)}; {scripts}img-src data:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def loaded_things(html: str) -> list[str]:
    """What a browser would load from elsewhere when it shows the page."""
    return sorted({match.group(0)[-80:] for match in _LOADED.finditer(html)})


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _sorts(value: Any) -> bool:
    if isinstance(value, Table):
        return value.sortable
    if isinstance(value, list | tuple):
        return any(map(_sorts, value))
    return any(_sorts(getattr(value, name)) for name in ("parts", "blocks") if hasattr(value, name))


def _environment(report: Report, html: bool) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    inline = _inline_html if html else _inline_markdown
    environment.filters["inline"] = partial(inline, report)
    environment.filters["number"] = lambda source: report.sources.index(source) + 1
    environment.filters["plain"] = _escaped
    environment.filters["visible"] = visible
    environment.filters["sort_value"] = sort_value
    return environment


def sort_value(cell: Sequence[Any]) -> str:
    """What a table sorts a cell by: its first figure's value, or nothing where words decide."""
    value = next((part.value for part in cell if isinstance(part, Figure) and part.value is not None), None)
    return "" if value is None else f"{value:.12g}"


def _inline_html(report: Report, parts: Any) -> Any:
    from markupsafe import Markup, escape

    text = Markup("")
    for part in parts:
        if isinstance(part, Figure):
            shown = visible(part.text).replace(" ", "\u00a0")
            if report.numbered:
                number = report.sources.index(part.source) + 1
                link = Markup('<a href="#a{}">[{}]</a>').format(number, number)
            else:
                link = Markup("")
            text += Markup('<span class="figure" title="{}">{}{}</span>').format(visible(part.source), shown, link)
        elif isinstance(part, Code):
            text += Markup("<code>{}</code>").format(visible(part.text))
        else:
            text += escape(visible(part))
    return text


def _inline_markdown(report: Report, parts: Any) -> str:
    found = []
    for part in parts:
        if isinstance(part, Figure):
            found.append(f"{_escaped(part.text)}[^{report.sources.index(part.source) + 1}]")
        elif isinstance(part, Code):
            found.append(f"`{_flat(part.text).replace('`', '′').replace('|', chr(92) + '|')}`")
        else:
            found.append(_escaped(part))
    return "".join(found)


def _escaped(text: str) -> str:
    """Text in which Markdown sees no markup, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", _flat(text))


def _flat(text: str) -> str:
    return " ".join(text.split("\n")).replace("\r", " ")
