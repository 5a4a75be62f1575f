#!/usr/bin/env python3
"""Makes spec/golden/ops.safetensors: every op's outputs and gradients by PyTorch. One line of a table is one op's cases; see README.md here."""
import os

from common import *   # noqa: F403
from optimisers import adamw, bert_adam, lars, sgd

INF = float("inf")


# ---------------------------------------------------------------- element by element

SHAPES = [(17,), (3, 33), (2, 5, 65), (2, 3, 5, 9)]


def unary(family="unary", **table):
    for name, (fn, make) in table.items():
        for s in SHAPES:
            add(name, family, fn, {"x": make(*s)})


def wide_range(*s): return N(*s, scale=2)
def positive(*s): return U(*s, low=0.125, high=4)


unary(
    abs=(torch.abs, N), neg=(torch.neg, N), exp=(torch.exp, N), log=(torch.log, positive), log1p=(torch.log1p, lambda *s: U(*s, low=-0.5, high=4)),
    sqrt=(torch.sqrt, positive), rsqrt=(torch.rsqrt, positive), square=(torch.square, N), reciprocal=(torch.reciprocal, positive),
    sin=(torch.sin, wide_range), cos=(torch.cos, wide_range), tanh=(torch.tanh, wide_range), sigmoid=(torch.sigmoid, wide_range), silu=(F.silu, wide_range),
    softplus=(F.softplus, wide_range), gelu=(F.gelu, wide_range), relu=(torch.relu, N), erf=(torch.erf, N), sign=(torch.sign, N),
    floor=(torch.floor, N), ceil=(torch.ceil, N), round=(torch.round, N),
)
for name, fn in {"isfinite": torch.isfinite, "isinf": torch.isinf, "isnan": torch.isnan}.items():
    for s in SHAPES:
        add(name, "unary", fn, {"x": S(*s)})
for s in SHAPES:
    add("logical_not", "unary", torch.logical_not, {"x": B(*s)})
for low, high, s in [(-0.5, 0.75, (17,)), (None, 0.5, (3, 33)), (-0.25, None, (2, 3, 5, 9))]:
    add("clamp", "unary", lambda x: torch.clamp(x, low, high), {"x": N(*s)}, {k: v for k, v in (("min", low), ("max", high)) if v is not None})

PAIRS = [((3, 17), (3, 17)), ((4, 1, 33), (5, 1)), ((65,), ()), ((2, 3, 5, 9), (3, 1, 1)), ((2, 1, 5, 9), (2, 3, 5, 9))]
BINARY = {
    "add": (torch.add, N, N), "sub": (torch.sub, N, N), "mul": (torch.mul, N, N), "div": (torch.div, N, positive),
    "maximum": (torch.maximum, N, N), "minimum": (torch.minimum, N, N), "pow": (torch.pow, positive, N), "remainder": (torch.remainder, wide_range, positive),
    "eq": (torch.eq, H, H), "ne": (torch.ne, H, H), "lt": (torch.lt, H, H), "le": (torch.le, H, H), "gt": (torch.gt, H, H), "ge": (torch.ge, H, H),
    "logical_and": (torch.logical_and, B, B), "logical_or": (torch.logical_or, B, B),
}
for name, (fn, left, right) in BINARY.items():
    for a, b in PAIRS:
        add(name, "binary", fn, {"a": left(*a), "b": right(*b)})
    if name not in ("maximum", "minimum", "logical_and", "logical_or"):
        for number in (2.5, 3, 0.5):
            add(name, "binary", lambda a: fn(a, number), {"a": left(3, 33)}, {"b": number})
for fn, op, number in [(lambda b: 2.5 - b, "sub", 2.5), (lambda b: 3 / b, "div", 3), (lambda b: 1.5 ** b, "pow", 1.5)]:
    add(op, "binary", fn, {"b": positive(5, 17)}, {"a": number})
for n, exponent in enumerate((2, 3, -1, 1)):
    add("pow", "binary", lambda a: torch.pow(a, exponent), {"a": positive(9, 17)}, {"b": exponent})
