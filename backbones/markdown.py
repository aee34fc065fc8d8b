"""Tables in Markdown that also read well as text, and such without bars."""

from collections.abc import Sequence


def format_table(rows: Sequence[Sequence[str]], *, texts: int, last: int = 0, bars: bool = True) -> str:
    """Cells in columns of even width.

    Args:
        rows: of cells; the first is the header.
        texts: how many columns at the left are texts, aligned left; the others are numbers, aligned right.
        last: how many columns at the right are texts too.
        bars: false for cells with nothing but space between them, which is no Markdown.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = [place < texts or place >= len(widths) - last for place in range(len(widths))]
    even = [[c.ljust(w) if a else c.rjust(w) for c, w, a in zip(row, widths, left, strict=True)] for row in rows]
    if not bars:
        return "\n".join("  ".join(row).rstrip() for row in even)
    lines = [f"| {' | '.join(row)} |" for row in even]
    rule = "|" + "|".join("-" * (w + 2) if a else "-" * (w + 1) + ":" for w, a in zip(widths, left, strict=True)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
