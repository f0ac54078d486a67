"""The vector registers of the processor for which kernels are compiled.

Numba compiles for the processor it runs on, or for that of `NUMBA_CPU_NAME` and
`NUMBA_CPU_FEATURES`; its own description of it, which is also part of its cache's key, is read
here. What is used of Numba and is not documented: `cpu_target` and the `magic_tuple` of its code
generator. Where they are missing, registers of 32 bytes are assumed, which every processor with
AVX2 has, and which others replace by several of theirs.
"""

from __future__ import annotations


def target_features() -> str:
    """The features of the processor that Numba compiles for, as LLVM writes them: +avx2,-sse4a.

    Returns
    -------
    str : empty where they are not known.
    """
    try:
        from numba.core.registry import cpu_target

        return str(cpu_target.target_context.codegen().magic_tuple()[2])
    except (ImportError, AttributeError, IndexError, TypeError):
        return ""


def register_bytes(features: str) -> int:
    """The bytes of a vector register of a processor with these features.

    Returns
    -------
    int

    >>> register_bytes("+avx2,+avx512f"), register_bytes("+avx2,-avx512f"), register_bytes("")
    (64, 32, 32)
    """
    return 64 if "+avx512f" in features.split(",") else 32


REGISTER_BYTES = register_bytes(target_features())  # of the processor that is compiled for
