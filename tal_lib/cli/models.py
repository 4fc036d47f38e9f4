"""`tal models` and `tal cite`."""

import sys

from tal_lib.cli.options import print_table
from tal_lib.errors import TalError


def add_commands(commands) -> None:
    """Add the subcommands to `tal`."""
    models = commands.add_parser(
        "models", help="list the models, or show the paper, options and presets of one model"
    )
    models.add_argument("name", nargs="?", metavar="NAME", help="name of a model (default: list all)")
    models.add_argument("--card", action="store_true", help="print the model card of NAME (Markdown)")
    models.lists("models", "presets")
    models.set_defaults(run=_models)
    cite = commands.add_parser(
        "cite", help="print how to cite this study, a model or a benchmark (BibTeX), then its card"
    )
    cite.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="models and benchmarks: their citations, then their cards (Markdown)",
    )
    cite.add_argument("--bib", action="store_true", help="print the BibTeX entries alone, without cards")
    cite.lists("models", "benchmarks")
    cite.set_defaults(run=_cite)


def _models(arguments):
    import shutil

    from tal_lib.models.parts import registry
    from tal_lib.reports import cards
    from tal_lib.reports.layout import nearest

    if arguments.card and not arguments.name:
        raise TalError("--card needs a model", remedy="Name one: `tal models NAME --card`.")
    if arguments.card:
        print(cards.model_card(arguments.name, nearest()))
        return
    if arguments.name:
        print(cards.model_page(arguments.name, max(60, shutil.get_terminal_size().columns)))
        return
    table = cards.model_table(nearest())
    print_table(table)
    print(
        f"params and GMACs: preset compact, {cards.STEPS} steps of {cards.SHAPE}, from the results tables; "
        "–: not measured yet (`tal cost MODEL` measures it)"
    )
    for module, reason in registry.broken().items():
        print(f"not loaded  {module}: {reason}")


def _cite(arguments):
    from tal_lib.data.registry import BENCHMARKS
    from tal_lib.models.parts import registry
    from tal_lib.reports import cards, citation
    from tal_lib.reports.layout import nearest
    from tal_lib.validation import unknown_name

    known = [*registry.every_name(), *BENCHMARKS]
    for name in arguments.names:
        if name not in known:
            raise unknown_name(name, known, name="model or benchmark")
    print("\n\n".join(cards.citations_of(arguments.names)))
    if waiting := citation.placeholders():
        print(
            f"note: {' and '.join(waiting)} of this study are placeholders until its first public release",
            file=sys.stderr,
        )
    for name in arguments.names:
        if cards.paper_of(name) is None:
            print(f"note: {name} has no paper: cite this study", file=sys.stderr)
    for name in [] if arguments.bib else arguments.names:
        card = cards.data_card(name, nearest()) if name in BENCHMARKS else None
        print(f"\n{card or cards.model_card(name, nearest(), cited=False)}")
