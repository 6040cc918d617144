"""
Kernels in Triton for the messages of attention and refinement on a GPU, with frozen weights.

A program computes a tile of M edges. Its hidden layers stay on the chip, HC channels at a time: only features, messages
and the gradients of the hidden layer (before its activation) reach memory. The backward kernels compute the tile again.
Messages are added by segment from lists of their rows, without atomic operations: equal calls give equal bits.

Names of arguments: capital letters are arrays in memory. An edge has `COPIES` directed copies, and row k·m + r of an
array of directed edges is copy k of edge r. H is the width of the hidden layer, E that of edges and messages.

=========================== ============================================================================
X, NEW                      features of edges, (m, E)
MESSAGE                     messages of directed edges, (COPIES · m, E)
TARGET, SOURCE, CENTER      the row of TABLE_T, TABLE_S and TABLE_C that a directed edge reads, (COPIES · m)
TABLE_T, TABLE_S, TABLE_C   what nodes contribute to the hidden layer, (n, 2H): H channels of core and gate
W, row                      first linear layer, (2H, E); a row of it begins `row` values after the last
B, WO, BO, NW, NB           its bias, (2H); second layer, (2, E, H), its bias, and weight and bias of the norm, (2, E)
LOGITS                      maps features to logits to base two, (2E, E): by target, then by source
EXPONENT                    logarithm to base two of the envelope of each edge, (m): −∞ for 0
STARTS, ROWS                rows of segment k: ROWS[STARTS[k]] to ROWS[STARTS[k + 1] − 1]
GRAD_…                      gradient of an array
=========================== ============================================================================

Row numbers are 64 bits wide where they are multiplied: an array may have more than 2³¹ values.
"""

from __future__ import annotations

import triton
import triton.language as tl

LN_2 = tl.constexpr(0.6931471805599453)
NORM_EPS = tl.constexpr(1e-5)
"""`matris.model.layers.LAYER_NORM_EPS`; a test compares them."""


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _silu_slope(x):
    s = _sigmoid(x)
    return s * (1.0 + x * (1.0 - s))


@triton.jit
def _product(X, WEIGHT, row, r, ok, c, E: tl.constexpr, M: tl.constexpr, HC: tl.constexpr, PRECISION: tl.constexpr):
    """
    Multiply rows r of X, (…, E), by the transposed rows c of WEIGHT, HC channels of X at a time.

    A tile of X in registers would be there three times, once as it is and twice in the parts of its rounded factors.
    """
    result = tl.zeros((M, HC), tl.float32)
    for start in range(0, E, HC):
        e = start + tl.arange(0, HC)
        x = tl.load(X + r[:, None] * E + e[None, :], mask=ok[:, None], other=0.0)
        result += tl.dot(x, tl.load(WEIGHT + c[None, :] * row + e[:, None]), input_precision=PRECISION)
    return result


@triton.jit
def _hidden(X, r, ok, W, row, B, TABLE_T, TABLE_S, TABLE_C, target, source, center, h, H: tl.constexpr,
            E: tl.constexpr, CENTERED: tl.constexpr, M: tl.constexpr, HC: tl.constexpr,
            PRECISION: tl.constexpr):  # fmt: skip
    """Channels h of the hidden layer of a tile, before the activation."""
    hidden = _product(X, W, row, r, ok, h, E, M, HC, PRECISION)
    hidden += tl.load(TABLE_T + target[:, None] * (2 * H) + h[None, :])
    hidden += tl.load(TABLE_S + source[:, None] * (2 * H) + h[None, :])
    if CENTERED:
        hidden += tl.load(TABLE_C + center[:, None] * (2 * H) + h[None, :])
    return hidden + tl.load(B + h)[None, :]


