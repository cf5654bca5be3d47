"""Builds the convolutions on oneDNN where there is a compiler; everything else about the package is in pyproject.toml."""

from importlib import metadata
from pathlib import Path

import jaxlib
from setuptools import Extension, setup


def folder(package: str, file: str) -> str:
    """Where the wheel `package` has put `file`."""
    return str(next(Path(f.locate()).resolve().parent for f in metadata.files(package) if f.match(file)))


def extensions() -> list[Extension]:
    try:
        headers, library = folder("onednn-devel-cpu-gomp", "include/dnnl.hpp"), folder("onednn-cpu-gomp", "libdnnl.so.3")
    except metadata.PackageNotFoundError:
        return []
    return [Extension(
        "medjax.native._onednn",
        sources=["medjax/native/onednn.cc"],
        include_dirs=[headers, str(Path(jaxlib.__file__).parent / "include")],
        library_dirs=[library],
        libraries=[":libdnnl.so.3"],  # no path to it is stored: medjax.native loads it first
        extra_compile_args=["-std=c++17", "-O2", "-Wno-return-type"],
        optional=True,
    )]


setup(ext_modules=extensions())
