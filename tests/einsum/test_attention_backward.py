"""Cascades of attention's backward pass against torch's automatic differentiation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from einsum import Cascade
from einsum.interpreter import run


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_those_of_automatic_differentiation(group: int, causal: bool) -> None:
    torch = pytest.importorskip("torch")
    b, h, p, m, e, f = 2, 2, 5, 7, 4, 3
    generator = torch.Generator().manual_seed(group)

    def drawn(*shape: int) -> Any:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    q, k, v = (drawn(*shape).requires_grad_() for shape in ((b, h, group, p, e), (b, h, m, e), (b, h, m, f)))
    d_out = drawn(b, h, group, p, f)
    scores = torch.einsum("bhgpe,bhme->bhgpm", q, k) / e**0.5
    if causal:
        seen = torch.arange(m)[None, :] <= torch.arange(p)[:, None] + m - p
        scores = scores.masked_fill(~seen, -torch.inf)
    out = torch.einsum("bhgpm,bhmf->bhgpf", torch.softmax(scores, -1), v)
    expected = torch.autograd.grad(out, (q, k, v), d_out)

    cascade = Cascade.load("attention-grouped-backward")
    if causal:
        cascade = cascade.with_condition("m <= p + M - P")
    given = {"Q": q, "K": k, "V": v, "O": out, "DO": d_out, "LS": torch.logsumexp(scores, -1)}
    found = run(cascade, {name: value.detach().numpy() for name, value in given.items()}, {"G": group})
    for name, gradient in zip(("DQ", "DK", "DV"), expected, strict=True):
        np.testing.assert_allclose(found[name], gradient.numpy(), rtol=1e-10, atol=1e-12)
