"""`tal export`."""

from tal_lib.cli.options import add_overwrite
from tal_lib.errors import TalError


def add_commands(commands) -> None:
    """Add the subcommands to `tal`."""
    out = commands.add_parser(
        "export", help="export a trained model as ONNX, pt2 or TorchScript, with a description of its outputs"
    )
    out.lists("models", "trained models")
    out.add_argument("model", help="name of the trained model; must match the checkpoint")
    out.add_argument(
        "--checkpoint",
        required=True,
        metavar="model.pt",
        help="checkpoint written by `tal train`, or a model folder, or its short name (hapt/tridet)",
    )
    out.add_argument(
        "--format", default="onnx", choices=("onnx", "pt2", "torchscript"), help="file format (default: onnx)"
    )
    out.add_argument("--out", required=True, help="output folder")
    add_overwrite(out)
    out.set_defaults(run=_export)


def _export(arguments):
    import json
    from pathlib import Path

    from tal_lib.export import ABOUT, FORMATS, export
    from tal_lib.reports.layout import model_place
    from tal_lib.training import load_model
    from tal_lib.training.checkpoints import STANDARDISE, warn_if_not_stated
    from tal_lib.writing import claim

    arguments.checkpoint = model_place(arguments.checkpoint)
    trained = load_model(arguments.checkpoint)
    if trained.model.spec["name"] != arguments.model:
        raise TalError(
            f"the checkpoint is a {trained.model.spec['name']}, not a {arguments.model}",
            where=arguments.checkpoint,
            remedy="Name the model of the checkpoint.",
        )
    warn_if_not_stated(trained.statistics_stated, arguments.checkpoint)
    claim(arguments.out, [FORMATS[arguments.format], ABOUT, STANDARDISE], sources=[arguments.checkpoint])
    folder = export(trained, arguments.out, arguments.format)
    if trained.statistics is not None:
        print(Path(folder) / STANDARDISE)
    about = json.loads((folder / ABOUT).read_text())
    print(
        f"{arguments.model}, {len(about['classes'])} classes; outputs {', '.join(about['outputs'])}; "
        f"differs from the model by at most {about['largest_difference']:.1e}"
    )
    print(folder / about["file"])
