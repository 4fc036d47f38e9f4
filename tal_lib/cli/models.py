"""`tal models`."""

from tal_lib.cli.options import print_table
from tal_lib.errors import short


def add_commands(commands) -> None:
    """Add the subcommand to `tal`."""
    models = commands.add_parser(
        "models", help="list the models: family, presets, and where each comes from; the options of one model"
    )
    models.add_argument("name", nargs="?", help="list this model's options and their values in each preset")
    models.set_defaults(run=_models)


def _models(arguments):
    import pandas as pd

    from tal_lib.models.parts import registry

    if arguments.name:
        print_table(_options(arguments.name))
        return
    rows = [
        {
            "model": name,
            "family": registry.family(name),
            "presets": " ".join(registry.presets(name)),
            "from": registry.origin(name),
        }
        for name in registry.every_name()
    ]
    print_table(pd.DataFrame(rows))
    for module, reason in registry.broken().items():
        print(f"not loaded  {module}: {reason}")


def _options(name):
    """A row per option of a model, its post-processing and its recipe: option, of, one column per preset."""
    from dataclasses import fields

    import pandas as pd

    from tal_lib.models.parts import registry
    from tal_lib.training import recipe_for

    presets = registry.presets(name)
    configs = [registry.config(name, preset) for preset in presets]
    groups = {
        "model": configs,
        "post-processing": [config.post for config in configs],
        "recipe": [recipe_for(name, preset) for preset in presets],
    }
    return pd.DataFrame(
        {"option": field.name, "of": group}
        | {preset: _text(getattr(options, field.name)) for preset, options in zip(presets, values)}
        for group, values in groups.items()
        for field in fields(values[0])
        if field.name != "post"
    )


def _text(value):
    return value if isinstance(value, str) else short(value, 24)