@triton.jit
def _branch(X, r, ok, W, row, B, WO, BO, TABLE_T, TABLE_S, TABLE_C, target, source, center, branch: tl.constexpr,
            H: tl.constexpr, E: tl.constexpr, CENTERED: tl.constexpr, M: tl.constexpr, HC: tl.constexpr,
            PRECISION: tl.constexpr):  # fmt: skip
    """Core (branch 0) or gate (1) of the gated MLP: its normalised values before weight and bias, and their scale."""
    e = tl.arange(0, E)
    z = tl.zeros((M, E), tl.float32)
    for start in range(0, H, HC):
        c = start + tl.arange(0, HC)
        hidden = _hidden(X, r, ok, W, row, B, TABLE_T, TABLE_S, TABLE_C, target, source, center, branch * H + c, H, E,
                         CENTERED, M, HC, PRECISION)  # fmt: skip
        weight = tl.load(WO + branch * E * H + e[None, :] * H + c[:, None])
        z += tl.dot(hidden * _sigmoid(hidden), weight, input_precision=PRECISION)
    z += tl.load(BO + branch * E + e)[None, :]
    z -= (tl.sum(z, 1) / E)[:, None]
    scale = 1.0 / tl.sqrt(tl.sum(z * z, 1) / E + NORM_EPS)
    return z * scale[:, None], scale


@triton.jit
def _message(X, r, ok, W, row, B, WO, BO, NW, NB, TABLE_T, TABLE_S, TABLE_C, target, source, center, H: tl.constexpr,
             E: tl.constexpr, CENTERED: tl.constexpr, M: tl.constexpr, HC: tl.constexpr,
             PRECISION: tl.constexpr):  # fmt: skip
    """Messages of a tile."""
    e = tl.arange(0, E)
    core, _ = _branch(X, r, ok, W, row, B, WO, BO, TABLE_T, TABLE_S, TABLE_C, target, source, center, 0, H, E, CENTERED,
                      M, HC, PRECISION)  # fmt: skip
    core = core * tl.load(NW + e)[None, :] + tl.load(NB + e)[None, :]
    core = core * _sigmoid(core)
    gate, _ = _branch(X, r, ok, W, row, B, WO, BO, TABLE_T, TABLE_S, TABLE_C, target, source, center, 1, H, E, CENTERED,
                      M, HC, PRECISION)  # fmt: skip
    return core * _sigmoid(gate * tl.load(NW + E + e)[None, :] + tl.load(NB + E + e)[None, :])


