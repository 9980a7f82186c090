"""Builds the Cython kernels; everything else is in pyproject.toml.

Without a working C compiler the installation goes on without them, and pcmc runs on their numpy twins.
"""

from Cython.Build import cythonize
from setuptools import Extension, setup

extensions = cythonize(
    [
        Extension(
            "pcmc.accel._kernels",
            sources=["accel/_kernels.pyx", "accel/_tile_read.c", "accel/_gaussian.c"],
            depends=[
                "accel/_tile_read.h",
                "accel/_tile_read_isa.h",
                "accel/_tile_read_conv_isa.h",
                "accel/_tile_read_dense_isa.h",
                "accel/_tile_read_pool.h",
                "accel/_gaussian.h",
                "accel/_gaussian_isa.h",
            ],
            include_dirs=["accel"],
            extra_compile_args=["-O3"],
        )
    ],
    language_level=3,
)
for extension in extensions:
    extension.optional = True  # cythonize forgets it when it is said above

setup(ext_modules=extensions)