for c, a, b in [((3, 17), (3, 17), (3, 17)), ((4, 1, 33), (5, 1), (4, 5, 33)), ((2, 3, 5, 9), (2, 3, 5, 9), ())]:
    add("where", "binary", torch.where, {"cond": B(*c), "a": N(*a), "b": N(*b)})
for s, m in [((3, 17), (3, 17)), ((2, 5, 33), (5, 1)), ((2, 3, 5, 9), (9,))]:
    add("masked_fill", "binary", lambda x, mask: x.masked_fill(mask, -1.5), {"x": N(*s), "mask": B(*m)}, {"value": -1.5})

# ---------------------------------------------------------------- reductions

DIMS = [((17, 33), [], False), ((17, 33), [1], False), ((17, 33), [2], True), ((3, 5, 65), [1, 3], False), ((2, 3, 5, 9), [3, 4], False),
        ((2, 3, 5, 9), [1, 3, 4], True), ((2, 3, 5, 9), [2], False)]


def dims_of(s, d): return tuple(i - 1 for i in d) if d else tuple(range(len(s)))


for s, d, keep in DIMS:
    t = dims_of(s, d)
    attrs = {"dims": d, "keepdim": keep} if d else {}
    add("sum", "reduce", lambda x: torch.sum(x, t, keepdim=keep), {"x": N(*s)}, attrs)
    add("mean", "reduce", lambda x: torch.mean(x, t, keepdim=keep), {"x": N(*s)}, attrs)
    add("max", "reduce", lambda x: torch.amax(x, t, keepdim=keep), {"x": D(*s) if np.prod(s) <= 512 else N(*s)}, attrs)
    add("min", "reduce", lambda x: torch.amin(x, t, keepdim=keep), {"x": D(*s) if np.prod(s) <= 512 else N(*s)}, attrs)
    add("var", "reduce", lambda x: torch.var(x, t, True, keepdim=keep), {"x": N(*s, shift=1)}, attrs)
    add("var", "reduce", lambda x: torch.var(x, t, False, keepdim=keep), {"x": N(*s, shift=-2)}, {**attrs, "unbiased": False})
    add("std", "reduce", lambda x: torch.std(x, t, True, keepdim=keep), {"x": N(*s)}, attrs)
    add("std", "reduce", lambda x: torch.std(x, t, False, keepdim=keep), {"x": N(*s, shift=3)}, {**attrs, "unbiased": False})
    add("logsumexp", "reduce", lambda x: torch.logsumexp(x, t, keepdim=keep), {"x": N(*s, scale=4)}, attrs)
    for p in (2, 1, INF):
        add("norm", "reduce", lambda x: torch.linalg.vector_norm(x, p, t, keepdim=keep), {"x": D(*s) if p == INF and np.prod(s) <= 512 else N(*s)},
            {**attrs, "p": "inf" if p == INF else p})
    add("all", "reduce", lambda x: torch.amin(x.ne(0).to(torch.uint8), t, keepdim=keep).bool(), {"x": C(H(*s, low=0, high=30))}, attrs)
    add("any", "reduce", lambda x: torch.amax(x.ne(0).to(torch.uint8), t, keepdim=keep).bool(), {"x": C(H(*s, low=-1, high=0))}, attrs)


def prod(x, t, keep):
    for i in sorted(t, reverse=True):
        x = torch.prod(x, i, keepdim=keep)
    return x


for s, d, keep in DIMS[1:]:
    t = dims_of(s, d)
    add("prod", "reduce", lambda x: prod(x, t, keep), {"x": U(*s, low=0.75, high=1.25)}, {"dims": d, "keepdim": keep})
