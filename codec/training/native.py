"""Compile a C source beside the trainer on first use and load it with ctypes.

Training runs on the machine that compiles, so unlike the extension modules these kernels are built
for it (`-march=native`). Without a compiler the caller falls back to plain PyTorch.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

FLAGS = (
    *("-O3", "-march=native", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math"),
    *("-shared", "-fPIC", "-pthread"),
)

log = logging.getLogger(__name__)


def cache_directory() -> Path:
    """Where compiled kernels are kept: `$XDG_CACHE_HOME/dredcall` or `~/.cache/dredcall`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dredcall"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


@cache
def load(source: Path) -> ctypes.CDLL | None:
    """The library compiled from `source`, or None (and one log line) when that is not possible.

    The compiler is `$CC`, else `cc`. The result is cached by the text of the source, the flags and
    the processor, so editing the source or moving to another machine compiles anew.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        log.warning("no C compiler: %s is replaced by PyTorch, which is much slower", source.name)
        return None
    key = "\0".join([source.read_text(), compiler, *FLAGS, _processor()])
    name = f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    library = cache_directory() / name
    try:
        if not library.exists():
            library.parent.mkdir(parents=True, exist_ok=True)
            # renamed into place, so that a second process never loads half a file
            with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
                built = Path(scratch) / name
                subprocess.run(
                    [compiler, *FLAGS, "-o", str(built), str(source), "-lm"],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                built.replace(library)
        return ctypes.CDLL(str(library))
    except (OSError, subprocess.CalledProcessError) as error:
        reason = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        first = next((line for line in reason.splitlines() if "error" in line), reason.strip())
        log.warning("%s does not compile (%s): PyTorch, much slower", source.name, first)
        return None
