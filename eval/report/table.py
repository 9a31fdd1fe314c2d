"""Tables for people: aligned text, and Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from eval.report.scores import wilson


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, rule: bool = False, left: int = 1) -> str:
    """Columns of equal width, the first `left` to the left and the others to the right. rule: a line below the head."""
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(map(_fit, line, widths, [at < left for at in range(len(line))])).rstrip() for line in lines]
    return "\n".join([text[0], *(["-" * len(text[0])] if rule else []), *text[1:]])


def _fit(cell: str, width: int, left: bool) -> str:
    return cell.ljust(width) if left else cell.rjust(width)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def share(right: float, n: int) -> tuple[str, str]:
    """A share in per cent and its 95 % Wilson interval, as cells."""
    return f"{100 * right / n:.1f}", "–".join(f"{bound:.1f}" for bound in wilson(right, n))
