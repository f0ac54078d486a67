"""LLVM IR for the vectors of a panel's row, from which kernels/tiles.py builds its loops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from llvmlite import ir
from numba.core import cgutils

BYTES = 64  # of a panel's row: one cache line, two vectors of AVX2 or one of AVX-512


class Vectors:
    """IR for the vectors of a panel's row: BYTES / width of them, of `width` bytes each."""

    def __init__(self, builder: Any, element: Any, width: int = 32) -> None:
        self.builder, self.size = builder, 4 if element == ir.FloatType() else 8
        self.count, self.lanes, self.columns = BYTES // width, width // self.size, BYTES // self.size
        self.vector = ir.VectorType(element, self.lanes)
        name = f"llvm.fma.v{self.lanes}f{8 * self.size}"
        self.fused = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(self.vector, [self.vector] * 3), name
        )

    def places(self, row: Any) -> list[Any]:
        """Pointers to the vectors that begin at `row`."""
        starts = [self.builder.gep(row, [ir.Constant(ir.IntType(64), v * self.lanes)]) for v in range(self.count)]
        return [self.builder.bitcast(start, self.vector.as_pointer()) for start in starts]

    def places_in(self, base: Any, starts: Iterable[Any]) -> list[Any]:
        """Pointers to the vectors that begin at each of these elements after `base`."""
        return [place for start in starts for place in self.places(self.builder.gep(base, [start]))]

    def load(self, pointers: list[Any]) -> list[Any]:
        return [self.builder.load(pointer, align=self.size) for pointer in pointers]

    def store(self, values: list[Any], pointers: list[Any]) -> None:
        for value, pointer in zip(values, pointers, strict=True):
            self.builder.store(value, pointer, align=self.size)

    def splat(self, scalar: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(
            first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        )

    def add_product(self, x: Any, values: list[Any], sums: list[Any]) -> list[Any]:
        """sums + x values, each in one rounding."""
        return [self.builder.call(self.fused, [x, value, total]) for value, total in zip(values, sums, strict=True)]

    def fetch(self, row: Any, steps: int) -> None:
        """Prefetch the cache lines of a panel's rows `steps` ... 2 steps - 1 after `row`."""
        byte, whole = ir.IntType(8).as_pointer(), ir.IntType(32)
        prefetch = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(ir.VoidType(), [byte, whole, whole, whole]), "llvm.prefetch.p0"
        )
        for j in range(steps, 2 * steps):
            line = self.builder.gep(row, [ir.Constant(ir.IntType(64), self.columns * j)])
            self.builder.call(
                prefetch, [self.builder.bitcast(line, byte), *(ir.Constant(whole, value) for value in (0, 3, 1))]
            )

    def sums_of_lanes(self, four: list[Any]) -> Any:
        """(., ., ., .): the lanes of each of four vectors added in pairs, ((0 + 1) + (2 + 3)) +
        ..., each sum in the same order.
        """
        half = self.lanes // 2
        low, high = (self._interleaved(four[i], four[i + 1]) for i in (0, 2))
        if half == 2:  # two lanes a sum are left
            return self._added(low, high, [0, 1, 4, 5], [2, 3, 6, 7])
        quarters = self._added(low, high, [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15])
        return self._added(quarters, quarters, [0, 1, 2, 3], [4, 5, 6, 7])

    def _interleaved(self, x: Any, y: Any) -> Any:
        """x0 + x1, y0 + y1, x2 + x3, y2 + y3, ..."""
        even = [lane + side for lane in range(0, self.lanes, 2) for side in (0, self.lanes)]
        return self._added(x, y, even, [place + 1 for place in even])

    def _added(self, x: Any, y: Any, first: list[int], second: list[int]) -> Any:
        """The sum of two selections from the lanes of x and y, numbered consecutively."""
        pick = [
            self.builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(which)), which))
            for which in (first, second)
        ]
        return self.builder.fadd(*pick)


def row_pointer(builder: Any, base: Any, stride: Any, numbers: Any, at: Any, i: int) -> Any:
    """Pointer to row numbers[at + i] of a matrix with that many elements to a row."""
    number = builder.load(builder.gep(numbers, [builder.add(at, ir.Constant(at.type, i))]))
    return builder.gep(base, [builder.mul(number, stride)])


def cases(builder: Any, number: Any, most: int) -> Iterator[int]:
    """1 ... `most`, each with the builder where the code for that number of the IR is to be put."""
    end = builder.append_basic_block("cases.end")
    switch = builder.switch(number, end)
    for value in range(1, most + 1):
        block = builder.append_basic_block(f"cases.{value}")
        switch.add_case(ir.Constant(number.type, value), block)
        builder.position_at_end(block)
        yield value
        builder.branch(end)
    builder.position_at_end(end)


def alternatives(builder: Any, is_one: list[Any]) -> Iterator[int]:
    """1 and 2, likewise: 1 where the only condition of the list holds; 1 alone for no condition."""
    if not is_one:
        yield 1
        return
    with builder.if_else(is_one[0]) as (then, otherwise):
        with then:
            yield 1
        with otherwise:
            yield 2
