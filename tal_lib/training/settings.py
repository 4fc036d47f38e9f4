"""Options by name, as users set them (`--set KEY=VALUE`): those of the model and those of its training
recipe."""

from dataclasses import dataclass, field, fields

from tal_lib.errors import TalError
from tal_lib.models import DetectorConfig, PostProcess, config
from tal_lib.models.parts.detector import option_names
from tal_lib.training.recipes import Recipe, recipe_for
from tal_lib.validation import unknown_name


@dataclass(frozen=True)
class Settings:
    """Options of a model (including its post-processing), and options of its recipe."""

    options: dict = field(default_factory=dict)
    recipe: dict = field(default_factory=dict)


def route(model: str, preset: str, values: dict, *, where: object = None) -> Settings:
    """Split options into model and recipe options, and check each against its type and the other options.

    Args:
        values: name → value; where: the source of the values, for the error.

    Raises:
        TalError: an unknown model, preset or name (all options are listed), or a value that does not fit.
    """
    chosen = config(model, preset)
    model_options = option_names(chosen)
    recipe_names = [f.name for f in fields(Recipe)]
    for name in values:
        if name not in model_options and name not in recipe_names:
            error = unknown_name(name, [*model_options, *recipe_names], where=where)
            hint = (
                error.remedy[  # pyright: ignore[reportOptionalSubscript]
                    error.remedy.rfind(". ") + 1 :  # pyright: ignore[reportOptionalMemberAccess]
                ]
                if "Did you mean" in error.remedy  # pyright: ignore[reportOperatorIssue]
                else ""
            )
            raise TalError(error.problem, where=where, remedy=_listed(model, chosen) + hint)
    settings = Settings(
        options={name: value for name, value in values.items() if name in model_options},
        recipe={name: value for name, value in values.items() if name not in model_options},
    )
    try:
        config(model, preset, **settings.options)
        recipe_for(model, preset, **settings.recipe)
    except TalError as error:
        raise error if where is None else error.at(where) from None
    return settings


def _listed(model: str, chosen: DetectorConfig) -> str:
    post = [f.name for f in fields(PostProcess)]
    model_options = [name for name in option_names(chosen) if name not in post]
    groups = {
        f"options of {model}": model_options,
        "of its post-processing": post,
        "of the recipe": [f.name for f in fields(Recipe)],
    }
    text = "; ".join(f"{group}: {', '.join(names)}" for group, names in groups.items())
    return f"{text[0].upper()}{text[1:]}."
