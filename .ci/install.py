"""Install this project with pinned versions into the environment of the Python that runs this.

uv installs the same versions as pip in a fraction of the time. It is told pip's settings, because it
does not read them. If uv can't be had, or fails, pip installs.

    python .ci/install.py CONSTRAINTS EXTRA
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys

PIP = [sys.executable, "-m", "pip"]

SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
}
"""uv's environment variables by pip's name of a setting."""


def pip_settings() -> dict[str, str]:
    """The settings of pip's files and environment; the environment's win."""
    listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=False)
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in found:
            found[section][key] = ast.literal_eval(value)
    return {key: value for section in found.values() for key, value in section.items()}


def uv_environment() -> dict[str, str]:
    """The environment in which uv finds packages where pip does."""
    chosen = {
        SETTINGS[key]: " ".join(value.split())
        for key, value in pip_settings().items()
        if key in SETTINGS
    }
    # As pip does: the best version of all indexes.
    return {"UV_INDEX_STRATEGY": "unsafe-best-match", **chosen, **os.environ}


def main() -> int:
    constraints, extra = sys.argv[1:]
    asked = ["--constraint", constraints, "--editable", f".[{extra}]"]
    if subprocess.run([*PIP, "install", "--quiet", "uv"], check=False).returncode == 0:
        uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
        if subprocess.run([*uv, *asked], env=uv_environment(), check=False).returncode == 0:
            return 0
        print("uv could not install this, so pip does.")
    return subprocess.run([*PIP, "install", "--quiet", *asked], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
