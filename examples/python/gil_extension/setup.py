"""Builds the extension: ``pip install .`` or ``python setup.py build_ext --inplace``."""

from setuptools import Extension, setup

setup(
    name="libpool-example-primes",
    version="0.1",
    ext_modules=[Extension("primes", ["primes.c"])],
    py_modules=[],
)
