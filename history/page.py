"""Pieces of HTML, in which every value is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

STYLE = Path(__file__).with_name("style.css")


class Html(str):
    """Text that is HTML already: `format` and `join` escape whatever is not."""

    def format(self, *values: object) -> Html:  # type: ignore[override]
        """Return the text with `values` in its {}, escaped unless they are Html."""
        return Html(
            super().format(*(value if isinstance(value, Html) else html.escape(str(value)) for value in values))
        )

    def join(self, parts: Iterable[str]) -> Html:
        """Return the parts as one Html."""
        return Html(super().join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def section(title: str, *content: Html, level: int = 2) -> Html:
    """Return a heading, <h2> or of another level, and what is under it."""
    return Html("<section>\n<h{0}>{1}</h{0}>\n{2}\n</section>").format(level, title, Html("\n").join(content))


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]], kind: str = "") -> Html:
    """Return a table whose first column names the rows; a wide one scrolls, also by keyboard. `kind` is a CSS class."""
    heads = Html("").join(Html('<th scope="col">{}</th>').format(cell) for cell in header)
    lines = [
        Html('<tr><th scope="row">{}</th>{}</tr>').format(
            row[0], Html("").join(Html("<td>{}</td>").format(cell) for cell in row[1:])
        )
        for row in rows
    ]
    return Html(
        '<div class="scroll" role="group" tabindex="0" aria-label="{0}"><table class="{3}"><caption>{0}</caption>'
        "<thead><tr>{1}</tr></thead>\n<tbody>\n{2}\n</tbody></table></div>"
    ).format(caption, heads, Html("\n").join(lines), kind)


def folded(title: str, content: Html) -> Html:
    """Return `content` under a line that unfolds it."""
    return Html("<details><summary>{}</summary>\n{}\n</details>").format(title, content)


def document(title: str, *parts: str, head: str = "", style: str = "") -> str:
    """Return a whole page with `parts` in its body; `head` is more HTML for its head, `style` more CSS."""
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            head,
            Html("<title>{}</title>").format(title),
            f"<style>\n{STYLE.read_text(encoding='utf-8')}{style}</style>\n</head>\n<body>\n<main>",
            *parts,
            "</main>\n</body>\n</html>\n",
        ]
    )
