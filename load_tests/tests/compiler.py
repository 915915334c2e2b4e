"""The one place that looks for a C compiler: bench --check needs it."""

import shutil

import pytest

with_a_compiler = pytest.mark.skipif(
    not shutil.which("cc"), reason="there is no C compiler here (cc)"
)


def case(program, *more):
    """Return a program's case for parametrize: bench --check is skipped without a compiler."""
    return pytest.param(program, *more, marks=with_a_compiler if program == "bench --check" else ())
