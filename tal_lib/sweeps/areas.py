"""Areas of code, and the areas that a notebook's numbers depend on. Import statements decide.

An area is a module that computes numbers. Its name is its path: `models/tridet`, `models/parts/pyramid`,
`evaluation/average_precision`, `segments`. There are three other kinds: `recipes/<model>` is the values of a
model's training recipes, `presets/<model>` those of its options in all presets but `compact` (cells with such
a preset need it), and `notebooks/<name>` is a notebook's code. Modules that only connect, check, store or
draw are not areas, except `video/overlay`: the live demo's drawing is timed.
"""

import ast
import importlib
import re
from dataclasses import asdict, fields
from functools import cache, cached_property
from pathlib import Path

from tal_lib import plugins
from tal_lib.files import digest
from tal_lib.fingerprint import attributes, fingerprint, imports, parse

LIBRARY = Path(__file__).resolve().parent.parent
PACKAGE = LIBRARY.name
COMPUTES = re.compile(
    r"(models|training|evaluation|cost|data)/.+|segments|study|export(ed)?"
    r"|process/(memory|environment|parts|precision)|sweeps/(recording|trained)"
    r"|video/(backbones|crowded|end_to_end|extract|extraction_cost|frames|hog_hof|inception_resnet|live|long_videos|overlay|source|stream)"
)
CONNECTS = re.compile(
    r"(.+/)?__init__|data/(registry|checks|remarks|limits|content|fetching|composition)|models/parts/(registry|checkpoint_file)"
    r"|training/(checkpoints|saved|settings)|evaluation/(detections|matching)|cost/machine"
)
IPYTHON = re.compile(r"^\s*[%!].*$", re.M)  # a command in a cell, which is not Python
PLUGIN = re.compile(r"tal_plugin_(.+)_[0-9a-f]{8}")  # module of a plug-in's file: stem, and hash of its path
COMPACT = "compact"
FLOOR = "timeline_prior"  # the model of `tal_lib.study.floor`
RECIPES = "training/recipes"  # a table: only the values of a cell's models count


