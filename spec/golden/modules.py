#!/usr/bin/env python3
"""Makes spec/golden/modules.safetensors: nn modules (parameters' gradients and buffers too), losses and functions made of ops; see README.md here.

Parameters are f32 in Unic whatever the dtype: bf16 and f16 mean autocast there, while PyTorch's own error is that of a module that is all bf16.
"""
import os

from common import *   # noqa: F403


def P(spec): return W(spec)   # a parameter


def module(name, init, fn, args, params=None, attrs=None, **more):
    add("nn." + name, "module", fn, args, attrs, {k: P(v) for k, v in (params or {}).items()}, module=name, init=init, **more)


def sub(name, *init): return {"module": name, "init": list(init)}


# ---------------------------------------------------------------- products

ACT = {"none": lambda y: y, "gelu": F.gelu, "relu": torch.relu}


def linear_params(i, o, bias=True, prefix=""):
    p = {prefix + "weight": N(o, i, scale=0.25)}
    if bias:
        p[prefix + "bias"] = N(o)
    return p


for s, o in [((5, 17), 33), ((33, 64), 8), ((2, 9, 65), 16)]:
    for bias, act in [(True, "none"), (False, "none"), (True, "gelu"), (True, "relu")]:
        module("Linear", [s[-1], o, {"bias": bias, "activation": act}], lambda p, x: ACT[act](F.linear(x, p["weight"], p.get("bias"))), {"x": N(*s)},
               linear_params(s[-1], o, bias))
