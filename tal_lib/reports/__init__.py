"""Reports: tidy tables from the ledger, figures, rendered notebooks."""

from tal_lib.process.fork_server import IRI_GRAMMAR, hidden

with hidden(IRI_GRAMMAR):  # nothing is shown by it
    import nbformat  # noqa: F401