@triton.jit(do_not_specialize=["m"])
def attention_forward(X, TARGET, SOURCE, TABLE_T, TABLE_S, W, row, B, WO, BO, NW, NB, LOGITS, RESIDUAL, VALUES,
                      MESSAGE, NEW, m, H: tl.constexpr, E: tl.constexpr, COPIES: tl.constexpr, M: tl.constexpr,
                      HC: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Messages; logits VALUES, (2, m, E): by target, then by source; and new edges."""
    first = tl.program_id(0).to(tl.int64) * M
    r = tl.arange(0, M)
    e = tl.arange(0, E)
    ok = first + r < m
    X += first * E
    for side in tl.static_range(2):
        for start in range(0, E, HC):
            c = start + tl.arange(0, HC)
            values = _product(X, LOGITS + side * E * E, E, r, ok, c, E, M, HC, PRECISION)
            tl.store(VALUES + (side * m + first) * E + r[:, None] * E + c[None, :], values, mask=ok[:, None])
    new = tl.load(X + r[:, None] * E + e[None, :], mask=ok[:, None], other=0.0) * tl.load(RESIDUAL + e)[None, :]
    for k in tl.static_range(COPIES):
        at = k * m + first
        target = tl.load(TARGET + at + r, mask=ok, other=0).to(tl.int64)
        source = tl.load(SOURCE + at + r, mask=ok, other=0).to(tl.int64)
        message = _message(X, r, ok, W, row, B, WO, BO, NW, NB, TABLE_T, TABLE_S, TABLE_S, target, source, source, H, E,
                           False, M, HC, PRECISION)  # fmt: skip
        tl.store(MESSAGE + at * E + r[:, None] * E + e[None, :], message, mask=ok[:, None])
        new += message / COPIES
    tl.store(NEW + first * E + r[:, None] * E + e[None, :], new, mask=ok[:, None])


@triton.jit(do_not_specialize=["m"])
def segment_means(VALUES, EXPONENT, MESSAGE, STARTS, ROWS, MEAN, NORM, m, E: tl.constexpr, COPIES: tl.constexpr,
                  SMOOTH: tl.constexpr, K: tl.constexpr):  # fmt: skip
    """
    Average the messages of a segment with weights 2ˣ, or u·2ˣ over 1 + Σ u·2ˣ if SMOOTH, in one pass.

    The sums are shifted by the largest exponent so far, as in FlashAttention (arXiv 2205.14135). NORM is the logarithm
    to base two of what divides them. An empty segment has the mean 0. Only a sum that equals 0 is empty: NaN stays NaN.
    """
    segment = tl.program_id(0).to(tl.int64)
    e = tl.arange(0, E)
    begin = tl.load(STARTS + segment)
    end = tl.load(STARTS + segment + 1)
    peak = tl.full((E,), 0.0 if SMOOTH else -float("inf"), tl.float32)
    norm = tl.full((E,), 1.0 if SMOOTH else 0.0, tl.float32)  # the 1 of the denominator
    total = tl.zeros((E,), tl.float32)
    for start in range(begin, end, K):
        i = start + tl.arange(0, K)
        ok = i < end
        directed = tl.load(ROWS + i, mask=ok, other=0).to(tl.int64)
        edge = tl.where(directed >= m, directed - m, directed) if COPIES > 1 else directed
        x = tl.load(VALUES + edge[:, None] * E + e[None, :], mask=ok[:, None], other=-float("inf"))
        if SMOOTH:
            x += tl.load(EXPONENT + edge, mask=ok, other=0.0)[:, None]
        message = tl.load(MESSAGE + directed[:, None] * E + e[None, :], mask=ok[:, None], other=0.0)
        highest = tl.maximum(peak, tl.max(x, 0))
        weight = tl.exp2(x - highest[None, :])
        scale = tl.exp2(peak - highest)
        norm = norm * scale + tl.sum(weight, 0)
        total = total * scale + tl.sum(weight * message, 0)
        peak = highest
    empty = norm == 0.0
    norm = tl.where(empty, 1.0, norm)
    tl.store(MEAN + segment * E + e, total / norm)
    tl.store(NORM + segment * E + e, tl.where(empty, 0.0, peak) + tl.log2(norm))


@triton.jit(do_not_specialize=["m"])
def means_backward(X, TARGET, SOURCE, LOGITS, EXPONENT, MESSAGE, MEAN_T, NORM_T, GRAD_T, MEAN_S, NORM_S, GRAD_S,
                   GRAD_NEW, GRAD_MESSAGE, GRAD_X, GRAD_ENVELOPE, m, E: tl.constexpr, COPIES: tl.constexpr,
                   SMOOTH: tl.constexpr, M: tl.constexpr, HC: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """
    Gradients by messages, and by features and envelopes through the weights of the means.

    With the normalised weights w and the mean o, ∂o/∂m = w and ∂o/∂x = ln 2 · w (m − o), where x is the logit plus the
    logarithm of the envelope u. Σ ∂o/∂x / (u ln 2) is the gradient by u; at u = 0, u has no slope.
    """
    first = tl.program_id(0).to(tl.int64) * M
    r = tl.arange(0, M)
    e = tl.arange(0, E)
    ok = first + r < m
    X += first * E
    grad_x = tl.zeros((M, E), tl.float32)
    exponent = tl.zeros((M,), tl.float32)
    slope = tl.zeros((M,), tl.float32)
    if SMOOTH:
        exponent += tl.load(EXPONENT + first + r, mask=ok, other=0.0)
    for start in range(0, E, HC):
        c = start + tl.arange(0, HC)
        here = r[:, None] * E + c[None, :]
        for k in tl.static_range(COPIES):
            at = k * m + first
            message = tl.load(MESSAGE + at * E + here, mask=ok[:, None], other=0.0)
            grad_message = tl.load(GRAD_NEW + first * E + here, mask=ok[:, None], other=0.0) / COPIES
            for side in tl.static_range(2):
                NODE = TARGET if side == 0 else SOURCE
                MEAN = MEAN_T if side == 0 else MEAN_S
                NORM = NORM_T if side == 0 else NORM_S
                GRAD = GRAD_T if side == 0 else GRAD_S
                value = _product(X, LOGITS + side * E * E, E, r, ok, c, E, M, HC, PRECISION)
                if SMOOTH:
                    value += exponent[:, None]
                node = tl.load(NODE + at + r, mask=ok, other=0).to(tl.int64)[:, None] * E + c[None, :]
                weighted = tl.exp2(value - tl.load(NORM + node)) * tl.load(GRAD + node)
                grad_message += weighted
                weighted *= message - tl.load(MEAN + node)
                if SMOOTH:
                    slope += tl.sum(weighted, 1)
                back = tl.load(LOGITS + side * E * E + c[:, None] * E + e[None, :])
                grad_x += tl.dot(weighted * LN_2, back, input_precision=PRECISION)
            tl.store(GRAD_MESSAGE + at * E + here, grad_message, mask=ok[:, None])
    tl.store(GRAD_X + first * E + r[:, None] * E + e[None, :], grad_x, mask=ok[:, None])
    if SMOOTH:
        u = tl.exp2(exponent)
        slope = tl.where(u > 0.0, slope / tl.where(u > 0.0, u, 1.0), 0.0)
        tl.store(GRAD_ENVELOPE + first + r, slope, mask=ok)


@triton.jit
def _branch_backward(grad_x, grad_z, X, r, ok, W, row, B, WO, TABLE_T, TABLE_S, TABLE_C, target, source, center,
                     GRAD_HIDDEN, at, branch: tl.constexpr, H: tl.constexpr, E: tl.constexpr, CENTERED: tl.constexpr,
                     M: tl.constexpr, HC: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Add the gradient by features to grad_x, and store that by the hidden layer."""
    e = tl.arange(0, E)
    for start in range(0, H, HC):
        c = start + tl.arange(0, HC)
        h = branch * H + c
        weight = tl.load(WO + branch * E * H + e[:, None] * H + c[None, :])
        grad = tl.dot(grad_z, weight, input_precision=PRECISION)
        hidden = _hidden(X, r, ok, W, row, B, TABLE_T, TABLE_S, TABLE_C, target, source, center, h, H, E, CENTERED, M,
                         HC, PRECISION)  # fmt: skip
        grad *= _silu_slope(hidden)
        tl.store(GRAD_HIDDEN + at * (2 * H) + r[:, None] * (2 * H) + h[None, :], grad, mask=ok[:, None])
        grad_x += tl.dot(grad, tl.load(W + h[:, None] * row + e[None, :]), input_precision=PRECISION)
    return grad_x


@triton.jit
def _norm_backward(grad, z, scale, E: tl.constexpr):
    """Gradient by the values before a norm, from that by the normalised values z."""
    grad -= (tl.sum(grad, 1) / E)[:, None] + z * (tl.sum(grad * z, 1) / E)[:, None]
    return grad * scale[:, None]


@triton.jit(do_not_specialize=["m"])
def message_backward(X, TARGET, SOURCE, CENTER, TABLE_T, TABLE_S, TABLE_C, W, row, B, WO, BO, NW, NB, RESIDUAL,
                     GRAD_MESSAGE, GRAD_NEW, GRAD_LOGITS, GRAD_X, GRAD_HIDDEN, m, H: tl.constexpr, E: tl.constexpr,
                     COPIES: tl.constexpr, CENTERED: tl.constexpr, UPDATE: tl.constexpr, WEIGHTED: tl.constexpr,
                     M: tl.constexpr, HC: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """
    From gradients by messages to those by features and by the hidden layer, (COPIES · m, 2H).

    UPDATE adds the gradient by new edges times the residual factor; WEIGHTED adds GRAD_LOGITS, that of the means'
    weights.
    """
    first = tl.program_id(0).to(tl.int64) * M
    r = tl.arange(0, M)
    e = tl.arange(0, E)
    ok = first + r < m
    X += first * E
    tile = first * E + r[:, None] * E + e[None, :]
    grad_x = tl.zeros((M, E), tl.float32)
    for k in tl.static_range(COPIES):
        at = k * m + first
        target = tl.load(TARGET + at + r, mask=ok, other=0).to(tl.int64)
        source = tl.load(SOURCE + at + r, mask=ok, other=0).to(tl.int64)
        center = tl.load(CENTER + at + r, mask=ok, other=0).to(tl.int64) if CENTERED else source
        core, core_scale = _branch(X, r, ok, W, row, B, WO, BO, TABLE_T, TABLE_S, TABLE_C, target, source, center, 0, H,
                                   E, CENTERED, M, HC, PRECISION)  # fmt: skip
        gate, gate_scale = _branch(X, r, ok, W, row, B, WO, BO, TABLE_T, TABLE_S, TABLE_C, target, source, center, 1, H,
                                   E, CENTERED, M, HC, PRECISION)  # fmt: skip
        grad = tl.load(GRAD_MESSAGE + at * E + r[:, None] * E + e[None, :], mask=ok[:, None], other=0.0)
        core_weight = tl.load(NW + e)[None, :]
        gate_weight = tl.load(NW + E + e)[None, :]
        a = core * core_weight + tl.load(NB + e)[None, :]
        g = _sigmoid(gate * gate_weight + tl.load(NB + E + e)[None, :])
        grad_gate = grad * a * _sigmoid(a) * g * (1.0 - g) * gate_weight
        grad_core = _norm_backward(grad * g * _silu_slope(a) * core_weight, core, core_scale, E)
        grad_gate = _norm_backward(grad_gate, gate, gate_scale, E)
        grad_x = _branch_backward(grad_x, grad_core, X, r, ok, W, row, B, WO, TABLE_T, TABLE_S, TABLE_C, target, source,
                                  center, GRAD_HIDDEN, at, 0, H, E, CENTERED, M, HC, PRECISION)  # fmt: skip
        grad_x = _branch_backward(grad_x, grad_gate, X, r, ok, W, row, B, WO, TABLE_T, TABLE_S, TABLE_C, target, source,
                                  center, GRAD_HIDDEN, at, 1, H, E, CENTERED, M, HC, PRECISION)  # fmt: skip
    if UPDATE:
        new = tl.load(GRAD_NEW + tile, mask=ok[:, None], other=0.0)
        grad_x += new * tl.load(RESIDUAL + e)[None, :]
    if WEIGHTED:
        grad_x += tl.load(GRAD_LOGITS + tile, mask=ok[:, None], other=0.0)
    tl.store(GRAD_X + tile, grad_x, mask=ok[:, None])


@triton.jit(do_not_specialize=["m"])
def refinement_forward(X, TARGET, SOURCE, CENTER, TABLE_T, TABLE_S, TABLE_C, W, row, B, WO, BO, NW, NB, ENVELOPE,
                       ENTRY, F1, F1_BIAS, F2, F2_BIAS, RESIDUAL, MESSAGE, NEW, m, H: tl.constexpr, E: tl.constexpr,
                       COPIES: tl.constexpr, CENTERED: tl.constexpr, UPDATE: tl.constexpr, BIAS: tl.constexpr,
                       SMOOTH_EDGES: tl.constexpr, M: tl.constexpr, HC: tl.constexpr,
                       PRECISION: tl.constexpr):  # fmt: skip
    """Messages and, if UPDATE, new edges: F2 silu(F1 message), a mean over copies, plus the residual."""
    first = tl.program_id(0).to(tl.int64) * M
    r = tl.arange(0, M)
    e = tl.arange(0, E)
    ok = first + r < m
    X += first * E
    tile = first * E + r[:, None] * E + e[None, :]
    if UPDATE:
        new = tl.load(X + r[:, None] * E + e[None, :], mask=ok[:, None], other=0.0) * tl.load(RESIDUAL + e)[None, :]
        if BIAS:
            new += tl.load(F2_BIAS + e)[None, :]
    for k in tl.static_range(COPIES):
        at = k * m + first
        target = tl.load(TARGET + at + r, mask=ok, other=0).to(tl.int64)
        source = tl.load(SOURCE + at + r, mask=ok, other=0).to(tl.int64)
        center = tl.load(CENTER + at + r, mask=ok, other=0).to(tl.int64) if CENTERED else source
        message = _message(X, r, ok, W, row, B, WO, BO, NW, NB, TABLE_T, TABLE_S, TABLE_C, target, source, center, H, E,
                           CENTERED, M, HC, PRECISION)  # fmt: skip
        tl.store(MESSAGE + at * E + r[:, None] * E + e[None, :], message, mask=ok[:, None])
        if UPDATE:
            if SMOOTH_EDGES:
                entry = tl.load(ENTRY + at + r, mask=ok, other=0).to(tl.int64)
                message *= tl.load(ENVELOPE + entry[:, None] * E + e[None, :])
            for start in range(0, E, HC):
                c = start + tl.arange(0, HC)
                inner = tl.dot(message, tl.load(F1 + c[None, :] * E + e[:, None]), input_precision=PRECISION)
                if BIAS:
                    inner += tl.load(F1_BIAS + c)[None, :]
                inner = inner * _sigmoid(inner) / COPIES
                new += tl.dot(inner, tl.load(F2 + e[None, :] * E + c[:, None]), input_precision=PRECISION)
    if UPDATE:
        tl.store(NEW + tile, new, mask=ok[:, None])


@triton.jit(do_not_specialize=["m"])
def pool_backward(TARGET, ENVELOPE, ENTRY, F1, F1_BIAS, F2, MESSAGE, GRAD_POOLED, GRAD_NEW, GRAD_MESSAGE,
                  GRAD_ENVELOPE, m, E: tl.constexpr, COPIES: tl.constexpr, UPDATE: tl.constexpr, BIAS: tl.constexpr,
                  SMOOTH_EDGES: tl.constexpr, M: tl.constexpr, HC: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Gradients of a refinement by messages, and by the envelope that each directed edge reads, (COPIES · m, E)."""
    first = tl.program_id(0).to(tl.int64) * M
    r = tl.arange(0, M)
    e = tl.arange(0, E)
    ok = first + r < m
    if UPDATE:
        grad_new = tl.load(GRAD_NEW + first * E + r[:, None] * E + e[None, :], mask=ok[:, None], other=0.0) / COPIES
    for k in tl.static_range(COPIES):
        at = k * m + first
        here = at * E + r[:, None] * E + e[None, :]
        target = tl.load(TARGET + at + r, mask=ok, other=0).to(tl.int64)
        entry = tl.load(ENTRY + at + r, mask=ok, other=0).to(tl.int64)
        message = tl.load(MESSAGE + here, mask=ok[:, None], other=0.0)
        envelope = tl.load(ENVELOPE + entry[:, None] * E + e[None, :])
        grad_smooth = tl.load(GRAD_POOLED + target[:, None] * E + e[None, :])
        grad = tl.zeros((M, E), tl.float32)
        if UPDATE:
            read = message * envelope if SMOOTH_EDGES else message
            for start in range(0, E, HC):
                c = start + tl.arange(0, HC)
                inner = tl.dot(read, tl.load(F1 + c[None, :] * E + e[:, None]), input_precision=PRECISION)
                if BIAS:
                    inner += tl.load(F1_BIAS + c)[None, :]
                grad_inner = tl.dot(grad_new, tl.load(F2 + e[:, None] * E + c[None, :]), input_precision=PRECISION)
                grad_inner *= _silu_slope(inner)
                grad += tl.dot(grad_inner, tl.load(F1 + c[:, None] * E + e[None, :]), input_precision=PRECISION)
            if SMOOTH_EDGES:
                grad_smooth += grad
        tl.store(GRAD_ENVELOPE + here, grad_smooth * message, mask=ok[:, None])
        grad_message = grad_smooth * envelope
        if UPDATE and not SMOOTH_EDGES:
            grad_message += grad
        tl.store(GRAD_MESSAGE + here, grad_message, mask=ok[:, None])


@triton.jit
def segment_sums(X, FACTOR, ENTRY, STARTS, ROWS, SUM, D: tl.constexpr, WIDTH: tl.constexpr, SCALED: tl.constexpr,
                 K: tl.constexpr):  # fmt: skip
    """Add rows of D values by segment, times row ENTRY of FACTOR if SCALED; WIDTH is the power of two from D on."""
    segment = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, WIDTH)
    begin = tl.load(STARTS + segment)
    end = tl.load(STARTS + segment + 1)
    total = tl.zeros((WIDTH,), X.dtype.element_ty)
    for start in range(begin, end, K):
        i = start + tl.arange(0, K)
        ok = i < end
        rows = tl.load(ROWS + i, mask=ok, other=0).to(tl.int64)
        mask = ok[:, None] & (d < D)[None, :]
        x = tl.load(X + rows[:, None] * D + d[None, :], mask=mask, other=0.0)
        if SCALED:
            entry = tl.load(ENTRY + rows, mask=ok, other=0).to(tl.int64)
            x *= tl.load(FACTOR + entry[:, None] * D + d[None, :], mask=mask, other=0.0)
        total += tl.sum(x, 0)
    tl.store(SUM + segment * D + d, total, mask=d < D)
