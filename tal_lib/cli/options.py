"""What several commands take."""

from tal_lib.errors import TalError


def add_folders(parser) -> None:
    """The folders of a sweep and of its report."""
    parser.add_argument("--results", default="results", help="folder of ledger and tables (default: results)")
    parser.add_argument("--runs", default="runs", help="folder of the run folders (default: runs)")


def add_overwrite(parser) -> None:
    """What allows a command to replace files that this program did not write."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files of the same names that this program did not write, or that were changed since",
    )


def pairs(items):
    """KEY=VALUE texts → dict; values as YAML reads them."""
    import yaml

    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise TalError(f"{item!r} is not KEY=VALUE")
        pairs[key] = yaml.safe_load(value)
    return pairs


def only(arguments) -> dict[str, str]:
    """The `--only KEY=VALUE` of a command."""
    pairs = dict(item.split("=", 1) for item in arguments.only if "=" in item)
    if len(pairs) < len(arguments.only):
        raise TalError("--only takes KEY=VALUE")
    return pairs


def print_scores(scores) -> None:
    """mAP by tIoU and its mean."""
    print("tIoU    " + "  ".join(f"{tiou:5.2f}" for tiou in scores.index))
    print("mAP %   " + "  ".join(f"{100 * value:5.2f}" for value in scores))
    print(f"avg mAP {100 * scores.mean():.2f} %")
