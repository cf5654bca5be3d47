"""The native convolutions: oneDNN's library from its wheel, and the handlers built from `onednn.cc`."""

import contextlib
import ctypes
import functools
import importlib.util
import os
import warnings
from collections.abc import Iterator
from importlib import metadata

import jax

TARGETS = {"medjax_convolve": "MedjaxConvolve", "medjax_convolve_biased": "MedjaxConvolveBiased"}


def problem() -> str:
    """Why oneDNN can't be called, or an empty string."""
    return _load()[1]


@functools.cache
def available() -> bool:
    """Whether oneDNN can be called; warns once where it can't."""
    if problem():
        warnings.warn(f"convolutions run on XLA, slower on CPU: {problem()}", stacklevel=2)
    return not problem()


@functools.cache
def bfloat16() -> bool:
    """Whether oneDNN convolves bfloat16 on this processor; before AVX-512 there is float32 only."""
    return bool(_handlers().MedjaxBfloat16())


@functools.cache
def threads() -> int:
    """How many threads oneDNN divides a convolution among: OMP_NUM_THREADS, or the cores this process may use."""
    return int(_handlers().MedjaxThreads())


def _handlers() -> ctypes.CDLL:
    library, why = _load()
    if library is None:
        raise RuntimeError(why)
    return library


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    """The library, its handlers registered with XLA; or why there is none."""
    handlers = importlib.util.find_spec("medjax.native._onednn")
    if handlers is None or handlers.origin is None:
        return None, ("medjax was installed without a C++ compiler; install g++ and the package onednn-cpu-gomp, then "
                      "medjax again")
    try:
        files = metadata.files("onednn-cpu-gomp") or []
        onednn = next(str(f.locate()) for f in files if f.name == "libdnnl.so.3")
        private = os.RTLD_NOW | os.RTLD_LOCAL | os.RTLD_DEEPBIND  # PyTorch and XLA bring their own oneDNN
        with _short_spins():
            ctypes.CDLL(onednn, private)
        library = ctypes.CDLL(handlers.origin, private)
        library.MedjaxBfloat16.restype = ctypes.c_bool
        for target, handler in TARGETS.items():
            jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(library, handler)), platform="cpu")
    except (metadata.PackageNotFoundError, StopIteration):
        return None, "the package onednn-cpu-gomp is missing; install it with pip"
    except OSError as error:
        return None, f"oneDNN can't be loaded ({error}); install libgomp1 and reinstall onednn-cpu-gomp"
    except AttributeError:
        return None, "medjax's convolutions were built from an older version; install medjax again"
    return library, ""


@contextlib.contextmanager
def _short_spins() -> Iterator[None]:
    """OpenMP, as it is loaded, is told to sleep soon between calls, where its threads would take XLA's cores."""
    chosen = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys()
    if not chosen:
        os.environ["GOMP_SPINCOUNT"] = "1000"
    try:
        yield
    finally:
        if not chosen:
            del os.environ["GOMP_SPINCOUNT"]