for s, d in [((17, 33), 1), ((17, 65), 2), ((2, 3, 5, 9), 2), ((2, 3, 5, 9), 4), ((7, 65), -1)]:
    i = d - 1 if d > 0 else d
    for name in ("argmax", "argmin"):
        add(name, "reduce", lambda x: getattr(torch, name)(x, i, keepdim=d == 2), {"x": C(N(*s))}, {"dim": d, "keepdim": d == 2})
    add("cumsum", "reduce", lambda x: torch.cumsum(x, i), {"x": N(*s)}, {"dim": d})
    add("softmax", "softmax", lambda x: torch.softmax(x, i), {"x": N(*s, scale=2)}, {"dim": d})
    add("log_softmax", "softmax", lambda x: torch.log_softmax(x, i), {"x": N(*s, scale=2)}, {"dim": d})
    add("l2_normalize", "norm", lambda x: F.normalize(x, 2, i), {"x": N(*s)}, {"dim": d})
    for down in (False, True):
        add("sort", "reduce", lambda x: torch.sort(x, dim=i, descending=down, stable=True), {"x": N(*s)}, {"dim": d, "descending": down})
for s, d, k, big in [((17, 30), 1, 5, True), ((7, 65), 2, 9, True), ((7, 65), 2, 33, False), ((2, 3, 5, 9), 3, 2, True)]:
    add("topk", "reduce", lambda x: torch.topk(x, k, d - 1, big), {"x": D(*s)}, {"k": k, "dim": d, "largest": big})

# ---------------------------------------------------------------- norms

for s in [(17, 33), (3, 5, 65), (2, 9, 128), (33, 16)]:
    c = s[-1]
    for eps in (1e-5, 1e-12):
        add("layer_norm", "norm", lambda x, w, b: F.layer_norm(x, [c], w, b, eps), {"x": N(*s, shift=0.5), "weight": W(N(c, scale=0.25, shift=1)), "bias": W(N(c))},
            {"eps": eps})
    add("layer_norm", "norm", lambda x: F.layer_norm(x, [c]), {"x": N(*s)})

    def add_norm(x, r, w, b):
        h = x + r
        return F.layer_norm(h, [c], w, b), h
    add("add_layer_norm", "norm", add_norm, {"x": N(*s), "residual": N(*s), "weight": W(N(c, scale=0.25, shift=1)), "bias": W(N(c))})

for s in [(17, 33), (33, 16), (5, 7, 9, 5), (4, 17, 8, 8), (2, 33, 5, 7), (3, 64, 4, 3)]:
    c = s[1]
    for training, relu, residual in [(True, False, False), (True, True, True), (False, False, False), (False, True, True), (True, True, False)]:
        def norm(x, w, b, m, v, r=None):
            y = F.batch_norm(x, m, v, w, b, training, 0.1, 1e-5)
            if r is not None:
                y = y + r
            return torch.relu(y) if relu else y
        args = {"x": N(*s, shift=0.5), "weight": W(N(c, scale=0.25, shift=1)), "bias": W(N(c)), "running_mean": M(N(c, scale=0.25)),
                "running_var": M(U(c, low=0.5, high=2))}
        if residual:
            args["residual"] = N(*s)
        add("batch_norm", "norm", norm, args, {"training": training, "relu": relu})
add("batch_norm", "norm", lambda x: F.batch_norm(x, None, None, None, None, True, 0.1, 1e-3), {"x": N(9, 17, 3, 5)}, {"eps": 1e-3})

# ---------------------------------------------------------------- products

for s, o in [((17,), 33), ((5, 17), 33), ((33, 64), 65), ((2, 9, 65), 17), ((65, 128), 16), ((1, 3, 33), 8)]:
    i = s[-1]
    for act, fn in [("none", lambda y: y), ("gelu", F.gelu), ("relu", torch.relu)]:
        add("linear", "product", lambda x, w, b: fn(F.linear(x, w, b)), {"x": N(*s), "weight": N(o, i, scale=0.25), "bias": W(N(o))}, {"activation": act})
    add("linear", "product", F.linear, {"x": N(*s), "weight": N(o, i, scale=0.25)})
for a, b in [((17, 33), (33, 65)), ((64, 16), (16, 8)), ((3, 17, 33), (3, 33, 9)), ((2, 1, 5, 65), (3, 65, 17)), ((33,), (33, 17)), ((5, 17, 33), (33,)),
             ((4, 17, 8), (8, 33))]:
    add("matmul", "product", torch.matmul, {"a": N(*a), "b": N(*b)})
