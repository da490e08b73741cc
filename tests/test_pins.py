"""Every promised Python: the pins install with it, and CI runs on the oldest and the newest.

`make pins` asks the package index about pins that are not installed here.
"""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement  # pytest needs it too
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
OLDEST = re.search(r"^OLDEST := (.+)$", MAKEFILE, re.MULTILINE)[1]
NEWEST = re.search(r"^NEWEST := (.+)$", MAKEFILE, re.MULTILINE)[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins():
    """The requirement of every line, such as ``jax==0.10.2``."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    said = (line.partition("#")[0].strip() for line in lines)
    return [Requirement(words) for words in said if words]


def python_of(pin):
    """The Pythons that an installed distribution takes, if it is the pinned one."""
    try:
        found = metadata.distribution(pin.name)
    except metadata.PackageNotFoundError:
        return None
    return (
        SpecifierSet(found.metadata["Requires-Python"] or "")
        if found.version in pin.specifier
        else None
    )


def test_the_oldest_python_is_the_first_that_the_package_promises():
    minor = OLDEST.removesuffix(".0")
    assert PROJECT["requires-python"] == f">={minor}"
    assert f"({minor.replace('.', ', ')})" in MAKEFILE  # what `make` refuses


def promised_pythons():
    """The minor versions in the classifiers, oldest first."""
    found = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
    return sorted(found, key=Version)


def test_the_classifiers_run_from_the_oldest_python_to_the_newest():
    assert promised_pythons()[0] == OLDEST.removesuffix(".0")
    assert promised_pythons()[-1] == NEWEST.removesuffix(".0")


def test_ci_runs_on_the_oldest_and_the_newest_python_on_linux_and_macos():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["checks"]
    assert job["strategy"]["matrix"] == {
        "os": ["ubuntu-latest", "macos-latest"],
        "python": [promised_pythons()[0], promised_pythons()[-1]],
    }
    setup = next(step for step in job["steps"] if "setup-python" in step.get("uses", ""))
    assert setup["with"]["python-version"] == "${{ matrix.python }}"
    assert job["runs-on"] == "${{ matrix.os }}"
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make lint", ".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


def test_every_pin_names_one_version():
    assert [pin.name for pin in pins() if not re.fullmatch(r"==[^=,*]+", str(pin.specifier))] == []
    names = [pin.name.lower().replace("_", "-") for pin in pins()]
    assert len(names) == len(set(names))


def test_every_installed_pin_takes_the_oldest_python():
    pythons = {pin.name: python for pin in pins() if (python := python_of(pin)) is not None}
    assert "jax" in pythons
    assert {name: str(python) for name, python in pythons.items() if OLDEST not in python} == {}
