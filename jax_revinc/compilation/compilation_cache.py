"""A folder that keeps compiled programs, so that only the first run on a machine compiles them.

Its contents are executed, so only this user may enter it: see `revinc.user_only_folder`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import jax

from revinc.one_time_warnings import notice
from revinc.user_only_folder import PrivateFolder


def cache_folder() -> Path:
    """The folder that keeps compiled programs: ``JAX_REVINC_CACHE``, else one in the user's cache.

    A user without a home folder has it among the temporary files.
    """
    if chosen := os.environ.get("JAX_REVINC_CACHE"):
        return Path(chosen)
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "jax-revinc"
    try:
        home = Path.home()
    except RuntimeError:
        folder = Path(tempfile.gettempdir()) / f"jax-revinc-{os.geteuid()}"
        notice(
            f"There is no home folder, so compiled programs are kept in {folder}; "
            "JAX_REVINC_CACHE names another folder."
        )
        return folder
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "jax-revinc"


def enable_compilation_cache() -> None:
    """Make JAX keep XLA's compiled programs on disk, as far as JAX's environment variables allow it.

    They are in ``xla`` in `cache_folder`. JAX loads any file that it finds there. So a folder that
    others can write to is not used, and a notice says so.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = cache_folder() / "xla"
        try:
            PrivateFolder(folder, files_are_checked=False).close()
        except OSError as why:
            notice(f"XLA's programs are compiled anew, and not kept for the next time: {why}.")
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