for xs, o, k, kw in [((2, 3, 9, 11), 17, 3, {"stride": 2, "padding": 1}), ((1, 33, 6, 5), 16, 1, {}), ((2, 12, 8, 8), 6, 3, {"groups": 3, "padding": 2, "dilation": 2}),
                     ((2, 3, 16, 16), 24, 8, {"stride": 8}), ((1, 5, 9, 13), 8, [3, 5], {"padding": [1, 2], "stride": [1, 2]})]:
    kk = k if isinstance(k, list) else [k, k]
    for bias in (True, False):
        module("Conv2d", [xs[1], o, k, {**kw, "bias": bias}], lambda p, x: F.conv2d(x, p["weight"], p.get("bias"), **{a: tuple(v) if isinstance(v, list) else v
               for a, v in kw.items()}), {"x": N(*xs)},
               {"weight": N(o, xs[1] // kw.get("groups", 1), *kk, scale=0.25), **({"bias": N(o)} if bias else {})})

# ---------------------------------------------------------------- norms


def batch_norm(name, s, mode, kw, call):
    c = s[1]
    params = {"weight": N(c, scale=0.25, shift=1), "bias": N(c)} if kw.get("affine", True) else {}
    params.update({"running_mean": M(N(c, scale=0.25)), "running_var": M(U(c, low=0.5, high=2)), "num_batches_tracked": M(V(3, shape=[], float=False))})

    def fn(p, x, residual=None):
        if mode == "train":
            p["num_batches_tracked"] += 1
        y = F.batch_norm(x, p["running_mean"], p["running_var"], p.get("weight"), p.get("bias"), mode == "train", kw.get("momentum", 0.1), kw.get("eps", 1e-5))
        return torch.relu(y) if call.get("relu") else y
    module(name, [c, kw], fn, {"x": N(*s, shift=0.5)}, params, call, mode=mode)


for mode in ("train", "eval"):
    for kw, call in [({}, {}), ({"eps": 1e-3, "momentum": 0.25}, {"relu": True}), ({"affine": False}, {})]:
        for s in [(17, 33), (33, 16), (9, 65)]:
            batch_norm("BatchNorm1d", s, mode, kw, call)
        for s in [(3, 17, 5, 7), (2, 64, 4, 4), (5, 33, 3, 3)]:
            batch_norm("BatchNorm2d", s, mode, kw, call)
for s in [(17, 33), (3, 5, 65), (2, 9, 128)]:
    c = s[-1]
    params = {"weight": N(c, scale=0.25, shift=1), "bias": N(c)}
    module("LayerNorm", [c, {"eps": 1e-6}], lambda p, x: F.layer_norm(x, [c], p["weight"], p["bias"], 1e-6), {"x": N(*s)}, params)
    # A parameter dictionary that is empty would be no module to `run`: a module without parameters takes the inputs alone.
    module("LayerNorm", [c, {"affine": False}], lambda x: F.layer_norm(x, [c]), {"x": N(*s)})
    module("LayerNorm", [c], lambda p, x, r: (F.layer_norm(x + r, [c], p["weight"], p["bias"]), x + r), {"x": N(*s), "residual": N(*s)}, params, method="add")

# ---------------------------------------------------------------- lookups, pooling, shape, activations

for s, v, c, pad in [((17,), 9, 33, None), ((3, 9), 33, 17, 4), ((2, 3, 5), 7, 65, 0)]:
    module("Embedding", [v, c, {"padding": pad} if pad is not None else {}], lambda p, i: F.embedding(i, p["weight"], padding_idx=pad), {"ids": I(*s, low=0, high=v - 1)},
           {"weight": N(v, c)})
for s, k, st, p in [((2, 3, 9, 11), 3, 2, 1), ((1, 17, 8, 8), 2, None, 0), ((2, 33, 7, 5), [3, 2], [1, 2], [1, 1])]:
    t = [tuple(v) if isinstance(v, list) else v for v in (k, st, p)]
    kw = {"padding": p, **({"stride": st} if st else {})}
    module("MaxPool2d", [k, kw], lambda x: F.max_pool2d(x, *t), {"x": N(*s)})
    module("AvgPool2d", [k, kw], lambda x: F.avg_pool2d(x, *t), {"x": N(*s)})
    module("GlobalAvgPool2d", [], lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1), {"x": N(*s)})
    module("Flatten", [], lambda x: x.flatten(1), {"x": N(*s)})
    for name, p_ in (("Dropout", 0), ("DropPath", 0)):
        module(name, [p_], lambda x: x * 1, {"x": N(*s)})
        module(name, [0.5], lambda x: x * 1, {"x": N(*s)}, mode="eval")
for s in [(17,), (3, 33), (2, 5, 65)]:
    for name, fn in {"ReLU": torch.relu, "GELU": F.gelu, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid, "SiLU": F.silu, "Softplus": F.softplus,
                     "Identity": lambda x: x * 1}.items():
        module(name, [], fn, {"x": N(*s)})

# ---------------------------------------------------------------- images: group norm, transposed convolution, other sizes

# No group of one element: its gradient is 0, which we give exactly and PyTorch to within 1e-9.
for s, g in [((3, 12, 5, 7), 4), ((2, 33, 9), 3), ((5, 24), 4), ((2, 64, 4, 5), 1)]:
    c = s[1]
    module("GroupNorm", [g, c], lambda p, x: F.group_norm(x, g, p["weight"], p["bias"]), {"x": N(*s, shift=0.5)}, {"weight": N(c, scale=0.25, shift=1), "bias": N(c)})
    module("GroupNorm", [g, c, {"affine": False, "eps": 1e-3}], lambda x: F.group_norm(x, g, eps=1e-3), {"x": N(*s)})
for xs, o, k, kw in [((2, 5, 7, 9), 17, 3, {"stride": 2, "padding": 1, "output_padding": 1}), ((1, 33, 4, 5), 8, 2, {"stride": 2}),
                     ((2, 12, 5, 6), 9, [3, 5], {"groups": 3, "dilation": [2, 1], "padding": [1, 2]}), ((1, 16, 3, 3), 16, 1, {})]:
    kk = k if isinstance(k, list) else [k, k]
    for bias in (True, False):
        module("ConvTranspose2d", [xs[1], o, k, {**kw, "bias": bias}], lambda p, x: F.conv_transpose2d(x, p["weight"], p.get("bias"), **{
               a: tuple(v) if isinstance(v, list) else v for a, v in kw.items()}), {"x": N(*xs)},
               {"weight": N(xs[1], o // kw.get("groups", 1), *kk, scale=0.25), **({"bias": N(o)} if bias else {})})
for s, size in [((2, 3, 9, 11), [4, 5]), ((1, 17, 8, 8), 1), ((2, 33, 5, 7), [7, 3])]:
    t = tuple(size) if isinstance(size, list) else size
    module("AdaptiveAvgPool2d", [size], lambda x: F.adaptive_avg_pool2d(x, t), {"x": N(*s)})
    module("AdaptiveMaxPool2d", [size], lambda x: F.adaptive_max_pool2d(x, t), {"x": N(*s)})
    for mode in ("nearest", "bilinear", "bicubic"):
        module("Upsample", [{"size": size, "mode": mode}], lambda x: F.interpolate(x, t, mode=mode), {"x": N(*s)})
        # The ratio of the sizes counts, not the factor: PyTorch's recompute_scale_factor.
        module("Upsample", [{"scale_factor": [1.5, 2], "mode": mode}], lambda x: F.interpolate(x, scale_factor=(1.5, 2.0), mode=mode, recompute_scale_factor=True), {"x": N(*s)})
        if mode != "nearest":
            module("Upsample", [{"scale_factor": 3, "mode": mode, "align_corners": True}], lambda x: F.interpolate(x, scale_factor=3, mode=mode, align_corners=True), {"x": N(*s)})

# ---------------------------------------------------------------- several together


def mlp(p, x): return F.linear(torch.tanh(F.linear(x, p["0.weight"], p["0.bias"])), p["2.weight"], p["2.bias"])


for s, h, o in [((5, 17), 33, 8), ((33, 16), 65, 17), ((2, 9, 64), 16, 9)]:
    module("Sequential", [sub("Linear", s[-1], h), sub("Tanh"), sub("Linear", h, o)], mlp, {"x": N(*s)},
           {**linear_params(s[-1], h, prefix="0."), **linear_params(h, o, prefix="2.")})


def conv_block(p, x):
    y = F.batch_norm(F.conv2d(x, p["0.weight"], None, padding=1), p["1.running_mean"], p["1.running_var"], p["1.weight"], p["1.bias"], True, 0.1, 1e-5)
    p["1.num_batches_tracked"] += 1
    return F.max_pool2d(F.silu(y), 2).flatten(1)


for s, o in [((3, 3, 9, 8), 17), ((2, 17, 6, 6), 33)]:
    module("Sequential", [sub("Conv2d", s[1], o, 3, {"padding": 1, "bias": False}), sub("BatchNorm2d", o), sub("SiLU"), sub("MaxPool2d", 2), sub("Flatten")],
           conv_block, {"x": N(*s)},
           {"0.weight": N(o, s[1], 3, 3, scale=0.25), "1.weight": N(o, scale=0.25, shift=1), "1.bias": N(o), "1.running_mean": M(N(o, scale=0.25)),
            "1.running_var": M(U(o, low=0.5, high=2)), "1.num_batches_tracked": M(V(0, shape=[], float=False))})


def heads_of(p, x, heads, mask=None, causal=False):
    b, s, w = x.shape
    q, k, v = F.linear(x, p["qkv.weight"], p.get("qkv.bias")).reshape(b, s, 3, heads, w // heads).permute(2, 0, 3, 1, 4)
    a = q @ k.transpose(-1, -2) / math.sqrt(w // heads)
    if mask is not None:
        a = a.masked_fill(~mask[:, None, None, :], -math.inf)
    if causal:
        a = a.masked_fill(torch.ones(s, s, dtype=torch.bool).triu(1), -math.inf)
    return F.linear((torch.softmax(a, -1) @ v).transpose(1, 2).reshape(b, s, w), p["proj.weight"], p["proj.bias"])


for b, s, w, h in [(2, 17, 32, 2), (1, 33, 24, 3), (2, 8, 64, 1)]:
    params = {"qkv.weight": N(3 * w, w, scale=0.125), "qkv.bias": N(3 * w, scale=0.25), "proj.weight": N(w, w, scale=0.125), "proj.bias": N(w)}
    module("MultiheadAttention", [w, h], lambda p, x: heads_of(p, x, h), {"x": N(b, s, w)}, params)
    module("MultiheadAttention", [w, h], lambda p, x: heads_of(p, x, h, causal=True), {"x": N(b, s, w)}, params, {"causal": True})
    module("MultiheadAttention", [w, h], lambda p, x, mask: heads_of(p, x, h, mask), {"x": N(b, s, w), "mask": B(b, s, p=0.75)}, params, named=["mask"])
    del params["qkv.bias"]
    module("MultiheadAttention", [w, h, {"bias": False}], lambda p, x: heads_of(p, x, h), {"x": N(b, s, w)}, params)

# ---------------------------------------------------------------- losses


def loss(name, fn, args, attrs=None, **more): add("losses." + name, "loss", fn, args, attrs, call="losses." + name, **more)


for s, t in [((5, 17), (5,)), ((2, 9, 33), (2, 33)), ((2, 5, 7, 9), (2, 7, 9))]:
    for kw in [{}, {"smoothing": 0.1, "ignore_index": 1}, {"reduction": "none"}, {"reduction": "sum", "smoothing": 0.25}]:
        k = {"label_smoothing" if a == "smoothing" else a: v for a, v in kw.items()}
        loss("cross_entropy", lambda x, y: F.cross_entropy(x, y, **k), {"x": N(*s, scale=2), "target": I(*t, low=0, high=s[1] - 1)}, kw)
        loss("cross_entropy", lambda x, y, w: F.cross_entropy(x, y, w, **k), {"x": N(*s, scale=2), "target": I(*t, low=0, high=s[1] - 1),
             "weight": W(C(U(s[1], low=0.25, high=2)))}, kw, named=["weight"])
for s in [(17,), (3, 33), (2, 5, 65)]:
    for red in ("mean", "sum", "none"):
        loss("bce_with_logits", lambda x, y, w: F.binary_cross_entropy_with_logits(x, y, pos_weight=w, reduction=red),
             {"x": N(*s, scale=2), "target": C(U(*s)), "pos_weight": W(C(U(s[-1], low=0.5, high=4)))}, {"reduction": red}, named=["pos_weight"])
        loss("mse", lambda x, y: F.mse_loss(x, y, reduction=red), {"x": N(*s), "target": N(*s)}, {"reduction": red})
        loss("smooth_l1", lambda x, y: F.smooth_l1_loss(x, y, reduction=red, beta=0.5), {"x": N(*s), "target": N(*s)}, {"reduction": red, "beta": 0.5})
        loss("smooth_l1", lambda x, y: F.l1_loss(x, y, reduction=red), {"x": N(*s), "target": N(*s)}, {"reduction": red, "beta": 0})
        loss("kl_div", lambda x, y: F.kl_div(x, y, reduction=red), {"x": N(*s, scale=0.5, shift=-2), "target": U(*s, low=0.0625)}, {"reduction": red})
        # The definition, from probabilities: -alpha (1 - p)^gamma log p for positives, the mirror image for negatives.
        loss("focal", lambda x, y: getattr(torch.where(y > 0.5, -0.25 * torch.sigmoid(-x) ** 2 * F.logsigmoid(x), -0.75 * torch.sigmoid(x) ** 2 * F.logsigmoid(-x)),
             red if red != "none" else "clone")(), {"x": N(*s), "target": C(H(*s, low=0, high=1))}, {"reduction": red})


def dice(x, t, activation="sigmoid", smooth=1.0, batch=False, squared=False, reduction="mean"):
    p = torch.sigmoid(x) if activation == "sigmoid" else torch.softmax(x, 1) if activation == "softmax" else x
    if not t.dtype.is_floating_point:
        t = F.one_hot(t, x.shape[1]).movedim(-1, 1).to(x.dtype)
    dims = ([0] if batch else []) + list(range(2, x.dim()))
    top = 2 * (p * t).sum(dims) + smooth
    below = ((p * p).sum(dims) + (t * t).sum(dims) if squared else p.sum(dims) + t.sum(dims)) + smooth
    one = 1 - top / below
    return one if reduction == "none" else getattr(one, reduction)()


for s in [(2, 3, 9, 11), (3, 5, 33), (1, 2, 4, 5, 6)]:
    numbers = I(s[0], *s[2:], low=0, high=s[1] - 1)
    for kw in [{}, {"smooth": 0.5, "batch": True}, {"squared": True, "reduction": "none"}, {"reduction": "sum", "batch": True, "squared": True}]:
        loss("dice", lambda x, t: dice(x, t, **kw), {"x": N(*s), "target": C(U(*s))}, kw)
        loss("dice", lambda x, t: dice(x, t, "softmax", **kw), {"x": N(*s), "target": numbers}, {**kw, "activation": "softmax"})
        loss("dice", lambda x, t: dice(x, t, "none", **kw), {"x": U(*s, low=0.0625), "target": C(H(*s, low=0, high=1))}, {**kw, "activation": "none"})

# Those of Med-UniC, from the paper's formulas.


def one_way(a, b, tau):
    s = (a / a.norm(dim=1, keepdim=True)) @ (b / b.norm(dim=1, keepdim=True)).T / tau
    return (torch.logsumexp(s, 1) - torch.diagonal(s)).mean()


def cvl(v, l, tau=0.07): return 0.5 * (one_way(v, l, tau) + one_way(l, v, tau))


def ctr(a, b, lam=5.1e-3):
    def term(p, q):   # rows are observations; columns are standardised and correlated
        k = len(p)
        p = (p - p.mean(0)) / (math.sqrt(k) * torch.sqrt(p.var(0, unbiased=False) + 1e-5))
        q = (q - q.mean(0)) / (math.sqrt(k) * torch.sqrt(q.var(0, unbiased=False) + 1e-5))
        c = p.T @ q
        own = torch.eye(len(c), dtype=torch.bool)
        return (((1 - c[own]) ** 2).sum() + lam * (c[~own] ** 2).sum()) / len(c)
    return term(a, b), term(a.T, b.T)


for k, d in [(17, 33), (8, 64), (33, 16)]:
    args = {"a": N(k, d), "b": N(k, d)}
    for tau in (None, 0.5):
        kw = {"tau": tau} if tau else {}
        loss("cvl", lambda a, b: cvl(a, b, tau or 0.07), args, kw)
        loss("ssv", lambda a, b: one_way(a, b, tau or 0.07), args, kw)
        loss("ssv", lambda a, b: cvl(a, b, tau or 0.07), args, {**kw, "symmetric": True})
    loss("cvl", lambda a, b, tau: cvl(a, b, tau), {**args, "tau": W(V(0.25, shape=[]))}, named=["tau"])
    loss("ctr", lambda a, b: (sum(ctr(a, b)), *ctr(a, b)), args)
    loss("ctr", lambda a, b: (ctr(a, b)[0],) * 2, args, {"terms": "tf"})
    loss("ctr", lambda a, b: (ctr(a, b, 0.25)[1],) * 2, args, {"terms": "tt", "lambda": 0.25})

# ---------------------------------------------------------------- functions

for equation, *shapes in [
    ("bij,bjk->bik", (3, 5, 17), (3, 17, 9)), ("ij,kj->ik", (17, 33), (8, 33)), ("bhid,bhjd->bhij", (2, 3, 9, 8), (2, 3, 17, 8)), ("i,j->ij", (17,), (33,)),
    ("ij->ji", (17, 33)), ("iij->j", (9, 9, 5)), ("ij->", (17, 33)), ("...ij,jk->...ik", (2, 3, 5, 17), (17, 9)), ("bi,bi->b", (5, 65), (5, 65)),
]:
    args = dict(zip("ab", (N(*s) for s in shapes)))
    add("einsum", "product", lambda *t: torch.einsum(equation, *t), args, call="unic.einsum", before=equation)
for s in [(17,), (3, 33), (2, 5, 65)]:
    add("masked_select", "lookup", torch.masked_select, {"x": N(*s), "mask": B(*s, p=0.4)}, call="unic.masked_select")

if __name__ == "__main__":
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "modules.safetensors"))
