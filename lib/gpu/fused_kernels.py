"""The kernels of lib/gpu/fused.py, in Triton's language.

Maps are rows (N H W, C), the memory order of channels-last. Several programs sum over all rows, a chunk each; the last
to finish adds up what all have left in `partial`, in program order.
"""

import triton
import triton.language as tl


@triton.jit
def _tile(pointer, row, inside, C: tl.constexpr):
    """Values (rows, C) of maps in memory order, as float32; zero outside."""
    at = row[:, None] * C + tl.arange(0, C)[None, :]
    return tl.load(pointer + at, mask=inside[:, None], other=0.0).to(tl.float32)


@triton.jit
def _rectified(values):
    return tl.where(values < 0, 0.0, values)  # a NaN stays one, as in PyTorch


@triton.jit
def _input(x, row, inside, RELU: tl.constexpr, C: tl.constexpr):
    """The values to normalise (rows, C)."""
    values = _tile(x, row, inside, C)
    return _rectified(values) if RELU else values


@triton.jit
def _kept(seed, layer, row, least, C: tl.constexpr, ROUNDS: tl.constexpr):
    """Which values (rows, C) dropout keeps: those whose 32 random bits are `least` or more."""
    quads = row[:, None] * (C // 4) + tl.arange(0, C // 4)[None, :]
    a, b, c, d = tl.randint4x(tl.load(seed) + layer, quads, n_rounds=ROUNDS)
    bits = tl.interleave(tl.interleave(a, b), tl.interleave(c, d))
    return bits.to(tl.uint32, bitcast=True) >= least.to(tl.uint32)


@triton.jit
def _leave(partial, counter, one, other, C: tl.constexpr):
    """Store two sums (C,); returns whether this program is the last to do so: then all can be read."""
    at = partial + tl.program_id(0) * (2 * C) + tl.arange(0, C)
    tl.store(at, one)
    tl.store(at + C, other)
    tl.debug_barrier()
    last = tl.atomic_add(counter, 1) == tl.num_programs(0) - 1
    if last:
        tl.store(counter, 0)
    return last


@triton.jit
def _left_by(program, partial, C: tl.constexpr):
    """The two sums (programs, C) that each of these programs stored; zero where there is no such program."""
    inside = (program < tl.num_programs(0))[:, None]
    at = partial + program[:, None] * (2 * C) + tl.arange(0, C)[None, :]
    return tl.load(at, inside, 0.0, cache_modifier=".cg"), tl.load(at + C, inside, 0.0, cache_modifier=".cg")


@triton.jit(do_not_specialize=["rows", "chunk"])
def statistics(
    x, partial, counter, saved, running_mean, running_var, momentum, eps, rows, chunk,
    RELU: tl.constexpr, C: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Mean and 1/std of each channel -> saved (2, C); updates the running statistics."""
    first = tl.program_id(0) * chunk
    end = tl.minimum(first + chunk, rows)
    mean = tl.zeros((C,), tl.float32)
    squares = tl.zeros((C,), tl.float32)  # of deviations from the mean (Chan et al. 1979)
    for start in range(first, end, ROWS):
        row = start + tl.arange(0, ROWS)
        values = _input(x, row, row < end, RELU, C)
        count = tl.minimum(ROWS, end - start).to(tl.float32)
        before = (start - first).to(tl.float32)
        here = tl.sum(values, 0) / count
        distance = tl.where((row < end)[:, None], values - here[None, :], 0.0)
        apart = here - mean
        mean += apart * (count / (before + count))
        squares += tl.sum(distance * distance, 0) + apart * apart * (before * count / (before + count))
    if _leave(partial, counter, mean, squares, C):
        _all_statistics(partial, saved, running_mean, running_var, momentum, eps, rows, chunk, C, ROWS)


@triton.jit
def _rows_of(program, rows, chunk):
    """How many rows (programs, 1) each of these programs had; zero where there is no such program."""
    return tl.maximum(tl.minimum(rows - program * chunk, chunk), 0).to(tl.float32)[:, None]


@triton.jit
def _all_statistics(
    partial, saved, running_mean, running_var, momentum, eps, rows, chunk, C: tl.constexpr, ROWS: tl.constexpr
):
    channel = tl.arange(0, C)
    mean = tl.zeros((C,), tl.float32)
    for start in range(0, tl.num_programs(0), ROWS):
        program = start + tl.arange(0, ROWS)
        means, _ = _left_by(program, partial, C)
        mean += tl.sum(means * _rows_of(program, rows, chunk), 0)
    mean /= rows
    squares = tl.zeros((C,), tl.float32)
    for start in range(0, tl.num_programs(0), ROWS):
        program = start + tl.arange(0, ROWS)
        means, more = _left_by(program, partial, C)
        apart = means - mean[None, :]
        squares += tl.sum(more + apart * apart * _rows_of(program, rows, chunk), 0)
    tl.store(saved + channel, mean)
    tl.store(saved + C + channel, 1 / tl.sqrt(squares / rows + eps))
    moved = tl.load(running_mean + channel)
    tl.store(running_mean + channel, moved + momentum * (mean - moved))
    moved = tl.load(running_var + channel)
    tl.store(running_var + channel, moved + momentum * (squares / (rows - 1) - moved))


@triton.jit(do_not_specialize=["layer", "least", "rows"])
def forward(
    x, y, added, saved, weight, bias, seed, layer, least, scale, rows,
    RELU: tl.constexpr, DROPS: tl.constexpr, RELU_AFTER: tl.constexpr,
    C: tl.constexpr, ROWS: tl.constexpr, ROUNDS: tl.constexpr, ADDS: tl.constexpr,
):  # fmt: skip
    channel = tl.arange(0, C)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    values = _input(x, row, inside, RELU, C)
    factor = tl.load(saved + C + channel) * tl.load(weight + channel)
    values = (values - tl.load(saved + channel)[None, :]) * factor[None, :] + tl.load(bias + channel)[None, :]
    if DROPS:
        values = tl.where(_kept(seed, layer, row, least, C, ROUNDS), values * scale, 0.0)
    if ADDS:
        values += _tile(added, row, inside, C)
    if RELU_AFTER:
        values = _rectified(values)
    tl.store(y + row[:, None] * C + channel[None, :], values.to(y.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _gradient(
    y, dy, seed, layer, least, scale, row, inside,
    DROPS: tl.constexpr, RELU_AFTER: tl.constexpr, C: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """The gradients (rows, C) of the sum before the last ReLU, and of the normalisation's output."""
    of_sum = _tile(dy, row, inside, C)
    if RELU_AFTER:
        of_sum = tl.where(_tile(y, row, inside, C) > 0, of_sum, 0.0)
    of_normalised = of_sum
    if DROPS:
        of_normalised = tl.where(_kept(seed, layer, row, least, C, ROUNDS), of_sum * scale, 0.0)
    return of_sum, of_normalised


@triton.jit(do_not_specialize=["layer", "least", "rows", "chunk"])
def gradient_sums(
    x, y, dy, partial, counter, saved, dweight, dbias, seed, layer, least, scale, rows, chunk,
    RELU: tl.constexpr, DROPS: tl.constexpr, RELU_AFTER: tl.constexpr,
    C: tl.constexpr, ROWS: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """The gradients of weight and bias (C,): sums over all rows."""
    channel = tl.arange(0, C)
    first = tl.program_id(0) * chunk
    end = tl.minimum(first + chunk, rows)
    mean, per_std = tl.load(saved + channel), tl.load(saved + C + channel)
    of_bias = tl.zeros((C,), tl.float32)
    of_weight = tl.zeros((C,), tl.float32)
    for start in range(first, end, ROWS):
        row = start + tl.arange(0, ROWS)
        values = _input(x, row, row < end, RELU, C)
        _, gradient = _gradient(y, dy, seed, layer, least, scale, row, row < end, DROPS, RELU_AFTER, C, ROUNDS)
        of_bias += tl.sum(gradient, 0)
        of_weight += tl.sum(gradient * (values - mean[None, :]) * per_std[None, :], 0)
    if _leave(partial, counter, of_bias, of_weight, C):
        of_bias = tl.zeros((C,), tl.float32)
        of_weight = tl.zeros((C,), tl.float32)
        for start in range(0, tl.num_programs(0), ROWS):
            biases, weights = _left_by(start + tl.arange(0, ROWS), partial, C)
            of_bias += tl.sum(biases, 0)
            of_weight += tl.sum(weights, 0)
        tl.store(dbias + channel, of_bias)
        tl.store(dweight + channel, of_weight)


@triton.jit(do_not_specialize=["layer", "least", "rows"])
def backward(
    x, y, dy, dx, dadded, saved, weight, dweight, dbias, seed, layer, least, scale, rows,
    RELU: tl.constexpr, DROPS: tl.constexpr, RELU_AFTER: tl.constexpr,
    C: tl.constexpr, ROWS: tl.constexpr, ROUNDS: tl.constexpr, ADDS: tl.constexpr,
):  # fmt: skip
    channel = tl.arange(0, C)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    at = row[:, None] * C + channel[None, :]
    values = _input(x, row, inside, RELU, C)
    of_sum, gradient = _gradient(y, dy, seed, layer, least, scale, row, inside, DROPS, RELU_AFTER, C, ROUNDS)
    if RELU_AFTER and ADDS:  # else the gradient of `added` is dy itself
        tl.store(dadded + at, of_sum.to(dadded.dtype.element_ty), mask=inside[:, None])
    per_std = tl.load(saved + C + channel)
    normalised = (values - tl.load(saved + channel)[None, :]) * per_std[None, :]
    mean_gradient = tl.load(dbias + channel) / rows
    slope = tl.load(dweight + channel) / rows
    factor = per_std * tl.load(weight + channel)
    gradient = (gradient - mean_gradient[None, :] - normalised * slope[None, :]) * factor[None, :]
    if RELU:
        gradient = tl.where(values > 0, gradient, 0.0)
    tl.store(dx + at, gradient.to(dx.dtype.element_ty), mask=inside[:, None])
