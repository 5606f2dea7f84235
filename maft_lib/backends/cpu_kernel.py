"""The forward pass of Llama-like models and the draw of tokens on one core of a CPU, compiled by numba.

A step takes rows of any texts: a token, its slot in the cache, its position. Every number of a row is
summed in an order that its own position alone decides, so a text does not depend on what is computed
beside it. Numbers are fp32, arrays are contiguous.
"""

import math
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

f4 = np.float32
WIDTH = 16  # numbers of a vector, and positions of a block of keys
# Rows and columns of a product whose sums fit into a core's registers, with AVX-512 and without
ROWS, COLUMNS = (
    (12, 32) if "+avx512f" in cpu_target.target_context.codegen().magic_tuple()[2] else (6, 16)
)
compiled = njit(nogil=True, cache=True, error_model="numpy")
reordered = njit(nogil=True, cache=True, error_model="numpy", fastmath=True)  # sums within one row


class Weights(NamedTuple):
    """A model: matrices as `tiled` lays them, (layers, ...), norms and scales multiplied in."""

    embedding: np.ndarray  # (vocabulary, hidden)
    attention: np.ndarray  # hidden to queries, keys and values
    bias: np.ndarray  # (layers, queries + keys + values)
    output: np.ndarray  # heads to hidden
    gates: np.ndarray  # hidden to gate and up
    down: np.ndarray  # intermediate to hidden
    head: np.ndarray  # hidden to vocabulary, without layers
    rotations: np.ndarray  # (positions, head width): cosines, then sines
    heads: int
    epsilon: np.float32


