"""Builds the Cython kernels; everything else is in pyproject.toml.

Without a working C compiler the installation goes on without them, and pcmc runs on their numpy twins.
"""

from Cython.Build import cythonize
from setuptools import Extension, setup

SHARED = ["accel/_instruction_set.h", "accel/_gaussian.h", "accel/_gaussian_isa.h", "accel/_threefry_isa.h"]

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
                *SHARED,
            ],
            include_dirs=["accel"],
            extra_compile_args=["-O3"],
        ),
        Extension(
            "pcmc.accel._training",
            sources=["accel/_training.pyx", "accel/_training_kernels.c", "accel/_gaussian.c"],
            depends=[
                "accel/_training_kernels.h",
                "accel/_training_isa.h",
                "accel/_training_reads_isa.h",
                "accel/_training_pulses_isa.h",
                "accel/_training_cells_isa.h",
                "accel/_training_set_isa.h",
                *SHARED,
            ],
            include_dirs=["accel"],
            extra_compile_args=["-O3"],
        ),
    ],
    language_level=3,
    build_dir="build/cython",
)
for extension in extensions:
    extension.optional = True  # cythonize forgets it when it is said above

setup(ext_modules=extensions)
