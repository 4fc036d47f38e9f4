"""Writes the tidy tables, tables for readers and figures of a report's sections to their places in the
layout."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from tal_lib.reports import tables, theme
from tal_lib.reports.figures.axes import say_first
from tal_lib.reports.latex import Best
from tal_lib.reports.layout import Layout, file_stem

FIRST_SENTENCE = re.compile(r".+?\.(?= [A-Z0-9“*]|$)|.*", re.S)


@dataclass(frozen=True)
class Output:
    """Writes into the layout, and records what it has written."""

    layout: Layout
    topic: str = "accuracy"
    tables: list[Path] = field(default_factory=list)
    figures: list[Path] = field(default_factory=list)

    def about(self, topic: str) -> "Output":
        """The same output for another topic."""
        return replace(self, topic=topic)

    def data(self, table: pd.DataFrame, name: str) -> None:
        """Write a tidy table."""
        path = self.layout.table(name)
        if path.suffix == ".parquet":
            tables.write_parquet(table, path)
        else:
            tables.write_csv(table, path.parent, path.stem)
        self.tables.append(path)

    def table(self, table: pd.DataFrame, name: str, caption: str, best: Best | None = None) -> None:
        """Write a table for readers, with the models' short names. best: the values to set in bold."""
        table, about = tables.short_names(table)
        caption = f"{caption.replace(tables.CLASSIFIED, '')} {about}".strip()
        path = self.layout.reader(self.topic, name)
        self.tables.append(tables.write_table(table, path, caption, best))

    def figure(self, axes, name: str, caption: str, dark: bool = False) -> None:
        """Write the figure of these axes, and close it. Its note begins with the caption's first sentence.

        Args:
            caption: what it shows: the text for those who do not see it, and under it on the site.
            dark: write a dark form too, for a page that chooses by the reader's screen.
        """
        say_first(axes.figure, FIRST_SENTENCE.match(caption)[0])
        path, night = (place(self.topic, name) for place in (self.layout.figure, self.layout.dark_figure))
        self.figures.append(theme.save(axes.figure, path, caption, night if dark else None))
        plt.close(axes.figure)

    def subset(self, recordings: list[str], name: str) -> None:
        """Write the recording ids of a subset sample, one per line."""
        path = self.layout.subsets / f"{file_stem(name)}.txt"
        self.tables.append(tables.keep(path, "\n".join(sorted(recordings)) + "\n"))
