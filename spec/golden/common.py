"""What the scripts of spec/golden share: inputs by formula, cases, PyTorch's answers and its own errors, the safetensors file.

Inputs are never stored: both sides make them from the name of the case and of the argument (`words`, `values`). There are two sets: "fine" ones
are exact in f32 and serve f64 and f32, "coarse" ones are exact in bf16 and f16 too and serve those. A case is a dict that goes into the file's
metadata as JSON, with where its answers lie in the one tensor `values`. spec/support/golden.lua is the other side.
"""
import json
import math
import os
import struct
import sys

import numpy as np
import torch
import torch.nn.functional as F  # noqa: F401  (for the tables)

MASK = (1 << 64) - 1
FULL, SAMPLE, ENDS = 96, 96, 16   # up to FULL elements are stored whole; of more, SAMPLE: ENDS at each end, the others by hash

torch.set_num_threads(1)


# ---------------------------------------------------------------- the formula

def fnv(text):
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = ((h ^ b) * 0x100000001B3) & MASK
    return h


def words(key, n):
    """n words of 64 bits from a name."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv(key)) + (np.arange(n, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def bits(z, start, count):
    return ((z >> np.uint64(start)) & np.uint64((1 << count) - 1)).astype(np.float64)


def round8(x):
    """The nearest number with 8 significant bits, halves to even."""
    m, e = np.frexp(np.where(np.isfinite(x), x, 0))
    return np.where(np.isfinite(x), np.ldexp(np.rint(np.ldexp(m, 8)), e - 8), x)


def values(spec, key, fine=True):
    """The values of one argument as a NumPy array; not fine: rounded to 8 bits."""
    shape = spec["shape"]
    n = int(np.prod(shape)) if shape else 1
    kind, z = spec["kind"], words(key, n)
    if kind == "normal":      # four dice: standard deviation 1.15, below 4
        k = bits(z, 0, 16) + bits(z, 16, 16) + bits(z, 32, 16) + bits(z, 48, 16) - 131070
        v = k / 32768 * spec.get("scale", 1) + spec.get("shift", 0)
    elif kind == "uniform":
        v = spec["low"] + (spec["high"] - spec["low"]) * (bits(z, 0, 16) / 65536)
    elif kind == "whole":     # integers in a floating type
        v = spec["low"] + np.floor(bits(z, 0, 24) / 16777216 * (spec["high"] - spec["low"] + 1))
    elif kind == "ints":
        v = (spec["low"] + np.floor(bits(z, 0, 24) / 16777216 * (spec["high"] - spec["low"] + 1))).astype(np.int64)
    elif kind == "bools":
        v = bits(z, 0, 24) / 16777216 < spec["p"]
    elif kind == "distinct":  # no two equal; at most 512
        step = int(n * 0.618) + 1
        while math.gcd(step, n) != 1:
            step += 1
        v = ((np.arange(n) * step + fnv(key) % n) % n - n // 2) / 64
        if fine:
            v = v + bits(z, 0, 10) / 262144
    elif kind == "special":   # NaN and infinities among normal ones
        v = (bits(z, 0, 16) - 32768) / 4096
        v[bits(z, 20, 3) == 0], v[bits(z, 20, 3) == 1], v[bits(z, 20, 3) == 2] = np.nan, np.inf, -np.inf
    elif kind == "values":
        v = np.array(spec["values"], dtype=np.float64 if spec.get("float", True) else np.int64)
    else:
        raise ValueError(kind)
    if v.dtype == np.float64 and not fine:
        v = round8(v)
    return v.reshape(shape)


# ---------------------------------------------------------------- the specs of arguments

def N(*shape, scale=1, shift=0): return {"kind": "normal", "shape": list(shape), "scale": scale, "shift": shift}
def U(*shape, low=0, high=1): return {"kind": "uniform", "shape": list(shape), "low": low, "high": high}
def I(*shape, low=0, high=9): return {"kind": "ints", "shape": list(shape), "low": low, "high": high}
def H(*shape, low=-3, high=3): return {"kind": "whole", "shape": list(shape), "low": low, "high": high}
def B(*shape, p=0.5): return {"kind": "bools", "shape": list(shape), "p": p}
def D(*shape): return {"kind": "distinct", "shape": list(shape)}
def S(*shape): return {"kind": "special", "shape": list(shape), "constant": True}
def V(*v, shape=None, float=True): return {"kind": "values", "shape": [len(v)] if shape is None else shape, "values": list(v), "float": float}
def C(spec): return {**spec, "constant": True}          # gets no gradient
def W(spec): return {**spec, "wide": True}              # f32 where the others are bf16 or f16
def M(spec): return {**spec, "wide": True, "constant": True, "mutated": True}   # changed in place; compared afterwards


CASES, counts = [], {}
stored, total = [], 0


def store(name, t, key):
    """Keep a tensor's values (a sample of many); a record of where and how large."""
    global total
    flat = t.detach().to(torch.float64).reshape(-1).numpy()
    record = {"name": name, "shape": list(t.shape), "n": len(flat), "offset": total}
    if t.dtype.is_floating_point:
        finite = flat[np.isfinite(flat)]
        record["max"] = float(np.abs(finite).max()) if len(finite) else 0.0
        record["rms"] = float(np.sqrt(np.mean(finite ** 2))) if len(finite) else 0.0
    else:
        record["exact"] = True
    kept = flat[sample(len(flat), key)]
    stored.append(kept)
    total += len(kept)
    return record, kept


