"""Builds the wheel and the sdist of the last commit into dist/, and checks both.

`make release` runs it. Checks: the README renders and its links hold, the wheel holds the packages
of the product alone, and in a fresh environment the installed command prints its help and trains
20 steps.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"revinc", "jax_revinc", "torch_reference", "parity"}
LINK = re.compile(r"(!?)\[([^]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def relative_links(text: str) -> list[str]:
    """The files that a Markdown page links or shows, relative to it."""
    return [target for _, _, target, _ in LINK.findall(text) if "://" not in target]


def absolute_links(text: str, repository: str, tag: str) -> str:
    """A Markdown page with its relative links led to a tag of a repository on GitHub."""

    def replace(match: re.Match[str]) -> str:
        picture, words, target, anchor = match.groups()
        if "://" in target:
            return match[0]
        kind = "raw" if picture else "blob"
        url = f"{repository.rstrip('/')}/{kind}/{tag}/{target}{anchor or ''}"
        return f"{picture}[{words}]({url})"

    return LINK.sub(replace, text)


def export_commit(folder: Path) -> None:
    """Write the files of the last commit."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")


def prepare_readme(tree: Path) -> None:
    """Check the README's links, and make them absolute if the project names its repository."""
    project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    readme = tree / "README.md"
    text = readme.read_text()
    missing = [link for link in relative_links(text) if not (tree / link).exists()]
    if missing:
        sys.exit(f"README.md: there is no {', '.join(missing)}")
    repository = project.get("urls", {}).get("Repository")
    if repository:
        readme.write_text(absolute_links(text, repository, f"v{project['version']}"))
    else:
        print(
            "pyproject.toml names no repository ([project.urls], Repository), so the README's\n"
            "links hold in the sdist only. Name it before you upload to a package index.",
            flush=True,
        )


def check_sdist(path: Path, links: list[str]) -> None:
    """Exit unless the sdist holds every file that its README links."""
    with tarfile.open(path) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    missing = [link for link in links if link.rstrip("/") not in names]
    if missing:
        sys.exit(f"{path.name} lacks {', '.join(missing)}")


def check_wheel(path: Path) -> None:
    """Exit unless the wheel's packages are those of the product."""
    with zipfile.ZipFile(path) as files:
        tops = {name.partition("/")[0] for name in files.namelist()}
    packages = {top for top in tops if not top.endswith(".dist-info")}
    if packages != PACKAGES:
        sys.exit(f"{path.name} holds {sorted(packages)}, not {sorted(PACKAGES)}")


def try_wheel(path: Path, folder: Path) -> None:
    """Install the wheel into a fresh environment, and train there, away from the source."""
    venv.create(folder / "venv", with_pip=True)
    bin_folder = folder / "venv" / "bin"
    run(bin_folder / "python", "-m", "pip", "install", "--quiet", "--constraint",
        ROOT / "constraints.txt", path)  # fmt: skip
    command = bin_folder / "jax-revinc"
    run(command, "--help", cwd=folder)
    train = ("train", "--steps", 20, "--eval-every", 10, "--engine", "xla", "--out", "run")
    run(command, *train, cwd=folder)
    if not (folder / "run" / "report.html").exists():
        sys.exit("the installed command wrote no page")


def run(*words: object, cwd: Path = ROOT) -> None:
    """Run a command; exit with its status if it fails."""
    result = subprocess.run([str(word) for word in words], cwd=cwd, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, words))} failed")


def main() -> None:
    """Build and check."""
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree = folder / "source"
        export_commit(tree)
        links = relative_links((tree / "README.md").read_text())
        prepare_readme(tree)
        run(sys.executable, "-m", "build", "--outdir", dist, tree)
        (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
        check_sdist(sdist, links)
        check_wheel(wheel)
        run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
        try_wheel(wheel, folder)
    print(f"Checked: {wheel.name} and {sdist.name} are in {dist.relative_to(ROOT)}/.")


if __name__ == "__main__":
    main()
