"""The Pythons of this machine: whichever versions are on the path, this process's own among them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache

__all__ = ["pythons"]

VERSIONS = range(10, 20)  # 3.10 is the first that the library supports


@cache
def pythons() -> dict[str, str]:
    """Version -> interpreter, of every one that runs."""
    found = {_version(sys.executable): sys.executable}
    for minor in VERSIONS:
        path = shutil.which(f"python3.{minor}")
        version = _version(path) if path else ""
        if version:
            found.setdefault(version, path or "")
    return found


def _version(path: str) -> str:
    """3.11; empty for what does not run, as a shim of a version manager may not."""
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([path, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
