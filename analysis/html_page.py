"""One HTML page built from parts: escaped text, tables, figures. Independent of studies."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
p.question { font-size: 1.1rem; margin: 0 0 1rem; }
p.banner { border: 2px solid #1b1b1b; border-left-width: .8rem; padding: .5rem .8rem;
  font-weight: 600; }
p.warning { border-left: .8rem solid #D55E00; padding: .3rem .8rem; }
p.footer { margin-top: 3rem; border-top: 1px solid #bbb; padding-top: .6rem; color: #444; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .4rem 0 1rem; font-variant-numeric: tabular-nums;
  font-size: .92rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { text-align: left; vertical-align: top; padding: .28rem .7rem .28rem 0;
  border-bottom: 1px solid #ddd; white-space: pre-line; }
thead th { border-bottom: 2px solid #1b1b1b; }
figure { margin: 1.2rem 0; } figure img { max-width: 100%; height: auto; }
figcaption { color: #444; font-size: .9rem; }
pre { overflow-x: auto; background: #f5f5f5; padding: .8rem; font-size: .82rem; }
summary { cursor: pointer; }
@media print { details { display: none; } body { margin: 0; max-width: none; } }
"""


@dataclass(frozen=True)
class Table:
    """Header and rows of text; a newline in a cell starts a new line there."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> list[str]:
        """Return the lines of a Markdown table."""
        lines = [self.header, (":--",) * len(self.header), *self.rows]
        return ["| " + " | ".join(_markdown_cell(cell) for cell in line) + " |" for line in lines]


@dataclass
class Page:
    """Collects parts; `text` returns the page, which is well-formed XML as well as HTML."""

    title: str
    parts: list[str] = field(default_factory=list)

    def heading(self, text: str, level: int) -> None:
        """Add a heading."""
        self.parts.append(f"<h{level}>{html.escape(text)}</h{level}>")

    def paragraph(self, text: str, kind: str = "text") -> None:
        """Add a paragraph; nothing for an empty one."""
        if text:
            self.parts.append(f'<p class="{kind}">{html.escape(text)}</p>')

    def bullets(self, lines: Sequence[str]) -> None:
        """Add a list; nothing for an empty one."""
        if lines:
            items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
            self.parts.append(f"<ul>{items}</ul>")

    def table(self, table: Table, caption: str = "", *, header: bool = True) -> None:
        """Add a table whose first column names its rows."""
        head = f"<caption>{html.escape(caption)}</caption>" if caption else ""
        if header:
            cells = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in table.header)
            head += f"<thead><tr>{cells}</tr></thead>"
        lines = "".join(_row(row) for row in table.rows)
        self.parts.append(f'<div class="wide"><table>{head}<tbody>{lines}</tbody></table></div>')

    def figure(self, source: str, caption: str, name: str) -> None:
        """Add an image, given as a data URI."""
        self.parts.append(
            f'<figure><img src="{source}" alt="{html.escape(name)}: {html.escape(caption)}"/>'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def details(self, title: str, text: str) -> None:
        """Add text that opens on a click."""
        self.parts.append(
            f"<details><summary>{html.escape(title)}</summary>"
            f"<pre>{html.escape(text)}</pre></details>"
        )

    def text(self) -> str:
        """Return the page."""
        body = "\n".join(self.parts)
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
            '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style></head>\n"
            f"<body>\n{body}\n</body></html>\n"
        )


def _row(cells: Sequence[str]) -> str:
    first, *rest = cells
    data = "".join(f"<td>{html.escape(cell)}</td>" for cell in rest)
    return f'<tr><th scope="row">{html.escape(first)}</th>{data}</tr>'


def _markdown_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")
