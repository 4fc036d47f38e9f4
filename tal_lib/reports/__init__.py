"""Reports: tidy tables from the ledger, figures, rendered notebooks."""