for n in (65, 16):   # one number: kept from cancelling, which no float survives
    add("matmul", "product", torch.matmul, {"a": N(n, shift=1), "b": N(n, shift=2)})
for xs, ws, kw in [
    ((2, 3, 9, 11), (8, 3, 3, 3), dict(stride=1, padding=1)), ((1, 17, 7, 5), (33, 17, 1, 1), dict(stride=1, padding=0)),
    ((2, 16, 8, 8), (16, 16, 3, 3), dict(stride=2, padding=1)), ((2, 3, 19, 17), (64, 3, 7, 7), dict(stride=2, padding=3)),
    ((1, 33, 6, 7), (17, 33, 3, 3), dict(stride=1, padding=2, dilation=2)), ((2, 12, 9, 9), (18, 4, 3, 3), dict(stride=1, padding=1, groups=3)),
    ((2, 17, 8, 8), (17, 1, 3, 3), dict(stride=1, padding=1, groups=17)), ((3, 65, 4, 4), (8, 65, 1, 1), dict(stride=2, padding=0)),
    ((2, 5, 9, 13), (7, 5, 3, 5), dict(stride=[2, 3], padding=[1, 2])), ((2, 3, 16, 16), (24, 3, 8, 8), dict(stride=8, padding=0)),
    ((1, 64, 5, 5), (32, 64, 3, 3), dict(stride=1, padding=1)),
]:
    args = {"x": N(*xs), "weight": N(*ws, scale=0.25), "bias": W(N(ws[0]))}
    add("conv2d", "conv", lambda x, w, b: F.conv2d(x, w, b, **{k: tuple(v) if isinstance(v, list) else v for k, v in kw.items()}), args, kw)
    args = {k: v for k, v in args.items() if k != "bias"}
    add("conv2d", "conv", lambda x, w: F.conv2d(x, w, None, **{k: tuple(v) if isinstance(v, list) else v for k, v in kw.items()}), args, kw)

# ---------------------------------------------------------------- pooling

for s, k, st, p in [((2, 3, 9, 11), 3, 2, 1), ((1, 17, 8, 8), 2, 2, 0), ((2, 33, 7, 5), 3, 1, 1), ((2, 5, 9, 13), [2, 3], [1, 2], [1, 1]), ((1, 65, 6, 6), 3, 3, 0)]:
    t = [tuple(v) if isinstance(v, list) else v for v in (k, st, p)]
    attrs = {"kernel": k, "stride": st, "padding": p}
    add("max_pool2d", "pool", lambda x: F.max_pool2d(x, *t), {"x": N(*s)}, attrs)
    add("avg_pool2d", "pool", lambda x: F.avg_pool2d(x, *t), {"x": N(*s)}, attrs)
    add("avg_pool2d", "pool", lambda x: F.avg_pool2d(x, *t, count_include_pad=False), {"x": N(*s)}, {**attrs, "count_include_pad": False})
    add("global_avg_pool2d", "pool", lambda x: x.mean((2, 3)), {"x": N(*s)})

# ---------------------------------------------------------------- attention


def attend(q, k, v, mask=None, scale=0, causal=False):
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    s = q @ k.transpose(2, 3) * (scale or q.shape[-1] ** -0.5)
    if mask is not None:
        if mask.dim() == 2:
            mask = mask[:, None, None, :]
        elif mask.dim() == 3:
            mask = mask[:, None]
        s = s.masked_fill(~mask, -INF) if mask.dtype == torch.bool else s + mask
    if causal:
        s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool).triu(1), -INF)
    return (torch.softmax(s, -1) @ v).transpose(1, 2)


def self_attend(qkv, mask=None, **kw): return attend(*qkv.unbind(2), mask, **kw)


