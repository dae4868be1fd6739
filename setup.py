"""Extension modules; everything else is in pyproject.toml.

Each `codec_ext/NAME.pyx` becomes the module `codec_ext.NAME`, linked with the C sources
`codec_ext/NAME_*.c`. No flag here ties a build to the machine that made it: kernels pick their
instruction set at run time. Reassociation is allowed, because without it a dot product does not
vectorise; `-ffast-math` is not, because linking with it switches denormals off in every process
that imports the module.
"""

from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup

FLAGS = [
    "-O3",
    "-std=gnu11",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-fassociative-math",
]

here = Path(__file__).parent
extensions = [
    Extension(
        f"codec_ext.{source.stem}",
        [
            f"codec_ext/{source.name}",
            *sorted(f"codec_ext/{c.name}" for c in (here / "codec_ext").glob(f"{source.stem}_*.c")),
        ],
        include_dirs=["codec_ext", np.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
        extra_compile_args=FLAGS,
    )
    for source in sorted((here / "codec_ext").glob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        build_dir="build/cython",
        compiler_directives={"language_level": "3"},
    )
)
