"""`tal collect` and `tal publish`: trained models to give away."""

from tal_lib.cli.options import add_folders, add_only, add_overwrite, only


def add_commands(commands) -> None:
    """Add the subcommands to `tal`."""
    collect = commands.add_parser(
        "collect",
        help="write model folders (safetensors, config, card) from the runs of a sweep",
        description="Write a folder for each model that a sweep has trained: model.safetensors, config.json "
        "and a model card, in OUT/BENCHMARK/MODEL. `tal detect --model BENCHMARK/MODEL` uses it. Each is "
        "tested again first, with the weights as they are stored.",
    )
    collect.add_argument("grid", metavar="GRID.yaml", help="a file, or the name of one of the study's sweeps")
    add_folders(collect)
    collect.add_argument("--out", default="results/models", help="folder (default: results/models)")
    collect.lists("grids")
    add_only(collect, "only cells with this parameter value")
    collect.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        help="number format of the stored weights (default: float32 if all stay below 20 MB, else float16)",
    )
    add_overwrite(collect)
    collect.set_defaults(run=_collect)
    publish = commands.add_parser(
        "publish",
        help="upload a model folder to a model repository of yours on the Hugging Face Hub",
        description="Check a model folder and upload its three files to the Hugging Face Hub. It needs a "
        "token with write access: `hf auth login`, or $HF_TOKEN.",
    )
    publish.lists("trained models")
    publish.add_argument("folder", metavar="FOLDER", help="written by `tal collect`; or hapt/tridet")
    publish.add_argument("--repo", required=True, metavar="USER/NAME", help="created if it does not exist")
    publish.add_argument("--private", action="store_true", help="make the repository private")
    publish.add_argument("--dry-run", action="store_true", help="check and show what would be uploaded")
    publish.add_argument(
        "--overwrite", action="store_true", help="upload even if the repository holds other files"
    )
    publish.set_defaults(run=_publish)


def _collect(arguments):
    from tal_lib.reports.model_folders import bytes_below, collect

    chosen = only(arguments)
    for folder, stored in collect(
        arguments.grid,
        arguments.out,
        runs=arguments.runs,
        only=chosen,
        dtype=arguments.dtype,
        results=arguments.results,
    ):
        print(
            f"{folder}  {stored.dtype}, avg mAP {100 * stored.avg_map:.2f}, "
            f"outputs differ by {100 * stored.difference:.2g} %"
        )
    print(f"{bytes_below(arguments.out) / 1e6:.2f} MB in all")


def _publish(arguments):
    from tal_lib.reports import publish
    from tal_lib.reports.layout import model_place

    folder = model_place(arguments.folder)
    upload = publish.check(folder, arguments.repo)
    for path in upload.files:
        print(f"{path.stat().st_size:>12,}  {path.name}")
    print(f"{sum(path.stat().st_size for path in upload.files):>12,}  bytes to {upload.repo}, {upload.title}")
    if arguments.dry_run:
        print("Nothing was sent (--dry-run).")
        return
    print(publish.publish(upload, private=arguments.private, overwrite=arguments.overwrite))