def sample(n, key):
    if n <= FULL:
        return np.arange(n)
    w = words(key + "/sample", SAMPLE - 2 * ENDS) >> np.uint64(11)
    return np.concatenate([np.arange(ENDS), np.arange(n - ENDS, n), (w % np.uint64(n)).astype(np.int64)])


def build(case, dtype, wide, fine):
    """Arguments, parameters and leaves (name, tensor) of one run; `wide` is the dtype of those marked so."""
    leaves, mutated = [], []

    def make(spec, name):
        t = torch.from_numpy(np.array(values(spec, case["name"] + "/" + name, fine)))
        if t.dtype == torch.float64:
            t = t.to(wide if spec.get("wide") else dtype)
            if not spec.get("constant"):
                t.requires_grad_(True)
                leaves.append((name, t))
        if spec.get("mutated"):
            mutated.append((name, t))
        return t

    def group(specs, prefix=""):
        out = {}
        for name, spec in specs.items():
            if isinstance(spec, list):
                out[name] = [make(s, "%s%s.%d" % (prefix, name, i + 1)) for i, s in enumerate(spec)]
            else:
                out[name] = make(spec, prefix + name)
        return out

    args = group(case["args"])
    params = group(case.get("params", {}), "parameter ")
    return args, params, leaves, mutated


def run(case, fn, dtype, wide, fine):
    """(outputs, gradients, changed tensors), each a list of (name, tensor)."""
    args, params, leaves, mutated = build(case, dtype, wide, fine)
    given = list(args.values())
    outs = fn(params, *given) if params else fn(*given)
    if outs is None:
        outs = []
    outs = list(outs) if isinstance(outs, (tuple, list)) else [outs]
    through, dys = [], []
    for j, y in enumerate(outs):
        if y.requires_grad:
            dy = torch.from_numpy(np.array(values(N(*y.shape), "%s/dy%d" % (case["name"], j + 1), fine))).to(y.dtype)
            through.append(y)
            dys.append(dy)
    if through:
        torch.autograd.backward(through, dys)
    grads = [(name, t.grad if t.grad is not None else torch.zeros_like(t)) for name, t in leaves] if through else []
    return [("out%d" % (j + 1), y) for j, y in enumerate(outs)], grads, mutated


SETS = {"fine": {"f32": torch.float32}, "coarse": {"bf16": torch.bfloat16, "f16": torch.float16}}


def add(name, family, fn, args, attrs=None, params=None, **more):
    """One case: what Unic calls, the same in PyTorch, the arguments in Unic's order, Unic's attributes (dimensions count from 1).
    more: `dtypes` (all four), `call`, `module` and others that spec/support/golden.lua reads."""
    counts[name] = counts.get(name, 0) + 1
    case = {"op": name, "name": "%s.%d" % (name, counts[name]), "family": family, "args": args, "order": list(args), "attrs": attrs or {}, **more}
    if params:
        case["params"] = params
    CASES.append(case)
    for which, dtypes in SETS.items():
        dtypes = {k: v for k, v in dtypes.items() if k in more.get("dtypes", dtypes)}
        if dtypes:
            case[which] = answers(case, fn, which, dtypes)


def answers(case, fn, which, dtypes):
    """Records of one set of inputs: f64 values, and PyTorch's own error in each dtype that its CPU knows."""
    double, fine = torch.float64, which == "fine"
    records, kept = {}, {}
    def key_of(group, what): return "%s/%s/%s/%s" % (case["name"], which, group, what)
    for group, tensors in zip(("outs", "grads", "changed"), run(case, fn, double, double, fine)):
        records[group] = []
        for what, t in tensors:
            record, kept[group, what] = store(what, t, key_of(group, what))
            records[group].append(record)
    largest = records["largest"] = max([r["max"] for r in records["grads"]], default=0.0)
    for dtype, kind in dtypes.items():
        answer = None
        for wide in dict.fromkeys((torch.float32, kind)):
            try:
                answer = run(case, fn, kind, wide, fine)
                break
            except (RuntimeError, NotImplementedError):
                pass   # PyTorch's CPU has no such form: its own error is unknown
        if answer is None:
            continue
        for group in ("outs", "grads", "changed"):
            tensors = answer[("outs", "grads", "changed").index(group)]
            for (what, t), record in zip(tensors, records[group]):
                if record.get("exact"):
                    continue
                flat = t.detach().to(double).reshape(-1).numpy()[sample(record["n"], key_of(group, what))]
                ref = kept[group, what]
                ok = np.isfinite(ref) & np.isfinite(flat)
                d = float(np.abs(flat - ref)[ok].max()) if ok.any() else 0.0
                below = record["max"] + (1e-3 * largest if group == "grads" else record["rms"])
                record[dtype] = d / max(below, 1e-30)
    return records


def write(path, **libraries):
    data = np.concatenate(stored).astype("<f8") if stored else np.zeros(0)
    versions = {"torch": torch.__version__, "numpy": np.__version__, "python": sys.version.split()[0], **libraries}
    header = json.dumps({
        "__metadata__": {"versions": json.dumps(versions), "cases": json.dumps(CASES, separators=(",", ":"))},
        "values": {"dtype": "F64", "shape": [len(data)], "data_offsets": [0, len(data) * 8]},
    }, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + data.tobytes())
    print("%s: %d cases of %d ops, %d values, %.2f MB" % (os.path.basename(path), len(CASES), len(counts), len(data), os.path.getsize(path) / 1e6))