def tiled(matrix: np.ndarray) -> np.ndarray:
    """A matrix (out, in) as (out / COLUMNS, in, COLUMNS), filled up with zeros."""
    out, depth = matrix.shape
    panels = np.zeros((-(-out // COLUMNS), COLUMNS, depth), f4)
    panels.reshape(-1, depth)[:out] = matrix
    return np.ascontiguousarray(panels.transpose(0, 2, 1))


def tile(rows: int, blocks: int, chains: int = 1):
    """Makes a function that adds the product of `rows` rows and `blocks` x WIDTH columns to an output.

    To `out[o + r * o_row + b * WIDTH :][:WIDTH]` it adds the sum over k < depth of `left[l + r * l_row
    + k] * right[p + k * p_step + b * p_block :][:WIDTH]`, in `chains` sums of every chains-th k. It is
    LLVM's vector code, since of loops in Python numba makes no sums that stay in registers.
    """
    vector, lane, n = ir.VectorType(ir.FloatType(), WIDTH), ir.IntType(32), types.intp
    zeros, first = ir.Constant(vector, [0.0] * WIDTH), ir.Constant(lane, 0)
    lanes = ir.Constant(ir.VectorType(lane, WIDTH), [0] * WIDTH)

    def write(context, builder, signature, values):
        def start(i):  # the address of an array and an offset into it
            array = context.make_array(signature.args[i])(context, builder, values[i])
            return builder.gep(array.data, [values[i + 1]])

        def number(value):
            return context.get_constant(n, value)

        def vector_at(base, step, count):
            place = builder.gep(base, [builder.mul(step, number(count))])
            return builder.bitcast(place, vector.as_pointer())

        def load(place):
            loaded = builder.load(place)
            loaded.align = 4
            return loaded

        out, left, right = start(0), start(3), start(6)
        o_row, l_row, (p_step, p_block, depth) = values[2], values[5], values[8:]
        kind = ir.FunctionType(vector, [vector] * 3)
        fused = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{WIDTH}f32")
        goals = [
            vector_at(builder.gep(out, [builder.mul(o_row, number(r))]), number(WIDTH), b)
            for r in range(rows)
            for b in range(blocks)
        ]
        sums = [[cgutils.alloca_once_value(builder, load(goal)) for goal in goals]]
        for _ in range(1, chains):
            sums.append([cgutils.alloca_once_value(builder, zeros) for _ in goals])

        def add(k, totals):
            line = builder.gep(right, [builder.mul(k, p_step)])
            columns = [load(vector_at(line, p_block, b)) for b in range(blocks)]
            for r in range(rows):
                factor = builder.gep(left, [builder.add(builder.mul(l_row, number(r)), k)])
                single = builder.insert_element(zeros, builder.load(factor), first)
                factors = builder.shuffle_vector(single, zeros, lanes)
                for column, total in zip(columns, totals[r * blocks :]):
                    builder.store(builder.call(fused, [factors, column, builder.load(total)]), total)

        rounds = builder.udiv(depth, number(chains))
        with cgutils.for_range(builder, rounds) as loop:
            for chain, totals in enumerate(sums):
                add(builder.add(builder.mul(loop.index, number(chains)), number(chain)), totals)
            if rows > 1:  # a fence: else LLVM loads ahead, and sums leave their registers
                fence = ir.FunctionType(ir.VoidType(), [])
                builder.asm(fence, "", "~{memory}", [], side_effect=True)
        done = builder.mul(rounds, number(chains))
        with cgutils.for_range(builder, builder.sub(depth, done)) as loop:
            add(builder.add(done, loop.index), sums[0])
        for goal, *totals in zip(goals, *sums):
            total, *others = [builder.load(total) for total in totals]
            for other in others:
                total = builder.fadd(total, other)
            builder.store(total, goal).align = 4
        return context.get_dummy_value()

    @intrinsic
    def add_product(_, out, o, o_row, left, l, l_row, right, p, p_step, p_block, depth):  # noqa: E741
        return types.void(out, n, n, left, n, n, right, n, n, n, n), write

    return add_product


many_rows, few_rows, one_row = (tile(rows, COLUMNS // WIDTH) for rows in (ROWS, ROWS // 3, 1))
four_blocks, one_block, long_sum = tile(1, 4), tile(1, 1, 4), tile(1, 1, 8)


@compiled
def multiply(inputs, matrix, outputs):
    """Adds `inputs` (num, in) times a tiled matrix to `outputs` (num, out)."""
    (num, depth), across = inputs.shape, outputs.shape[1]
    for panel in range(matrix.shape[0]):
        p, row = panel * COLUMNS * depth, 0
        while row < num:
            o, i = row * across + panel * COLUMNS, row * depth
            if row + ROWS <= num:
                many_rows(outputs, o, across, inputs, i, depth, matrix, p, COLUMNS, WIDTH, depth)
                row += ROWS
            elif row + ROWS // 3 <= num:
                few_rows(outputs, o, across, inputs, i, depth, matrix, p, COLUMNS, WIDTH, depth)
                row += ROWS // 3
            else:
                one_row(outputs, o, across, inputs, i, depth, matrix, p, COLUMNS, WIDTH, depth)
                row += 1


@reordered
def exponential(x):
    """e to the x <= 88: powers of two and a polynomial (Cephes), of which LLVM makes vectors."""
    x = max(x, f4(-87.3))
    twos = np.int32(math.floor(x * f4(1.44269504) + f4(0.5)))
    rest = x - f4(twos) * f4(0.693359375) + f4(twos) * f4(2.12194440e-4)
    series = f4(1.9875691500e-4) * rest + f4(1.3981999507e-3)
    series = series * rest + f4(8.3334519073e-3)
    series = series * rest + f4(4.1665795894e-2)
    series = series * rest + f4(1.6666665459e-1)
    series = series * rest + f4(5.0000001201e-1)
    power = np.int32((twos + np.int32(127)) << np.int32(23)).view(np.float32)
    return (series * rest * rest + rest + f4(1)) * power


@reordered
def normalize(inputs, epsilon, outputs):
    """Root mean square norm of each row (num, hidden), without the weights."""
    for i in range(inputs.shape[0]):
        row, squares = inputs[i], f4(0)
        for j in range(row.shape[0]):
            squares += row[j] * row[j]
        scale = f4(1) / math.sqrt(squares / f4(row.shape[0]) + epsilon)
        for j in range(row.shape[0]):
            outputs[i, j] = row[j] * scale


@reordered
def rotate(row, rotation, heads):
    """Turns the first `heads` queries and keys of a row (heads * width,) by their position's angles."""
    width, half = rotation.shape[0], rotation.shape[0] // 2
    for head in range(heads):
        first, second = row[head * width :][:half], row[head * width + half :][:half]
        for j in range(half):
            a, b = first[j], second[j]
            first[j] = a * rotation[j] - b * rotation[half + j]
            second[j] = b * rotation[j] + a * rotation[half + j]


@reordered
def softmax(scores, num):
    """Makes weights of `scores[:num]`; they sum to 1 when multiplied by what is returned."""
    largest, total = scores[0], f4(0)
    for t in range(num):
        largest = max(largest, scores[t])
    for t in range(num):
        scores[t] = exponential(scores[t] - largest)
        total += scores[t]
    return f4(1) / total


@reordered
def gate(gates, outputs):
    """SwiGLU of each row: gate and up (num, 2 * intermediate) to (num, intermediate)."""
    for i in range(gates.shape[0]):
        first, second = gates[i, : outputs.shape[1]], gates[i, outputs.shape[1] :]
        for j in range(outputs.shape[1]):
            outputs[i, j] = first[j] / (f4(1) + exponential(-first[j])) * second[j]


@compiled
def attend(queries, q, keys, values, start, head, num, scores, mixed, width):
    """Writes one head's attention to the first `num` tokens of a slot to `mixed[q :][:width]`.

    Its query lies at `queries[q :]`; the layer's keys and values lie at `start` in the cache, those of
    the head at `head` in each token's. `scores` (positions,) is scratch.
    """
    across = values.shape[3]
    blocks = (num + WIDTH - 1) // WIDTH
    scores[: blocks * WIDTH] = 0
    block = 0
    while block < blocks:
        o, k, step = block * WIDTH, start + (block * across + head) * WIDTH, across * WIDTH
        if block + 4 <= blocks:
            four_blocks(scores, o, 0, queries, q, 0, keys, k, WIDTH, step, width)
            block += 4
        else:
            one_block(scores, o, 0, queries, q, 0, keys, k, WIDTH, step, width)
            block += 1
    scale = softmax(scores, num)
    mixed[q : q + width] = 0
    for j in range(0, width, WIDTH):
        long_sum(mixed, q + j, 0, scores, 0, 0, values, start + head + j, across, WIDTH, num)
    mixed[q : q + width] *= scale


@compiled
def forward(weights, keys, values, rows, wanted):
    """Logits (wanted, vocabulary and more) of some of the rows (num, 3): token, slot, position.

    Their keys (slots, layers, positions / WIDTH, width, WIDTH) and values (slots, layers, positions,
    width) are written; those of all earlier positions must be there, or be of rows.
    """
    num, (layers, size), hidden = rows.shape[0], weights.bias.shape, weights.embedding.shape[1]
    width, across = weights.rotations.shape[1], values.shape[3]
    queries, inner = weights.heads * width, weights.down.shape[2]
    states, normed, scores = (
        np.empty((num, hidden), f4),
        np.empty((num, hidden), f4),
        np.empty(values.shape[2], f4),
    )
    attention, mixed, gated = (
        np.empty((num, size), f4),
        np.empty((num, queries), f4),
        np.empty((num, inner), f4),
    )
    for i in range(num):
        states[i] = weights.embedding[rows[i, 0]]
    for layer in range(layers):
        normalize(states, weights.epsilon, normed)
        attention[:] = weights.bias[layer]
        multiply(normed, weights.attention[layer], attention)
        for i in range(num):
            slot, position = rows[i, 1], rows[i, 2]
            rotate(attention[i], weights.rotations[position], (size - across) // width)
            key, value = attention[i, queries : queries + across], attention[i, queries + across :]
            keys[slot, layer, position // WIDTH, :, position % WIDTH] = key
            values[slot, layer, position] = value
        for i in range(num):
            start = (rows[i, 1] * layers + layer) * values.shape[2] * across
            for head in range(weights.heads):
                q, shared = head * width, head * across // queries * width
                attend(
                    attention[i],
                    q,
                    keys,
                    values,
                    start,
                    shared,
                    rows[i, 2] + 1,
                    scores,
                    mixed[i],
                    width,
                )
        multiply(mixed, weights.output[layer], states)
        normalize(states, weights.epsilon, normed)
        gates = np.zeros((num, 2 * inner), f4)
        multiply(normed, weights.gates[layer], gates)
        gate(gates, gated)
        multiply(gated, weights.down[layer], states)
    last = states[wanted]
    normalize(last, weights.epsilon, last)
    logits = np.zeros((wanted.shape[0], weights.head.shape[0] * COLUMNS), f4)
    multiply(last, weights.head, logits)
    return logits


@compiled
def draw(logits, num, temperature, top_p, uniform):
    """A token of the `num` in the vocabulary for each row of `logits`; at temperature 0 the likeliest.

    Else the one where the row's `uniform` number in [0, 1) falls in the cumulative distribution, in the
    order of the vocabulary, of the likeliest tokens that together reach `top_p`. In fp64.
    """
    tokens = np.empty(uniform.shape[0], np.int64)
    for row in range(uniform.shape[0]):
        tokens[row] = logits[row, :num].argmax()
        if temperature == 0:
            continue
        ratios = np.zeros(num)  # of the probabilities to the largest
        for j in range(num):
            power = (np.float64(logits[row, j]) - logits[row, tokens[row]]) / temperature
            if power > -40:  # what is less likely changes no sum in fp64
                ratios[j] = math.exp(power)
        if top_p < 1:
            total, reached = ratios.sum(), 0.0
            few = (ratios > total * (1 - top_p) / num).nonzero()[0]  # the others are no 1 - top_p
            order = np.argsort(-ratios[few], kind="mergesort")  # of equal ones the first comes first
            kept, ratios = ratios, np.zeros(num)
            for token in few[order]:
                if reached >= top_p * total:
                    break
                ratios[token], reached = kept[token], reached + kept[token]
        target, reached = uniform[row] * ratios.sum(), 0.0
        for token in ratios.nonzero()[0]:
            reached, tokens[row] = reached + ratios[token], token
            if reached > target:
                break
    return tokens
