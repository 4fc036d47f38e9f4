"""`tal report` and `tal site`."""

from tal_lib.cli.options import RUNS, add_folders, add_overwrite


def add_commands(commands) -> None:
    """Add the subcommands to `tal`."""
    report = commands.add_parser(
        "report", help="rebuild tables, figures and rendered notebooks from the ledgers"
    )
    report.add_argument(
        "--figures", default=None, help="folder of the figures (default: figures, or RESULTS/figures)"
    )
    report.add_argument("--no-notebooks", action="store_true", help="do not render the notebooks")
    add_overwrite(report)
    report.set_defaults(run=_report)
    site = commands.add_parser(
        "site", help="build the website with explorer, results, notebooks and documentation; it works offline"
    )
    site.add_argument("--out", default="build/site", help="folder of the site (default: build/site)")
    add_overwrite(site)
    site.set_defaults(run=_site)
    add_folders(report)


def _report(arguments):
    from pathlib import Path

    from tal_lib.reports.report import report

    is_default = Path(arguments.results) == Path("results")
    figures = arguments.figures or ("figures" if is_default else str(Path(arguments.results) / "figures"))
    done = report(arguments.results, figures, arguments.runs, render=not arguments.no_notebooks)
    print(f"{len(done.tables)} tables   {Path(arguments.results).resolve()}")
    print(f"{len(done.figures)} figures  {Path(figures).resolve()}")
    if done.topics:
        print(f"readers    {Path(arguments.results).resolve() / 'readers'} ({', '.join(done.topics)})")
    if arguments.runs != RUNS and not Path(arguments.runs).is_dir():
        print(f"runs       {Path(arguments.runs).resolve()}: folder not found, so the ledgers alone count")
    print(f"origin     {done.origin.sentence()}")
    for page in done.notebooks:
        print(f"page       {page.resolve()}")


def _site(arguments):
    from tal_lib.reports import site

    print(f"{len(written := site.build(arguments.out))} pages; open {written[0]}")