for b, s, l, h, d in [(2, 17, 17, 2, 16), (1, 33, 65, 3, 8), (2, 9, 5, 1, 33), (1, 65, 33, 2, 64)]:
    args = {"q": N(b, s, h, d), "k": N(b, l, h, d), "v": N(b, l, h, d)}
    add("attention", "attention", attend, args)
    add("attention", "attention", lambda q, k, v: attend(q, k, v, scale=0.25), args, {"scale": 0.25})
    add("attention", "attention", attend, {**args, "mask": B(b, h, s, l, p=0.9)})
    add("attention", "attention", attend, {**args, "mask": C(N(b, h, s, l))})
    add("attention", "attention", attend, {**args, "mask": B(b, l, p=0.75)})
for b, s, h, d in [(2, 17, 2, 16), (1, 33, 3, 8), (1, 65, 2, 64), (2, 8, 1, 17)]:
    args = {"qkv": N(b, s, 3, h, d)}
    add("self_attention", "attention", self_attend, args)
    add("self_attention", "attention", lambda qkv: self_attend(qkv, causal=True), args, {"causal": True})
    add("self_attention", "attention", self_attend, {**args, "mask": B(b, s, p=0.75)})
    add("self_attention", "attention", self_attend, {**args, "mask": C(N(b, h, s, s))})
    add("self_attention", "attention", lambda q, m: self_attend(q, m, causal=True), {**args, "mask": C(N(b, h, s, s))}, {"causal": True})

# ---------------------------------------------------------------- losses

for n, k in [(17, 33), (9, 65), (33, 8), (5, 130)]:
    for kw in [{}, {"smoothing": 0.1}, {"reduction": "sum"}, {"reduction": "none"}, {"ignore_index": 3, "smoothing": 0.2}, {"ignore_index": 2}]:
        t = {"label_smoothing" if a == "smoothing" else a: v for a, v in kw.items()}
        add("cross_entropy", "loss", lambda x, y: F.cross_entropy(x, y, **t), {"x": N(n, k, scale=2), "target": I(n, low=0, high=min(k - 1, 7))}, kw)
        add("cross_entropy", "loss", lambda x, y, w: F.cross_entropy(x, y, w, **t),
            {"x": N(n, k, scale=2), "target": I(n, low=0, high=min(k - 1, 7)), "weight": W(C(U(k, low=0.25, high=2)))}, kw)
for s in [(17,), (3, 33), (2, 5, 65)]:
    for red in ("mean", "sum", "none"):
        kw = {"reduction": red}
        add("bce_with_logits", "loss", lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction=red), {"x": N(*s, scale=2), "target": C(U(*s))}, kw)
        add("bce_with_logits", "loss", lambda x, y, w: F.binary_cross_entropy_with_logits(x, y, pos_weight=w, reduction=red),
            {"x": N(*s, scale=2), "target": C(U(*s)), "pos_weight": W(C(U(s[-1], low=0.5, high=4)))}, kw)
        add("mse", "loss", lambda x, y: F.mse_loss(x, y, reduction=red), {"x": N(*s), "target": N(*s)}, kw)
        for beta in (1, 0.25):
            add("smooth_l1", "loss", lambda x, y: F.smooth_l1_loss(x, y, reduction=red, beta=beta), {"x": N(*s), "target": N(*s)}, {**kw, "beta": beta})
        for log in (False, True):
            add("kl_div", "loss", lambda x, y: F.kl_div(x, y, reduction=red, log_target=log),
                {"x": N(*s, scale=0.5, shift=-2), "target": N(*s, scale=0.5, shift=-2) if log else U(*s, low=0.0625, high=1)}, {**kw, "log_target": log})

        def focal(x, y, alpha, gamma):
            p = torch.sigmoid(x)
            right = p * y + (1 - p) * (1 - y)
            loss = F.binary_cross_entropy_with_logits(x, y, reduction="none") * (1 - right) ** gamma
            if alpha >= 0:
                loss = loss * (alpha * y + (1 - alpha) * (1 - y))
            return loss if red == "none" else getattr(loss, red)()
        for alpha, gamma in [(0.25, 2), (-1, 1.5), (0.75, 3)]:
            add("focal", "loss", lambda x, y: focal(x, y, alpha, gamma), {"x": N(*s), "target": C(H(*s, low=0, high=1))}, {**kw, "alpha": alpha, "gamma": gamma})
    add("kl_div", "loss", lambda x, y: F.kl_div(x, y, reduction="batchmean"), {"x": N(*s, scale=0.5, shift=-2), "target": U(*s, low=0.0625, high=1)},
        {"reduction": "batchmean"})