class Areas:
    """The areas of a library, read from its files.

    Args:
        library: folder of the package.
        names: area -> its first name, for areas that were moved. Fingerprints use the first name.
    """

    def __init__(self, library: Path = LIBRARY, names: dict[str, str] | None = None):
        self.library, self.names = library, names or {}
        self._sources: dict[str, list] = {}
        self._fingerprints: dict[str, str] = {}
        self._of_cells: dict[tuple[str, ...], str] = {}
        self._needed: dict[str, set[str]] = {}
        self._outside: dict[str, str] = {}  # area of a plug-in -> its module

    @cached_property
    def files(self) -> list[str]:
        """Areas that are files of the library."""
        paths = (path.relative_to(self.library).with_suffix("") for path in self.library.rglob("*.py"))
        return sorted(name for name in map(Path.as_posix, paths) if is_area(name) and name != RECIPES)

    def fingerprint(self, area: str) -> str:
        """Fingerprint of a file of the library, or of a model's recipes or presets."""
        if area not in self._fingerprints:
            kind, _, name = area.partition("/")
            values = {"recipes": _recipes, "presets": _presets}.get(kind)
            self._fingerprints[area] = values(name) if values else fingerprint(self._text(area), self.resolve)
        return self._fingerprints[area]

    def fingerprint_of(self, cells: list[str]) -> str:
        """Fingerprint of a notebook's code cells."""
        key = tuple(cells)
        if key not in self._of_cells:
            self._of_cells[key] = fingerprint(cells, self.resolve)
        return self._of_cells[key]

    def needs(self, cells: list[str], models: tuple[str, ...], loader: str) -> set[str]:
        """Areas of the library that a notebook's numbers depend on.

        Args:
            cells: sources of the notebook's code cells.
            models: names of the models that the notebook runs.
            loader: module that loads the benchmark's features, or empty.
        """
        tree = [parse([IPYTHON.sub("", part)])[0] if isinstance(part, str) else part for part in parse(cells)]
        modules = set(self._imported(tree))
        named = imports(part for part in tree if isinstance(part, ast.Module))
        if named.get("floor") == (f"{PACKAGE}.study", "floor"):  # it names its model in a text
            models = (*models, FLOOR)
        modules.update(map(_module_of_model, models))
        if loader:
            modules.add(loader)
        areas = set().union(*map(self._closure, modules))
        if RECIPES in areas:
            areas = areas - {RECIPES} | {f"recipes/{model}" for model in models}
        return areas

    def resolve(self, module: str, path: list[str]) -> str:
        """Text that identifies `module.a.b`: `area:name`, with the first name of the area that defines it.

        Outside the areas it is the name alone.
        """
        if module.partition(".")[0] != PACKAGE:
            return ".".join([module, *path])
        place, symbol, rest = module, "", list(path)
        while rest and not symbol:
            place, symbol = self._locate(place, rest.pop(0))
        area = self._area(place)
        if is_area(area):
            return ":".join([self.names.get(area, area), ".".join(filter(None, [symbol, *rest]))])
        if place.startswith(f"{PACKAGE}.reports"):
            return ".".join(filter(None, [place, symbol, *rest]))
        return ".".join([symbol or place.rpartition(".")[2], *rest])

    def _locate(self, module, name):
        """(module, name in it) that `from module import name` gives, through the imports of packages."""
        seen = set()
        while (
            (path := self._path(module)) is not None
            and path.name == "__init__.py"
            and (module, name) not in seen
        ):
            seen.add((module, name))
            origin = imports(self._trees(self._area(module))).get(name)
            if origin is None:
                break
            module, name = origin
            if not name:
                return module, ""
        return (f"{module}.{name}", "") if self._path(f"{module}.{name}") else (module, name)

    def _path(self, module):
        """The file of a module of this library. None if the library has no such file."""
        if module.partition(".")[0] != PACKAGE:
            return None
        base = self.library.joinpath(*module.split(".")[1:])
        return next(
            (path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None
        )

    def _area(self, module):
        path = self._path(module)
        return path.relative_to(self.library).with_suffix("").as_posix() if path else ""

    def _text(self, area):
        if area.startswith("plugin/"):
            module = importlib.import_module(self._outside[area])
            return Path(module.__file__).read_text(encoding="utf-8")  # pyright: ignore[reportArgumentType]
        return (self.library / f"{area}.py").read_text(encoding="utf-8")

    def _trees(self, area):
        if area not in self._sources:
            self._sources[area] = parse(self._text(area))
        return self._sources[area]

    def _imported(self, trees):
        """Modules of this library whose names the code uses."""
        trees = [tree for tree in trees if isinstance(tree, ast.AST)]
        names, modules = imports(trees), set()
        packages = {}
        for alias, (module, name) in names.items():
            if module.partition(".")[0] != PACKAGE:
                continue
            place, symbol = self._locate(module, name)
            path = self._path(place)
            if not symbol and path is not None and path.name == "__init__.py":
                packages[alias] = place
            else:
                modules.add(place)
        for tree in trees if packages else ():  # of a package, only the modules that are used
            for alias, name in attributes(tree):
                if alias in packages:
                    modules.add(self._locate(packages[alias], name)[0])
        return modules

    def _plugin(self, module):
        """Area of a module outside this library. A plug-in's file has its name, wherever the file lies."""
        file, stems = PLUGIN.fullmatch(module), [path.stem for path in plugins.files()]
        area = f"plugin/{file[1]}.py" if file and stems.count(file[1]) == 1 else f"plugin/{module}"
        self._outside[area] = module
        return area

    def _closure(self, module):
        """Areas that a module's numbers depend on, including the module's area."""
        if module not in self._needed:
            areas, waiting = set(), [module]
            while waiting:
                current = waiting.pop()
                area = self._area(current) or self._plugin(current)
                if area not in areas and is_area(area):
                    areas.add(area)
                    waiting += self._imported(self._trees(area))
            self._needed[module] = areas
        return self._needed[module]


def is_area(name: str) -> bool:
    """Whether code of this name computes numbers."""
    if name.startswith("plugin/"):
        return name.split("/")[1].partition(".")[0] != PACKAGE
    return bool(COMPUTES.fullmatch(name)) and not CONNECTS.fullmatch(name)


def _recipes(model):
    from tal_lib.models.parts import registry
    from tal_lib.training.recipes import recipe_for

    presets = sorted(registry.presets(model)) if model in registry.every_name() else ["compact"]
    return digest([[preset, asdict(recipe_for(model, preset))] for preset in presets])


def _presets(model):
    from tal_lib.models.parts import registry

    others = [preset for preset in registry.presets(model) if preset != COMPACT]
    return digest([[preset, asdict(registry.config(model, preset))] for preset in sorted(others)])


def models_in(parameters) -> tuple[str, ...]:
    """Names of models anywhere in parameters, sorted.

    If an option of such a model names another model, that model is included.
    """
    words, waiting = set(), [parameters]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, str):
            words.add(value)
    return _models_among(frozenset(words - {""}))


@cache
def _models_among(words):
    if not words:
        return ()  # then the models need not be imported
    from tal_lib.models.parts import registry

    known, models, waiting = registry.every_name(), set(), list(words)
    while waiting:
        word = waiting.pop()
        if word in known and word not in models:
            models.add(word)
            waiting += _options(word)
    return tuple(sorted(models))


def _options(model):
    """The text options of a model in all its presets."""
    from tal_lib.models.parts import registry

    configs = [registry.config(model, preset) for preset in registry.presets(model)]
    values = {
        getattr(config, field.name)
        for config in configs
        for field in fields(config)
        if field.type in (str, "str")
    }
    return sorted(values)


def _module_of_model(model):
    """The module that defines a model."""
    from tal_lib.models.parts import registry

    return registry.class_of(model).__module__
