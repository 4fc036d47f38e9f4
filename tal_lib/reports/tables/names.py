"""Names of models in tables and figures."""

import pandas as pd

from tal_lib.models.parts.registry import has_separate_classifier

CLASSIFIED = " + classifier"
AUGMENTATIONS = {"exchange": "instance mixing (probability)", "rotate": "random rotation (degrees)"}


def shown_name(model: str, preset: str, options: str = "", stream: str = "") -> str:
    """A model's name with its differences from the compact preset.

    The name also tells when the study's own stage classifies the proposals.
    """
    extra = [part for part in ("" if preset == "compact" else preset, options, stream) if part]
    name = f"{model}{CLASSIFIED}" if has_separate_classifier(model) else model
    return f"{name} ({', '.join(extra)})" if extra else name


def classified(models) -> str:
    """A sentence for a caption of avg mAP: which of the models need the study's classifier; empty if none."""
    names = sorted({model for model in models if has_separate_classifier(model)})
    return f" avg mAP of {_with_classifier(names)}" if names else ""


def short_names(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The table with the models' short names, and a sentence on what the long ones tell, empty if none.

    `+ classifier` is said once, below a figure or in a caption, not at every name. It is looked for in the
    names of columns and in columns of text.
    """
    texts = table.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]]
    names = {str(name) for name in (*table.columns, *table[texts].to_numpy().ravel())}
    short = lambda name: name.replace(CLASSIFIED, "") if isinstance(name, str) else name
    shortened = table.copy()
    for name in texts:
        shortened[name] = table[name].map(short)
    long = sorted(map(short, (name for name in names if CLASSIFIED in name)))
    return shortened.rename(columns=short), _with_classifier(long) if long else ""


def _with_classifier(names):
    return f"{', '.join(names)}: with the study's classifier."


def as_preset(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of models as their preset builds them. A table without `options` has no others."""
    return table[table.options.fillna("") == ""] if "options" in table else table


def with_shown_names(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the shown names of its models."""
    columns = [name for name in ("model", "preset", "options", "stream") if name in table]
    rows = list(table[columns].itertuples(index=False, name=None))
    names = {row: shown_name(*row) for row in set(rows)}
    return table.assign(model=[names[row] for row in rows])


def about_settings(settings) -> str:
    """What the augmentations in texts such as `exchange=0.3, rotate=30` are, for a caption; empty without."""
    text = " ".join(map(str, settings))
    known = [f"{name}: {words}" for name, words in AUGMENTATIONS.items() if f"{name}=" in text]
    return f" {'; '.join(known)}." if known else ""