def info_nce(a, b, scale, symmetric):
    a, b = F.normalize(a), F.normalize(b)
    s = a @ b.T * scale
    own = torch.arange(len(a))
    loss = F.cross_entropy(s, own)
    return (loss + F.cross_entropy(s.T, own)) / 2 if symmetric else loss


def cross_correlation(a, b, along, eps=1e-5):
    if along == "samples":
        a, b = a.T, b.T
    k = len(a)
    def standard(z): return (z - z.mean(0)) / torch.sqrt(z.var(0, unbiased=False) + eps)
    c = standard(a).T @ standard(b) / k
    own = torch.diagonal(c)
    return (((1 - own) ** 2).sum() + 0.0051 * ((c ** 2).sum() - (own ** 2).sum())) / len(c)


for k, d in [(17, 33), (8, 64), (33, 16), (16, 65)]:
    for sym in (True, False):
        for scale in (1, 1 / 0.07):
            add("info_nce", "loss", lambda a, b: info_nce(a, b, scale, sym), {"a": N(k, d), "b": N(k, d)}, {"symmetric": sym, "scale": scale})
        add("info_nce", "loss", lambda a, b, s: info_nce(a, b, s, sym), {"a": N(k, d), "b": N(k, d), "scale": W(V(8.0, shape=[]))}, {"symmetric": sym})
    for along in ("features", "samples"):
        add("cross_correlation", "loss", lambda a, b: cross_correlation(a, b, along), {"a": N(k, d), "b": N(k, d)}, {"along": along})

# ---------------------------------------------------------------- lookups

for ids, v, c, padding in [((17,), 9, 33, -1), ((3, 9), 33, 17, 4), ((2, 65), 16, 64, 0), ((2, 3, 5), 7, 8, -1)]:
    add("embedding", "lookup", lambda i, w: F.embedding(i, w, padding_idx=padding if padding >= 0 else None), {"ids": I(*ids, low=0, high=v - 1), "table": N(v, c)},
        {"padding": padding})
for s, d, n in [((17, 33), 1, 9), ((17, 33), 2, 65), ((3, 5, 9), 2, 8), ((2, 3, 5, 9), 2, 4)]:
    add("index_select", "lookup", lambda x, i: torch.index_select(x, d - 1, i), {"x": N(*s), "ids": I(n, low=0, high=s[d - 1] - 1)}, {"dim": d})
    t = list(s)
    t[d - 1] = n
    add("gather", "lookup", lambda x, i: torch.gather(x, d - 1, i), {"x": N(*s), "ids": I(*t, low=0, high=s[d - 1] - 1)}, {"dim": d})
    add("scatter_add", "lookup", lambda x, i, y: x.scatter_add(d - 1, i, y), {"x": N(*s), "ids": I(*t, low=0, high=s[d - 1] - 1), "src": N(*t)}, {"dim": d})
for s in [(17,), (3, 33), (2, 5, 65)]:
    mask = B(*s, p=0.4)
    count = int(values(mask, "masked_take.%d/mask" % (counts.get("masked_take", 0) + 1)).sum())
    add("masked_take", "lookup", torch.masked_select, {"x": N(*s), "mask": mask}, {"count": count})

# ---------------------------------------------------------------- shape and order

for s, t in [((17, 33), [33, 17]), ((2, 3, 5, 9), [6, 45]), ((65,), [5, 13]), ((8, 8), [-1, 4])]:
    add("reshape", "move", lambda x: x.reshape(t), {"x": N(*s)}, {"shape": t})
