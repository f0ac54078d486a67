"""Anderson mixing of a fixed-point iteration y <- T(y) on tensors, each sample with a history of
its own (kernels/anderson.py, all samples at once).

y <- sum_j alpha_j T(y_j), where the alpha, of sum 1, minimise ||sum_j alpha_j (T(y_j) - y_j)||
over the last m passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fsp_dynamics.kernels.anderson import GROWTH, RESTART

MEMORY = 5  # earlier passes that are mixed, where nothing else is chosen
RIDGE = 1e-12  # of each diagonal entry of the normal equations
PIVOT = 1e-14  # of a diagonal entry: what is left of a direction that the others explain


@dataclass(slots=True, eq=False)
class History:
    """The last passes of B samples.

    ys, fs (B, m, n) : y and T(y) - y, the newest in slot count % m. sizes (B,) : ||T(y) - y||^2 of
    the last pass. count (B,) : passes since the history was last emptied.
    """

    ys: torch.Tensor
    fs: torch.Tensor
    sizes: torch.Tensor
    count: torch.Tensor

    @classmethod
    def empty(cls, y: torch.Tensor, memory: int = MEMORY) -> History:
        """Nothing known yet of samples y (B, n); memory : m."""
        slots = y.new_zeros((len(y), memory, y.shape[1]))
        sizes = y.new_full((len(y),), torch.inf, dtype=torch.float64)
        return cls(slots, slots, sizes, torch.zeros(len(y), dtype=torch.int64, device=y.device))

    def rows(self, which: torch.Tensor) -> History:
        """The histories of these samples."""
        return History(self.ys[which], self.fs[which], self.sizes[which], self.count[which])

    def next(
        self, y: torch.Tensor, target: torch.Tensor, running: torch.Tensor, boxed: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(y of the next pass (B, n), whether the pass raises a doubt that an equilibrium is stable
        (B,): it carried a move of y on by GROWTH or more), given target = T(y).

        running (B,) : only these histories take up the pass. boxed : the new y is clipped to
        [0, 1]. A residual RESTART times that of the last pass empties the history.
        """
        f, memory = target - y, self.ys.shape[1]
        size = (f.double() ** 2).sum(1)
        count = torch.where(size > RESTART**2 * self.sizes, 0, self.count)
        slots = torch.arange(memory, device=f.device)
        last = (slots == ((self.count - 1) % memory)[:, None])[:, :, None]
        moved, sent = (torch.where(last, each, 0).sum(1) for each in (self.ys, self.ys + self.fs))
        carried, move = (((new - old).double() ** 2).sum(1) for new, old in ((target, sent), (y, moved)))
        doubtful = (self.count > 0) & (carried >= GROWTH**2 * move)
        used = (slots < count.clamp(max=memory)[:, None])[:, :, None]
        gamma = mixing_weights(torch.where(used, self.fs - f[:, None], 0).double(), f.double())
        moved = torch.where(used, self.ys + self.fs - target[:, None], 0).double()
        mixed = target + torch.bmm(gamma[:, None], moved)[:, 0]
        here = (slots == (count % memory)[:, None])[:, :, None] & running[:, None, None]
        self.ys, self.fs = torch.where(here, y[:, None], self.ys), torch.where(here, f[:, None], self.fs)
        self.sizes, self.count = torch.where(running, size, self.sizes), torch.where(running, count + 1, self.count)
        return (mixed.clamp(0, 1) if boxed else mixed).to(target.dtype), doubtful


def mixing_weights(differences: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """argmin_gamma ||f + sum_j gamma_j differences[j]|| of each sample (B, m), by Cholesky of the
    normal equations (kernels/anderson.solve).

    differences (B, m, n), f (B, n), both float64. A direction whose pivot is not positive is left
    out (gamma 0).
    """
    gram = differences @ differences.mT
    right = -torch.bmm(differences, f[:, :, None])
    diagonal = gram.diagonal(dim1=1, dim2=2) * (1 + RIDGE)
    gram = gram + torch.diag_embed(diagonal - gram.diagonal(dim1=1, dim2=2))
    columns = []
    for j in range(gram.shape[1]):
        pivot = gram[:, j, j]
        kept = pivot > PIVOT * diagonal[:, j]
        column = torch.where(kept[:, None], gram[:, :, j] / pivot[:, None] ** 0.5, 0)
        gram = gram - column[:, :, None] * column[:, None]
        columns.append(column)
    lower = torch.stack(columns, 2).tril()
    left_out = lower.diagonal(dim1=1, dim2=2) == 0
    lower = torch.where(left_out[:, :, None], torch.eye(lower.shape[1], dtype=lower.dtype, device=lower.device), lower)
    half = torch.linalg.solve_triangular(lower, torch.where(left_out[:, :, None], 0, right), upper=False)
    return torch.linalg.solve_triangular(lower.mT, half, upper=True)[:, :, 0]
