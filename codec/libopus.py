"""Finding libopus and binding the few functions of it that are used (opus.h, opus_defines.h)."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
from collections.abc import Iterator
from ctypes import POINTER, c_char_p, c_int, c_int16, c_int32, c_ubyte, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

ENVIRONMENT_VARIABLE = "DREDCALL_LIBOPUS"

MINIMUM_VERSION = (1, 3)
"""The first release whose wide band reaches down to 9 kb/s, so that a starved call keeps it."""


class OpusError(Exception):
    """What libopus, or a packet meant for it, did wrong."""


class OpusUnavailable(OpusError):  # noqa: N818 (reads as what it says)
    """No usable libopus; the message names every place searched."""


class Libopus:
    """The functions of one loaded libopus, with their types.

    Raises OSError when `path` is no loadable library, AttributeError when it is not libopus.
    """

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        self.path = path

        self.opus_get_version_string = library.opus_get_version_string
        self.opus_get_version_string.argtypes = []
        self.opus_get_version_string.restype = c_char_p
        self.version: str = self.opus_get_version_string().decode("ascii", "replace")

        self.opus_strerror = library.opus_strerror
        self.opus_strerror.argtypes = [c_int]
        self.opus_strerror.restype = c_char_p

        self.opus_encoder_create = library.opus_encoder_create
        self.opus_encoder_create.argtypes = [c_int32, c_int, c_int, POINTER(c_int)]
        self.opus_encoder_create.restype = c_void_p
        self.opus_encoder_destroy = library.opus_encoder_destroy
        self.opus_encoder_destroy.argtypes = [c_void_p]
        self.opus_encoder_destroy.restype = None
        self.opus_encode = library.opus_encode
        self.opus_encode.argtypes = [c_void_p, POINTER(c_int16), c_int, POINTER(c_ubyte), c_int32]
        self.opus_encode.restype = c_int32

        self.opus_decoder_create = library.opus_decoder_create
        self.opus_decoder_create.argtypes = [c_int32, c_int, POINTER(c_int)]
        self.opus_decoder_create.restype = c_void_p
        self.opus_decoder_destroy = library.opus_decoder_destroy
        self.opus_decoder_destroy.argtypes = [c_void_p]
        self.opus_decoder_destroy.restype = None
        self.opus_decoder_get_size = library.opus_decoder_get_size
        self.opus_decoder_get_size.argtypes = [c_int]
        self.opus_decoder_get_size.restype = c_int
        self.opus_decode = library.opus_decode
        self.opus_decode.argtypes = [c_void_p, c_char_p, c_int32, POINTER(c_int16), c_int, c_int]
        self.opus_decode.restype = c_int

        # The controls are variadic: only the fixed arguments are declared, so that ctypes passes
        # the third by the convention for variadic functions where that differs (arm64 macOS).
        self.opus_encoder_ctl = library.opus_encoder_ctl
        self.opus_encoder_ctl.argtypes = [c_void_p, c_int]
        self.opus_encoder_ctl.restype = c_int
        self.opus_decoder_ctl = library.opus_decoder_ctl
        self.opus_decoder_ctl.argtypes = [c_void_p, c_int]
        self.opus_decoder_ctl.restype = c_int

    def check(self, code: int, doing: str) -> int:
        """`code` when it is not an error; raises OpusError with libopus's own words otherwise."""
        if code < 0:
            reason = self.opus_strerror(code).decode("ascii", "replace")
            raise OpusError(f"{doing}: {reason} ({code})")
        return code

    def control(self, function: Any, state: int, request: int, value: int) -> None:
        """One OPUS_SET_* request of `function` (`opus_encoder_ctl` or `opus_decoder_ctl`)."""
        self.check(function(state, request, c_int32(value)), f"request {request} of {value}")

    def query(self, function: Any, state: int, request: int) -> int:
        """One OPUS_GET_* request; the value is an opus_int32."""
        value = c_int32()
        self.check(function(state, request, ctypes.byref(value)), f"request {request}")
        return value.value


def load_libopus(path: str | os.PathLike[str] | None = None) -> Libopus:
    """The libopus to use: `path`, else $DREDCALL_LIBOPUS, else the system's, else PyAV's.

    A library that was asked for by name is taken or refused, never replaced by another. The
    system's yields to a newer one of PyAV's: distributions keep a release for years, and what LBRR
    rebuilds gained 0.05 PLCMOS from 1.3.1 to 1.6.1.
    Raises OpusUnavailable.
    """
    named = os.fspath(path) if path is not None else os.environ.get(ENVIRONMENT_VARIABLE) or None
    return _load(named)


@lru_cache(maxsize=8)
def _load(named: str | None) -> Libopus:
    if named is not None:
        library, refusal = _try(named)
        if library is None:
            raise OpusUnavailable(f"no usable libopus: {refusal}")
        return library
    refusals = [f"${ENVIRONMENT_VARIABLE} is not set"]
    found: list[Libopus] = []
    for place, candidate in candidates():
        if candidate is None:
            refusals.append(f"{place}: none")
            continue
        library, refusal = _try(candidate)
        if library is not None:
            found.append(library)
        else:
            refusals.append(f"{place}: {refusal}")
    if found:  # of equals, the first
        return max(found, key=lambda library: parse_version(library.version) or ())
    raise OpusUnavailable(
        f"no usable libopus; searched: {'; '.join(refusals)}. Install the system's libopus "
        f"(libopus0 on Debian) or the package av, or name the library in ${ENVIRONMENT_VARIABLE}"
    )


def candidates() -> Iterator[tuple[str, str | None]]:
    """The places searched when no library is named, and what lies there."""
    # ctypes.util.find_library runs ldconfig and a compiler: only when it comes to that.
    from ctypes.util import find_library

    yield "the system", find_library("opus")
    spec = importlib.util.find_spec("av")
    if spec is None or not spec.submodule_search_locations:
        yield "PyAV", None
        return
    package = Path(spec.submodule_search_locations[0])
    # where auditwheel, delvewheel and delocate put a wheel's libraries
    folders = (package.parent / "av.libs", package / ".dylibs")
    bundled = sorted(file for folder in folders for file in folder.glob("*opus*") if _is_opus(file))
    yield f"PyAV ({folders[0]})", str(bundled[0]) if bundled else None


def _is_opus(file: Path) -> bool:
    return re.match(r"(lib)?opus[-.0-9]", file.name) is not None


def _try(path: str) -> tuple[Libopus | None, str]:
    try:
        library = Libopus(path)
    except OSError as error:
        return None, f"{path} does not load ({error})"
    except AttributeError as error:
        return None, f"{path} is not libopus ({error})"
    version = parse_version(library.version)
    if version is None or version < MINIMUM_VERSION:
        needed = ".".join(map(str, MINIMUM_VERSION))
        return None, f"{path} is {library.version!r}, and {needed} or newer is needed"
    return library, ""


def _release(library: Libopus) -> tuple[int, ...]:
    return parse_version(library.version) or ()


def parse_version(text: str) -> tuple[int, ...] | None:
    """`libopus 1.5.2-fixed` -> (1, 5, 2); None when there is no number in it."""
    match = re.search(r"(\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in match[1].split(".")) if match else None
