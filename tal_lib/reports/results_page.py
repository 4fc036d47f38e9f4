"""`RESULTS.md`, the page to cite, and `README.md`: text from a template, numbers from the tables."""

import re
from pathlib import Path

from tal_lib import __version__
from tal_lib.reports import cards, citation, escape, provenance, tables
from tal_lib.reports.advice import advice, headlines
from tal_lib.reports.costs import end_to_end, gained, repeats
from tal_lib.reports.equal import components, page
from tal_lib.reports.factors import annotation, front, size, training_time
from tal_lib.reports.layout import Layout
from tal_lib.reports.papers import PAPERS
from tal_lib.reports.pictures import embedded

TEMPLATE = Path(__file__).with_name("RESULTS.template.md")
README = Path(__file__).with_name("README.template.md")


def write(layout: Layout, target: str | Path, template: Path = TEMPLATE, benchmark: str = "hapt") -> Path:
    """Fill a template with the tables. If a table is missing, the page says so at its place."""
    read = lambda name: tables.read_csv(layout.table(name))

    def measured(name):
        """A table of costs, marked by what is older."""
        rows = read(name)
        return provenance.mark_older({name: rows}, read("stale"))[name]

    def table(name):
        for path in layout.reader_tables(name):
            return path.read_text(encoding="utf-8").strip()
        return f"*{name}: not measured yet.*"

    def mean(model, fraction):
        summary = read("data_efficiency_summary")
        rows = summary[
            (summary.benchmark == benchmark)
            & (summary.model == model)
            & (summary.fraction == float(fraction))
        ]
        return (
            tables.with_interval(rows)[0] + f", {rows.runs.iloc[0]} seeds"
            if len(rows)
            else "not measured yet"
        )

    def fill(match):
        what, *arguments = match[1].split(":")
        if what == "table":
            return table(*arguments)
        if what == "figure":
            light, dark = (place(*arguments) for place in (layout.figure, layout.dark_figure))
            return embedded(light, dark, layout.figures.parent) if light.is_file() else "*Not drawn yet.*"
        if what == "mean":
            return mean(*arguments)
        if what == "version":
            return __version__
        if what == "bibtex":
            return citation.bibtex()
        if what == "models":
            return _models(layout)
        if what == "equal":
            name, *arguments = arguments
            return getattr(page, name)(read("equal_values"), *arguments)
        if what == "tuned":
            return page.tuned(read("factorial"))
        if what == "factor":
            return _factor(read, *arguments)
        if what == "origin":
            return provenance.read(layout).sentence()
        if what == "repeats":
            return " ".join(repeats(read("repeatability"))) or "Their repeatability was not measured yet."
        if what == "quantization":
            rows = tables.on_main_machine(measured(what))
            rows = rows[rows.benchmark == benchmark] if len(rows) else rows
            text = gained(rows) + provenance.of_older_code(rows) if len(rows) else ""
            return escape.markdown(text) or "Lower precision was not measured yet."
        if what == "end_to_end":
            return escape.markdown(end_to_end.in_words(measured(what))) or "Not measured yet."
        if what == "headlines":
            return "\n".join(f"- {line}" for line in headlines(read, [benchmark])) or "Nothing measured yet."
        return _advice(advice(read, benchmark), layout) or "Nothing measured yet."

    return tables.keep(target, re.sub(r"\{\{([^}]+)\}\}", fill, template.read_text(encoding="utf-8")))


FACTORS = {  # name → the tidy tables that it is told from, and the sentence
    "annotation": (["people_or_segments"], annotation.sentence),
    "training_time": (["training_time_pairs"], training_time.sentence),
    "size": (["size_growth", "size"], size.sentence),
    "target": (["size_target"], front.target_sentence),
    "variance": (["components_of_variance"], components.sentence),
}


def _factor(read, name):
    """The answer to the question about one factor, in words."""
    sources, sentence = FACTORS[name]
    read_tables = [read(source) for source in sources]
    return escape.markdown(sentence(*read_tables)) if len(read_tables[0]) else "Not run yet."


def _advice(answers, layout):
    """The table of answers, with links to the tables that they are from; empty without an answer."""
    shown = {path.stem: path.relative_to(layout.results.parent) for path in layout.reader_tables()}
    linked = [
        f"[{escape.markdown(name)}]({shown[name].as_posix()})" if name in shown else escape.markdown(name)
        for name in answers["from"]
    ]
    answers = answers.map(escape.markdown).assign(**{"from": linked})
    return answers.to_markdown(index=False) if len(answers) else ""


def _models(layout):
    """The table of models, with links to their papers."""
    table = cards.model_table(layout)
    linked = [
        f"[{row.paper}]({PAPERS[row.model].link})" if row.model in PAPERS else row.paper
        for row in table.itertuples()
    ]
    shown = table.assign(paper=linked).drop(columns="from")
    return shown.to_markdown(index=False, disable_numparse=True)
