"""`tal models`."""


def add_commands(commands) -> None:
    """Add the subcommand to `tal`."""
    models = commands.add_parser("models", help="list the models: family, presets, and where each comes from")
    models.set_defaults(run=_models)


def _models(arguments):
    import pandas as pd

    from tal_lib.models.parts import registry

    rows = [
        {
            "model": name,
            "family": registry.family(name),
            "presets": " ".join(registry.presets(name)),
            "from": registry.origin(name),
        }
        for name in registry.every_name()
    ]
    print(pd.DataFrame(rows).to_string(index=False))
    for module, reason in registry.broken().items():
        print(f"not loaded  {module}: {reason}")
