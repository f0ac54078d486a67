"""Tables as text for papers and programs: Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Row = Mapping[str, str]

_LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "°": r"$^\circ$", "†": r"$^\dagger$"},
}
_NUMBER = re.compile(r"(?<![\w.,])-(?=\d)")  # the sign of a number


def markdown(rows: Sequence[Row]) -> str:
    """A pipe table; the keys of the first row are the columns, the first of them begins at the
    left, the others end at the right.

    >>> print(markdown([{"learner": "a|b", "test": "1.25"}]))
    | learner | test |
    | :-- | --: |
    | a\\|b | 1.25 |
    """
    columns = list(rows[0])
    lines = [columns, [":--", *["--:"] * (len(columns) - 1)], *([row[key] for key in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def latex(rows: Sequence[Row], caption: str, label: str, notes: Sequence[str] = ()) -> str:
    """A `table` environment with the rules of the package booktabs, which the document loads; notes
    are comments.
    """
    columns = list(rows[0])
    body = [" & ".join(escaped(row[key]) for key in columns) + r" \\" for row in rows]
    lines = [
        *(f"% {note}" for note in notes),
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escaped(caption)}}}",
        rf"  \label{{{label}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
        r"    \toprule",
        f"    {' & '.join(map(escaped, columns))} " + r"\\",
        r"    \midrule",
        *(f"    {line}" for line in body),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """A text as LaTeX sets it; the sign of a number is a minus.

    >>> escaped("50 % of W_1, -0.42 to +0.10")
    '50 \\\\% of W\\\\_1, $-$0.42 to +0.10'
    """
    signed = _NUMBER.sub("\N{MINUS SIGN}", text)
    return "".join(_LATEX.get(letter, "$-$" if letter == "\N{MINUS SIGN}" else letter) for letter in signed)
