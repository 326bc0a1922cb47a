"""Every kernel against float64 on random shapes: `python -m kernels.check` on a GPU; in the tests the interpreter."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from kernels.case import KERNELS, Case
from kernels.families import family

# Relative error of the whole output, |out - ref| / |ref|: one rounding of the result and of the probabilities.
TOLERANCE = {"fp8": 1e-3, "fp16": 1e-3, "bf16": 8e-3, "fp32": 1e-5}


def relative_error(case: Case, device: str, seed: int) -> float:
    """Run `case` on fresh random inputs and compare with its reference; nan if any element was not written."""
    import torch

    kernels = family(case.kernel)
    tensors = kernels.make_inputs(case, device, seed)
    result = kernels.run(case, tensors).double()
    expected = kernels.reference(case, tensors)
    norm = torch.linalg.vector_norm
    return float(norm(result - expected) / norm(expected).clamp_min(1e-30))


def random_case(kernel: str, draw: random.Random, longest: int) -> Case:
    """A random shape and tile of `kernel` with lengths up to `longest`, ragged more often than not."""
    kv_heads = draw.choice([1, 2, 3])
    block_m, block_n = draw.choice([16, 32, 64, 128]), draw.choice([16, 32, 64, 128])
    case = Case(
        kernel=kernel,
        dtype=draw.choice(["fp16", "bf16"]),
        batch=draw.choice([1, 2]),
        heads=kv_heads * draw.choice([1, 2, 4]),
        kv_heads=kv_heads,
        q_len=draw.randint(1, longest),
        kv_len=draw.randint(1, longest),
        head_dim=draw.choice([16, 24, 40, 64, 80, 96, 128]),
        causal=draw.random() < 0.5,
        window=draw.choice([0, 0, 1, draw.randint(2, longest)]),
        block_m=block_m,
        block_n=block_n,
        warps=draw.choice([4, 8]),
        stages=draw.choice([1, 2, 3]),
    )
    return _made_possible(case, draw)


def _made_possible(case: Case, draw: random.Random) -> Case:
    """The case with the fields changed that its kernel restricts."""
    if case.kernel == "matmul":
        return replace(case, kv_heads=case.heads, block_k=draw.choice([16, 32, 64]), head_dim=draw.randint(1, 300))
    if case.kernel in ("flash_decode", "lean_decode"):
        return replace(case, q_len=1, window=0, block_m=16, splits=draw.randint(1, 12))
    if case.kernel == "linear_attention":
        return replace(case, causal=True, window=0, kv_len=case.q_len, block_m=min(64, case.block_m))
    if case.kernel == "block_sparse":
        pattern = draw.choice(["local-2+global-1@128", "local-1+random-2@128", "stride-3+local-1@128"])
        return replace(case, window=0, pattern=pattern, kv_len=case.q_len if case.causal else case.kv_len)
    if case.kernel == "flash_attention_backward":
        return replace(case, window=0)
    if case.kernel == "softmax":
        return replace(case, block_m=draw.choice([1, 2, 4]), block_n=draw.choice([32, 128, 1024]))
    if case.kernel == "copy":
        return replace(case, block_n=draw.choice([64, 1024]), dtype=draw.choice(["fp16", "bf16", "fp32"]))
    if case.kernel == "unfused":
        return replace(case, variant=draw.choice(["", "", "qk", "softmax", "pv"]))
    return case


def check(device: str, count: int, longest: int, seed: int) -> Iterator[tuple[Case, float, bool]]:
    """(case, relative error, whether it is within the tolerance) of `count` random cases of every kernel.

    Tiles that need more shared memory than the GPU has are passed over.
    """
    from triton.runtime.errors import OutOfResources

    draw = random.Random(seed)
    for kernel in KERNELS:
        for number in range(count):
            case = random_case(kernel, draw, longest)
            try:
                error = relative_error(case, device, seed=draw.randint(0, 2**31) + number)
            except OutOfResources:
                continue
            yield case, error, error <= TOLERANCE[case.dtype]


def main() -> int:
    """Check on the GPU and print a line for each kernel; the exit code is 1 if any case is off."""
    from kernels.gpu import require_cuda

    require_cuda()
    worst: dict[str, float] = {}
    wrong = 0
    for case, error, right in check("cuda", count=12, longest=700, seed=random.SystemRandom().randint(0, 2**31)):
        worst[case.kernel] = max(worst.get(case.kernel, 0.0), error)
        if not right:
            wrong += 1
            print(f"wrong by {error:.2e}: {case}")
    for kernel, error in worst.items():
        print(f"{kernel:18} largest relative error {error:.2e}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
