"""A table of published figures and ours, as Markdown, CSV or LaTeX.

Markdown and LaTeX are for reading: the published figures of a method stand above ours. CSV is for
computing: one row for each figure, numbers in full precision, empty where there is none.
"""

import csv
import dataclasses
import io
import statistics

CSV_COLUMNS = (
    *("table", "epochs", "our_epochs", "row", "column", "published", "ours", "sd", "seeds"),
    *("difference", "low", "high"),
)
LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "α": r"$\alpha$",
    "λ": r"$\lambda$",
    "τ": r"$\tau$",
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """One cell: the published figure, or None, and ours, one value a seed."""

    published: float | None
    values: tuple
    decimals: int = 1

    @property
    def mean(self):
        return statistics.fmean(self.values) if self.values else None

    @property
    def sd(self):
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def difference(self):
        """Ours less the published figure, or None."""
        return self.mean - self.published if self.values and self.published is not None else None

    def ours(self):
        """Returns "not run", "42.7 (1)" or "43.1 ± 0.4 (3)": mean ± sd (seeds)."""
        if not self.values:
            return "not run"
        spread = "" if self.sd is None else f" ± {self.sd:.{self.decimals}f}"
        return f"{self.mean:.{self.decimals}f}{spread} ({len(self.values)})"


@dataclasses.dataclass(frozen=True)
class Row:
    """A method's figures, one a column.

    Attributes:
        mark: of the published figures.
        epochs: of the published figures, where a table has rows of several.
        our_epochs: of ours.
        runs: the `FinishedRun`s that ours were computed from.
        own_mark: of ours.
    """

    name: str
    figures: tuple
    mark: str = ""
    epochs: int | None = None
    our_epochs: int | None = None
    runs: tuple = ()
    own_mark: str = ""

    def lines(self):
        """Returns the row as lines of text: the published figures, ours, the difference."""
        published = [_fixed(f.published, f.decimals) for f in self.figures]
        differences = [_fixed(f.difference, f.decimals, "+") for f in self.figures]
        ours = [figure.ours() for figure in self.figures]
        lines = [["paper", *published], ["ours" + self.own_mark, *ours]]
        lines = [*lines, ["ours − paper", *differences]]
        name = self.name + self.mark + (f", {self.epochs} epochs" if self.epochs else "")
        kept = [line for line in lines if any(line[1:])]
        return [[name if line is kept[0] else "", *line] for line in kept]

    def records(self, columns):
        """Returns the row as CSV rows, one a figure."""
        for column, figure in zip(columns, self.figures, strict=True):
            ours = (figure.published, figure.mean, figure.sd, len(figure.values), figure.difference)
            epochs = self.epochs, self.our_epochs if figure.values else None
            yield [*epochs, self.name, column, *ours, None, None]


@dataclasses.dataclass(frozen=True)
class Exact:
    """Published numbers and ours that no run gives, one a column; None for an unknown one."""

    name: str
    published: tuple
    values: tuple

    def lines(self):
        """Returns two lines of text."""
        return [
            [self.name, "paper", *map(_exact, self.published)],
            ["", "ours", *map(_exact, self.values)],
        ]

    def records(self, columns):
        for column, published, value in zip(columns, self.published, self.values, strict=True):
            ours = value, None, None, None if value is None else value - published
            yield [None, None, self.name, column, published, *ours, None, None]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two methods on the same seeds and test images; accuracies in %.

    Attributes:
        name: "first − second".
        column: which runs.
        difference: of a pair of runs, or the mean over several.
        low, high: ends of its 95 % interval.
        sd: of several pairs, else None.
        seeds: how many pairs.
        runs: the `FinishedRun`s that it was computed from.
        our_epochs: theirs.
        own_mark: of the row.
    """

    name: str
    column: str
    difference: float
    low: float
    high: float
    sd: float | None = None
    seeds: int = 1
    runs: tuple = ()
    our_epochs: int | None = None
    own_mark: str = ""

    @property
    def excludes_0(self):
        """Whether the interval does."""
        return self.low > 0 or self.high < 0

    def lines(self):
        """Returns the comparison as one line of text, with a * if the interval excludes 0."""
        mark = "*" if self.excludes_0 else ""
        difference, low, high = (
            _fixed(value, 1, "+") for value in (self.difference, self.low, self.high)
        )
        spread = "" if self.sd is None else f" ± {self.sd:.1f}"
        name = self.name + self.own_mark
        return [[name, self.column, difference + spread + mark, f"{low} to {high}"]]

    def records(self, columns):
        ours = (None, None, self.sd, self.seeds, self.difference, self.low, self.high)
        yield [None, self.our_epochs, self.name, self.column, *ours]


@dataclasses.dataclass(frozen=True)
class Table:
    """What is printed: a caption, columns, rows of one of the classes above, and notes below.

    Attributes:
        number: the paper's number of the table; a comparison has that of the table above it.
        leading: headers of the columns of text before `columns`.
    """

    number: str
    caption: str
    leading: tuple
    columns: tuple
    rows: tuple
    notes: tuple = ()

    def lines(self):
        """Returns the header and the lines of all rows, as lists of as many strings."""
        return [
            [*self.leading, *self.columns],
            *(line for row in self.rows for line in row.lines()),
        ]


def markdown(tables):
    """Returns `Table`s as GitHub's Markdown."""
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table):
    header, *lines = ([_escaped_markdown(cell) for cell in line] for line in table.lines())
    rule = ["---"] * len(table.leading) + ["---:"] * len(table.columns)
    rows = [f"| {' | '.join(line)} |" for line in (header, rule, *lines)]
    notes = [f"\n{_escaped_markdown(note)}" for note in table.notes]
    return "\n".join([f"**{table.caption}**\n", *rows, *notes, ""])


def _escaped_markdown(text):
    return text.replace("|", r"\|").replace("*", r"\*")


def latex(tables):
    """Returns `Table`s as LaTeX table environments that need no package."""
    return "\n".join(_latex(table) for table in tables)


def _latex(table):
    header, *lines = (
        " & ".join(_escaped_latex(cell) for cell in line) + r" \\" for line in table.lines()
    )
    alignment = "l" * len(table.leading) + "r" * len(table.columns)
    notes = [rf"\par {_escaped_latex(note)}" for note in table.notes]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_escaped_latex(table.caption)}}}",
            rf"\begin{{tabular}}{{{alignment}}}",
            *(r"\hline", header, r"\hline", *lines, r"\hline"),
            r"\end{tabular}",
            *notes,
            r"\end{table}",
            "",
        ]
    )


def _escaped_latex(text):
    return "".join(LATEX.get(character, character) for character in text)


def csv_text(tables):
    """Returns `Table`s as one CSV with the columns `CSV_COLUMNS`.

    "epochs" are those of the published row where a table has rows of several, "our_epochs" those
    of our runs. "difference" is ours less the published figure. In a paired comparison, the rows
    that have "low" and "high", it is the first method's accuracy less the second's.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for table in tables:
        for row in table.rows:
            for record in row.records(table.columns):
                writer.writerow([table.number, *map(_number, record)])
    return file.getvalue()


def _number(value):
    return f"{value:.6g}" if isinstance(value, float) else value


def _exact(value):
    return "" if value is None else f"{value:,}"


def _fixed(value, decimals, sign=""):
    if value is None:
        return ""
    return f"{value:{sign}.{decimals}f}".replace("-", "−")


FORMATS = {"markdown": markdown, "csv": csv_text, "latex": latex}
