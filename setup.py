"""The build step that pyproject.toml cannot express.

The wheel contains notebooks, grids and prior results in `tal_lib/carried`.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

STUDY = ["notebooks/*.ipynb", "notebooks/sweeps/*.yaml", "results/prior/*", "CITATION.cff"]


class BuildWithStudy(build_py):
    """Copies the study into a wheel. An editable installation reads it from the checkout."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for path in (path for pattern in STUDY for path in Path().glob(pattern)):
            target = Path(self.build_lib, "tal_lib", "carried", path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


setup(cmdclass={"build_py": BuildWithStudy})
