#!/usr/bin/env python3
"""Makes spec/golden/spatial.safetensors: ops on images of other sizes and places, group norm, and the in-place forms, by PyTorch. See README.md here."""
import os

from common import *   # noqa: F403

# ---------------------------------------------------------------- group norm

for s, g in [((2, 6, 5, 9), 3), ((3, 33, 4, 3), 11), ((2, 64, 3, 3), 2), ((2, 17, 65), 1), ((5, 24), 4)]:
    c = s[1]
    args = {"x": N(*s, shift=0.5), "weight": W(N(c, scale=0.25, shift=1)), "bias": W(N(c))}
    add("group_norm", "norm", lambda x, w, b: F.group_norm(x, g, w, b), args, {"groups": g})
    add("group_norm", "norm", lambda x: F.group_norm(x, g, eps=0.01), {"x": args["x"]}, {"groups": g, "eps": 0.01})

# ---------------------------------------------------------------- transposed convolution

for xs, ws, kw in [
    ((2, 5, 7, 6), (5, 3, 3, 3), {}),
    ((2, 16, 5, 4), (16, 17, 2, 2), {"stride": 2}),
    ((1, 6, 5, 7), (6, 4, 3, 2), {"stride": [2, 1], "padding": [1, 0], "dilation": [1, 2], "groups": 2, "output_padding": [1, 0]}),
    ((2, 8, 4, 4), (8, 1, 4, 4), {"stride": 2, "padding": 1, "groups": 8}),
    ((1, 33, 3, 3), (33, 9, 1, 1), {}),
]:
    args = {"x": N(*xs), "weight": N(*ws, scale=0.25), "bias": W(N(ws[1] * kw.get("groups", 1)))}
    add("conv_transpose2d", "conv", lambda x, w, b: F.conv_transpose2d(x, w, b.to(x.dtype), **kw), args, kw)
    add("conv_transpose2d", "conv", lambda x, w: F.conv_transpose2d(x, w, **kw), {"x": args["x"], "weight": args["weight"]}, kw)

# ---------------------------------------------------------------- pools, other sizes

for s, size in [((2, 3, 7, 9), [3, 4]), ((1, 17, 5, 5), [1, 1]), ((2, 9, 3, 4), [5, 7]), ((1, 65, 8, 6), [4, 3])]:
    add("adaptive_avg_pool2d", "pool", lambda x: F.adaptive_avg_pool2d(x, size), {"x": N(*s)}, {"size": size})
    add("adaptive_max_pool2d", "pool", lambda x: F.adaptive_max_pool2d(x, size), {"x": D(*s) if np.prod(s) <= 512 else N(*s)}, {"size": size})
for s, size in [((2, 3, 5, 4), [10, 8]), ((1, 17, 8, 9), [4, 3]), ((2, 9, 3, 3), [4, 8]), ((1, 65, 1, 6), [2, 1])]:
    add("interpolate", "resample", lambda x: F.interpolate(x, size), {"x": N(*s)}, {"size": size})
    for mode in ("bilinear", "bicubic"):
        for align in (False, True):
            add("interpolate", "resample", lambda x: F.interpolate(x, size, mode=mode, align_corners=align), {"x": N(*s)}, {"size": size, "mode": mode, "align_corners": align})

# ---------------------------------------------------------------- places

for s, t in [((2, 3, 5, 4), (3, 7)), ((1, 17, 8, 9), (4, 3)), ((2, 9, 3, 1), (2, 5))]:
    for mode in ("bilinear", "nearest", "bicubic"):
        for padding in ("zeros", "border", "reflection"):
            align = mode == "bicubic" or padding == "border"
            add("grid_sample", "resample", lambda x, g: F.grid_sample(x, g, mode, padding, align), {"x": N(*s), "grid": W(U(s[0], *t, 2, low=-1.5, high=1.5))},
                {"mode": mode, "padding": padding, "align_corners": align})
            if s[1] == 3:
                add("grid_sample", "resample", lambda x, g: F.grid_sample(x, g, mode, padding, not align), {"x": N(*s), "grid": W(U(s[0], *t, 2, low=-1.5, high=1.5))},
                    {"mode": mode, "padding": padding, "align_corners": not align})

# ---------------------------------------------------------------- in place


def T(spec): return {**spec, "constant": True, "mutated": True}   # changed in place, of the dtype of the others


def positive(*s): return U(*s, low=0.125, high=4)


def into(fn):
    def change(x, *rest):
        x.copy_(fn(x, *rest))
    return change


UNARY = {
    "abs": torch.abs, "neg": torch.neg, "exp": torch.exp, "square": torch.square, "reciprocal": torch.reciprocal, "sin": torch.sin, "cos": torch.cos, "tanh": torch.tanh,
    "sigmoid": torch.sigmoid, "silu": F.silu, "softplus": F.softplus, "gelu": F.gelu, "relu": torch.relu, "erf": torch.erf, "sign": torch.sign, "floor": torch.floor,
    "ceil": torch.ceil, "round": torch.round, "log": torch.log, "log1p": torch.log1p, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt,
}
for name, fn in UNARY.items():
    for s in [(17,), (3, 33), (2, 3, 5, 9)]:
        add(name + "_", "in place", into(fn), {"x": T(positive(*s) if name in ("log", "log1p", "sqrt", "rsqrt", "reciprocal") else N(*s))})
BINARY = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "pow": torch.pow, "remainder": torch.remainder, "maximum": torch.maximum, "minimum": torch.minimum}
for name, fn in BINARY.items():
    left = positive if name == "pow" else N
    right = positive if name in ("div", "remainder") else N
    for a, b in [((3, 17), (3, 17)), ((4, 5, 33), (5, 1)), ((2, 3, 5, 9), (3, 1, 1))]:
        add(name + "_", "in place", into(fn), {"a": T(left(*a)), "b": C(right(*b))})
    if name not in ("maximum", "minimum"):
        add(name + "_", "in place", into(lambda a: fn(a, 2.5)), {"a": T(left(3, 33))}, {"b": 2.5})
for name, fn in (("add", torch.add), ("sub", torch.sub)):
    add(name + "_", "in place", into(lambda a, b: fn(a, b, alpha=-0.75)), {"a": T(N(5, 17)), "b": C(N(5, 17))}, {"alpha": -0.75})
for low, high, s in [(-0.5, 0.75, (17,)), (None, 0.5, (3, 33)), (-0.25, None, (2, 3, 5, 9))]:
    add("clamp_", "in place", into(lambda x: torch.clamp(x, low, high)), {"x": T(N(*s))}, {k: v for k, v in (("min", low), ("max", high)) if v is not None})
for s, m in [((3, 17), (3, 17)), ((2, 5, 33), (5, 1)), ((2, 3, 5, 9), (9,))]:
    add("masked_fill_", "in place", into(lambda x, mask: x.masked_fill(mask, -1.5)), {"x": T(N(*s)), "mask": B(*m)}, {"value": -1.5})

if __name__ == "__main__":
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "spatial.safetensors"))