for s, d in [((17, 33), [2, 1]), ((3, 5, 65), [3, 1, 2]), ((2, 3, 5, 9), [1, 3, 4, 2]), ((2, 3, 5, 9), [4, 3, 2, 1])]:
    add("permute", "move", lambda x: x.permute([i - 1 for i in d]), {"x": N(*s)}, {"dims": d})
    add("transpose", "move", lambda x: x.transpose(d[0] - 1, d[1] - 1), {"x": N(*s)}, {"dim1": d[0], "dim2": d[1]})
for s, d, start, length in [((17, 33), 1, 3, 9), ((17, 33), 2, 17, 16), ((2, 3, 5, 9), 3, 2, 3), ((2, 3, 5, 9), 2, 1, 2)]:
    add("narrow", "move", lambda x: x.narrow(d - 1, start - 1, length), {"x": N(*s)}, {"dim": d, "start": start, "length": length})
    add("select", "move", lambda x: x.select(d - 1, start - 1), {"x": N(*s)}, {"dim": d, "index": start})
    add("unsqueeze", "move", lambda x: x.unsqueeze(d - 1), {"x": N(*s)}, {"dim": d})
    add("flatten", "move", lambda x: x.flatten(d - 1), {"x": N(*s)}, {"first": d})
for s, t in [((17, 1), [17, 33]), ((1, 5, 1), [3, 5, 9]), ((65,), [4, 65])]:
    add("expand", "move", lambda x: x.expand(t), {"x": N(*s)}, {"shape": t})
for s, d in [((17, 1), 2), ((1, 5, 9), 1), ((3, 1, 5, 1), None)]:
    add("squeeze", "move", lambda x: x.squeeze(d - 1) if d else x.squeeze(), {"x": N(*s)}, {"dim": d} if d else {})
for a, b, d in [((17, 33), (9, 33), 1), ((17, 33), (17, 8), 2), ((2, 3, 5, 9), (2, 4, 5, 9), 2), ((2, 3, 65), (2, 3, 1), -1)]:
    add("cat", "move", lambda xs: torch.cat(xs, d - 1 if d > 0 else d), {"xs": [N(*a), N(*b), N(*a)]}, {"dim": d})
    add("stack", "move", lambda xs: torch.stack(xs, d - 1 if d > 0 else d), {"xs": [N(*a), N(*a), N(*a)]}, {"dim": d})
for s, p, v in [((17,), [2, 3], 0), ((3, 33), [1, 0, 0, 2], 1.5), ((2, 3, 5, 9), [1, 2, 3, 0], -1), ((2, 3, 5, 9), [0, 1, 0, 0, 2, 2], 0)]:
    add("pad", "move", lambda x: F.pad(x, p, value=v), {"x": N(*s)}, {"amounts": p, "value": v})
for s, d, r in [((17,), [1], [5]), ((3, 33), [1, 2], [-1, 40]), ((2, 3, 5, 9), [3, 4], [2, -3]), ((2, 3, 5, 9), [2], [1])]:
    t = [i - 1 for i in d]
    add("flip", "move", lambda x: x.flip(t), {"x": N(*s)}, {"dims": d})
    add("roll", "move", lambda x: x.roll(r, t), {"x": N(*s)}, {"shifts": r, "dims": d})
for s, r in [((17,), [3]), ((3, 33), [2, 1]), ((5, 9), [2, 1, 3]), ((2, 3, 5, 9), [1, 2, 1, 2])]:
    add("repeat_", "move", lambda x: x.repeat(r), {"x": N(*s)}, {"times": r})
for s, k in [((17, 33), 0), ((3, 9, 9), 1), ((2, 3, 5, 9), -2), ((65, 8), 3)]:
    add("tril", "move", lambda x: torch.tril(x, k), {"x": N(*s)}, {"diagonal": k})
    add("triu", "move", lambda x: torch.triu(x, k), {"x": N(*s)}, {"diagonal": k})
for s in [(17,), (3, 33), (2, 3, 5, 9)]:
    add("contiguous", "move", lambda x: x.contiguous(), {"x": N(*s)})
