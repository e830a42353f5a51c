"""Tables for people: rows of texts whose columns are aligned."""


def align(rows, left=1):
    """Returns rows as lines of text, two blanks between the columns.

    Args:
        rows: sequences of strings. One with fewer than the others ends early.
        left: how many columns are flush left; those after them are flush right.

    Returns:
        A list of lines, without blanks at their ends.
    """
    widths = [
        max(len(row[column]) for row in rows if column < len(row))
        for column in range(max(map(len, rows), default=0))
    ]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]
