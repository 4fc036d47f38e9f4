"""Write requirements.lock and environment.yml.

`make lock` keeps the versions of the present lock. `make lock UPGRADE=1` takes the newest versions. pip
resolves pyproject.toml's ranges without installing anything. By default a new dependency changes no other
version. Local version labels (`+cpu`) are left out, so the lock is valid on every machine.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
EXTRAS = "dev,data,gpu"  # dev holds the others; fuzz (atheris) has no wheel for every Python
HEADER = (
    "# Written by `make lock`: exact versions of everything that '.[dev,data,gpu]' installs.\n"
    "# Use: pip install --constraint requirements.lock\n"
)


def resolve(upgrade: bool) -> list[str]:
    """`name==version` of every package that the extras need, sorted by name."""
    lock = REPOSITORY / "requirements.lock"
    keep = ["--constraint", str(lock)] if lock.is_file() and not upgrade else []
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        what = ["--report", report.name, *keep, "--editable", f"{REPOSITORY}[{EXTRAS}]"]
        subprocess.run([*command, *what], check=True)
        packages = [item["metadata"] for item in json.load(report)["install"]]
    pins = {package["name"].lower().replace("_", "-"): package["version"] for package in packages}
    return [
        f"{name}=={version.partition('+')[0]}"
        for name, version in sorted(pins.items())
        if name not in ("efficient-tal", "pip", "setuptools")
    ]


def environment(pins: list[str]) -> str:
    """environment.yml for conda: the oldest supported Python, and the lock's packages by pip."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = [
        "# Written by `make lock` from pyproject.toml and requirements.lock.",
        "# Use: conda env create -f environment.yml",
        f"name: {project['name']}",
        "channels: [conda-forge]",
        "dependencies:",
        f"  - python={project['requires-python'].removeprefix('>=')}",
        "  - pip",
        "  - pip:",
        *(f"      - {pin}" for pin in pins),
        "      - --editable .",
    ]
    return "\n".join(lines) + "\n"


def lowest() -> list[str]:
    """The lower bound of each direct dependency as a pin."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    bounds = [re.match(r"([\w-]+)>=([\w.]+)", text) for text in project["dependencies"]]
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


def read_lock() -> list[str]:
    """The lock's pins."""
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def main() -> None:
    """Resolve, then write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions in the ranges")
    parser.add_argument("--lowest", action="store_true", help="only print the ranges' lower bounds as pins")
    chosen = parser.parse_args()
    if chosen.lowest:
        print("\n".join(lowest()))
        return
    pins = resolve(chosen.upgrade)
    (REPOSITORY / "requirements.lock").write_text(HEADER + "\n".join(pins) + "\n")
    (REPOSITORY / "environment.yml").write_text(environment(pins))
    print(f"{len(pins)} packages in requirements.lock and environment.yml")


if __name__ == "__main__":
    main()