for s in [(1, 17, 3, 5), (2, 3, 5, 9), (2, 33, 4, 4)]:
    add("channels_last", "move", lambda x: x.contiguous(memory_format=torch.channels_last), {"x": N(*s)})
for s, name, t in [((3, 33), "f64", torch.float64), ((17,), "f32", torch.float32), ((2, 3, 5, 9), "bf16", torch.bfloat16), ((65,), "f16", torch.float16)]:
    add("cast", "move", lambda x: x.to(t), {"x": N(*s)}, {"dtype": name})

# ---------------------------------------------------------------- steps of optimisers


def T(spec): return {**spec, "constant": True, "mutated": True}   # changed in place, of the dtype of the others


WIDE = ["f64", "f32"]   # what parameters that are trained may be
LISTS = [[(17, 33), (33,), (2, 3, 5, 9)], [(65,), (8, 16)], [(130, 3)]]
for shapes in LISTS:
    def each(make): return [make(*s) for s in shapes]
    ps, gs = each(lambda *s: T(N(*s))), each(lambda *s: C(N(*s, scale=0.25)))
    first, second = each(lambda *s: M(N(*s, scale=0.125))), each(lambda *s: M(U(*s, low=0.0625, high=0.5)))
    adam = {"params": ps, "grads": gs, "exp_avg": first, "exp_avg_sq": second}
    for kw in [{}, {"weight_decay": 0.1, "beta1": 0.8, "beta2": 0.95, "eps": 1e-6}]:
        add("adamw", "optimiser", lambda ps, gs, ms, vs, step: adamw(ps, gs, ms, vs, 0.25, step, **kw), {**adam, "step": M(V(4, shape=[]))}, {"lr": 0.25, **kw}, dtypes=WIDE)
    for kw in [{}, {"weight_decay": 0.1, "max_norm": 0.25, "scale": 0.5}, {"max_norm": 0, "eps": 1e-6}]:
        add("bert_adam", "optimiser", lambda ps, gs, ms, vs: bert_adam(ps, gs, ms, vs, 0.25, **kw), adam, {"lr": 0.25, **kw}, dtypes=WIDE)
    three = {"params": ps, "grads": gs, "momentum_buffers": first}
    for kw in [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, {"momentum": 0.5, "dampening": 0.25, "scale": 0.5}]:
        add("sgd", "optimiser", lambda ps, gs, bs: sgd(ps, gs, bs, 0.25, **kw), three, {"lr": 0.25, **kw}, dtypes=WIDE)
    add("sgd", "optimiser", lambda ps, gs: sgd(ps, gs, None, 0.25, weight_decay=0.1), {"params": ps, "grads": gs}, {"lr": 0.25, "weight_decay": 0.1}, dtypes=WIDE)
    three = {"params": ps, "grads": gs, "buffers": first}
    for kw in [{}, {"weight_decay": 0.1, "eta": 0.01}, {"weight_decay": 0.1, "skip_decay": True, "skip_adapt": True, "eta": 0.02, "scale": 0.5}]:
        add("lars", "optimiser", lambda ps, gs, bs: lars(ps, gs, bs, 2.0, **kw), three, {"lr": 2.0, **kw}, dtypes=WIDE)

    def lerp(into, start):
        for a, b in zip(into, start):
            a.copy_(torch.lerp(a, b, 0.25))
    add("lerp_", "optimiser", lerp, {"into": ps, "from": each(lambda *s: C(N(*s)))}, {"weight": 0.25})
    add("grad_norm", "optimiser", lambda ts: torch.sqrt(sum((t.to(torch.float64 if t.dtype == torch.float64 else torch.float32) ** 2).sum() for t in ts)),
        {"tensors": each(lambda *s: C(N(*s)))})

    def scale_all(ts):
        for t in ts:
            t.mul_(0.75)
    add("scale_", "optimiser", scale_all, {"values": ps}, {"by": 0.75})

if __name__ == "__main__":
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "ops.safetensors"))
