#!/usr/bin/env python3
"""Makes spec/golden/trajectory.safetensors: 50 steps of small networks with every optimiser and schedule, in plain PyTorch; see README.md here.

Stored per run: the losses in f64, and of every parameter and buffer at the end its norm and some elements; beside them what f32 rounding does to
PyTorch: the gap between its runs at one and at two threads, its distance from f64, and the largest distance of further runs that start one rounding
beside the parameters (a ReLU's input that changes its sign, or a long lever, shows in some of them only). Learning rates are rounded to f32, as Unic
keeps them.
"""
import os

from common import *   # noqa: F403
import common
from optimisers import bert_adam, lars

STEPS, BATCHES, KEPT, OTHERS = 50, 10, 12, 8


def power(x): return 2.0 ** round(math.log2(x))


def weight(*s): return N(*s, scale=power(1 / math.sqrt(np.prod(s[1:]))))
def bias(n): return N(n, scale=2.0 ** -5)
def gain(n): return N(n, scale=2.0 ** -4, shift=1)


# ---------------------------------------------------------------- networks: parameters, and the loss of a batch


def resnet(channels, width, depths):
    specs = {}

    def conv(name, i, o, k): specs[name + ".weight"] = weight(o, i, k, k)

    def norm(name, n):
        specs.update({name + ".weight": gain(n), name + ".bias": bias(n), name + ".running_mean": M(N(n, scale=0)), name + ".running_var": M(N(n, scale=0, shift=1)),
                      name + ".num_batches_tracked": M(V(0, shape=[], float=False))})
    conv("conv1", channels, width, 5)
    norm("bn1", width)
    before = width
    for s, depth in enumerate(depths):
        w = width * 2 ** s
        for b in range(depth):
            at = "layer%d.%d." % (s + 1, b)
            conv(at + "conv1", before, w, 3)
            norm(at + "bn1", w)
            conv(at + "conv2", w, w, 3)
            norm(at + "bn2", w)
            if before != w:
                conv(at + "downsample.0", before, w, 1)
                norm(at + "downsample.1", w)
            before = w

    def forward(p, batch):
        def bn(name, x):
            p[name + ".num_batches_tracked"] += 1
            return F.batch_norm(x, p[name + ".running_mean"], p[name + ".running_var"], p[name + ".weight"], p[name + ".bias"], True)
        h = torch.relu(bn("bn1", F.conv2d(batch["x"], p["conv1.weight"], None, 2, 2)))
        for s, depth in enumerate(depths):
            for b in range(depth):
                at = "layer%d.%d." % (s + 1, b)
                stride = 2 if s > 0 and b == 0 else 1
                y = torch.relu(bn(at + "bn1", F.conv2d(h, p[at + "conv1.weight"], None, stride, 1)))
                y = bn(at + "bn2", F.conv2d(y, p[at + "conv2.weight"], None, 1, 1))
                if at + "downsample.0.weight" in p:
                    h = bn(at + "downsample.1", F.conv2d(h, p[at + "downsample.0.weight"], None, stride))
                h = torch.relu(y + h)
        return F.cross_entropy(h.mean((2, 3)), batch["target"])
    return specs, forward, before


def linear(specs, name, i, o):
    specs[name + ".weight"], specs[name + ".bias"] = weight(o, i), bias(o)


def attend(q, k, v, heads, mask=None):
    b, s, w = q.shape
    q, k, v = (t.reshape(b, s, heads, w // heads).transpose(1, 2) for t in (q, k, v))
    a = q @ k.transpose(2, 3) / math.sqrt(w // heads)
    if mask is not None:
        a = a.masked_fill(~mask[:, None, None, :], -math.inf)
    return (torch.softmax(a, -1) @ v).transpose(1, 2).reshape(b, s, w)


def vit(size, patch, channels, width, depth, heads):
    specs = {"cls_token": N(1, 1, width, scale=2.0 ** -5), "pos_embed": N(1, (size // patch) ** 2 + 1, width, scale=2.0 ** -5),
             "patch_embed.proj.weight": weight(width, channels, patch, patch), "patch_embed.proj.bias": bias(width)}
    for i in range(depth):
        at = "blocks.%d." % i
        for n in ("norm1", "norm2"):
            specs[at + n + ".weight"], specs[at + n + ".bias"] = gain(width), bias(width)
        linear(specs, at + "attn.qkv", width, 3 * width)
        linear(specs, at + "attn.proj", width, width)
        linear(specs, at + "mlp.fc1", width, 4 * width)
        linear(specs, at + "mlp.fc2", 4 * width, width)
    specs["norm.weight"], specs["norm.bias"] = gain(width), bias(width)

    def forward(p, batch):
        def lin(name, x): return F.linear(x, p[name + ".weight"], p[name + ".bias"])
        def norm(name, x): return F.layer_norm(x, [width], p[name + ".weight"], p[name + ".bias"], 1e-6)
        x = F.conv2d(batch["x"], p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], patch).flatten(2).transpose(1, 2)
        x = torch.cat([p["cls_token"].expand(len(x), 1, width), x], 1) + p["pos_embed"]
        for i in range(depth):
            at = "blocks.%d." % i
            x = x + lin(at + "attn.proj", attend(*lin(at + "attn.qkv", norm(at + "norm1", x)).split(width, -1), heads))
            x = x + lin(at + "mlp.fc2", F.gelu(lin(at + "mlp.fc1", norm(at + "norm2", x))))
        return F.cross_entropy(norm("norm", x)[:, 0], batch["target"])
    return specs, forward, width


def bert(vocab, width, depth, heads, hidden, positions):
    e = "embeddings."
    specs = {e + "word_embeddings.weight": N(vocab, width, scale=0.25), e + "position_embeddings.weight": N(positions, width, scale=0.25),
             e + "token_type_embeddings.weight": N(2, width, scale=0.25), e + "LayerNorm.weight": gain(width), e + "LayerNorm.bias": bias(width)}
    for i in range(depth):
        at = "encoder.layer.%d." % i
        for n in ("query", "key", "value"):
            linear(specs, at + "attention.self." + n, width, width)
        linear(specs, at + "attention.output.dense", width, width)
        linear(specs, at + "intermediate.dense", width, hidden)
        linear(specs, at + "output.dense", hidden, width)
        for n in ("attention.output.LayerNorm", "output.LayerNorm"):
            specs[at + n + ".weight"], specs[at + n + ".bias"] = gain(width), bias(width)

    def forward(p, batch):
        def lin(name, x): return F.linear(x, p[name + ".weight"], p[name + ".bias"])
        def norm(name, x): return F.layer_norm(x, [width], p[name + ".weight"], p[name + ".bias"], 1e-12)
        ids, mask = batch["x"], batch["mask"]
        x = F.embedding(ids, p[e + "word_embeddings.weight"], padding_idx=0)
        x = norm(e + "LayerNorm", x + p[e + "position_embeddings.weight"][:ids.shape[1]] + p[e + "token_type_embeddings.weight"][0])
        for i in range(depth):
            at = "encoder.layer.%d." % i
            a = attend(*(lin(at + "attention.self." + n, x) for n in ("query", "key", "value")), heads, mask)
            x = norm(at + "attention.output.LayerNorm", lin(at + "attention.output.dense", a) + x)
            x = norm(at + "output.LayerNorm", lin(at + "output.dense", F.gelu(lin(at + "intermediate.dense", x))) + x)
        m = mask.to(x.dtype).unsqueeze(2)
        return F.cross_entropy((x * m).sum(1) / m.sum(1), batch["target"])
    return specs, forward, width


VOCAB, LENGTH = 60, 12
NETWORKS = {
    "resnet": (resnet(1, 8, [1, 1, 1]), {"block": "BasicBlock", "depths": [1, 1, 1], "options": {"channels": 1, "width": 8, "stem": 5}}, {"x": N(5, 1, 14, 14)}),
    "vit": (vit(16, 4, 1, 24, 2, 3), {"options": {"size": 16, "patch": 4, "channels": 1, "width": 24, "depth": 2, "heads": 3}}, {"x": N(5, 1, 16, 16)}),
    "bert": (bert(VOCAB, 32, 2, 2, 48, 16), {"options": {"vocab": VOCAB, "width": 32, "depth": 2, "heads": 2, "hidden": 48, "positions": 16, "dropout": 0,
             "attention_dropout": 0}}, {"x": I(6, LENGTH, low=0, high=VOCAB - 1), "mask": B(6, LENGTH, p=0.8)}),
}

# ---------------------------------------------------------------- schedules, optimisers


def warmup_cosine(base, at, steps, warmup, floor):
    n = round(warmup * steps)
    if at < n:
        return base * (at + 1) / n
    return base * (floor + (1 - floor) * (1 + math.cos(math.pi * (at - n) / (steps - n))) / 2)


def cosine_restarts(base, at, period, factor, floor):
    """PyTorch's own, which counts from 0 too."""
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=base)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, period, factor, floor)
    for i in range(at):
        optimiser.step()
        schedule.step()
    return schedule.get_last_lr()[0]


def bert_linear(base, at, steps, warmup):
    x = (at + 1) / steps
    return base * (x / warmup if x < warmup else max(0.0, (1 - x) / (1 - warmup)))


def constant(base, at): return base


class Written:
    """An optimiser of optimisers.py behind PyTorch's face."""
    def __init__(self, step, groups, states):
        self.step_, self.param_groups = step, groups
        self.states = [[[torch.zeros_like(p) for p in g["params"]] for _ in range(states)] for g in groups]

    @torch.no_grad()
    def step(self):
        for g, states in zip(self.param_groups, self.states):
            self.step_([p for p in g["params"]], [p.grad for p in g["params"]], *states, g["lr"], **{k: v for k, v in g.items() if k not in ("params", "lr")})


OPTIMISERS = {
    "AdamW": lambda groups: torch.optim.AdamW(groups),
    "SGD": lambda groups: torch.optim.SGD(groups, lr=1),
    "LARS": lambda groups: Written(lars, groups, 1),
    "BertAdam": lambda groups: Written(bert_adam, groups, 2),
}
WARMUP, RESTARTS, LINEAR = {"steps": STEPS, "warmup": 0.1, "floor": 0.05}, {"period": 10, "factor": 2, "floor": 1e-6}, {"steps": STEPS, "warmup": 0.1}
RUNS = [  # optimiser, its options, schedule, its options
    ("AdamW", {"lr": 1e-3, "weight_decay": 0.05, "betas": [0.9, 0.98]}, "warmup_cosine", WARMUP),
    ("AdamW", {"lr": 5e-4, "weight_decay": 0.01}, "cosine_restarts", RESTARTS),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}, "cosine_restarts", RESTARTS),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}, "warmup_cosine", WARMUP),
    ("SGD", {"lr": 0.002}, "constant", {}),
    ("LARS", {"lr": 0.5, "weight_decay": 1e-3, "eta": 0.005}, "warmup_cosine", WARMUP),
    ("LARS", {"lr": 0.05, "weight_decay": 1e-2, "eta": 0.01, "skip_decay": True, "skip_adapt": True}, "cosine_restarts", RESTARTS),
    ("BertAdam", {"lr": 1e-3, "weight_decay": 0.01}, "bert_linear", LINEAR),
    ("BertAdam", {"lr": 5e-4, "weight_decay": 0.05, "max_norm": 0.25}, "warmup_cosine", WARMUP),
]


# Biases of keys shift all scores of a row alike, so that softmax gives them no gradient but noise, which Adam and LARS bring to full length.
SILENT = ("attn.qkv.bias", "attention.self.key.bias")


def train(network, optimiser, options, schedule, settings, dtype, threads, beside=0):
    (specs, forward, classes), _, inputs = NETWORKS[network]
    torch.set_num_threads(threads)
    p = {}
    for name, spec in specs.items():
        t = torch.from_numpy(np.array(values(spec, network + "/" + name)))
        if beside and t.dtype == torch.float64:
            t = t * (1 + torch.from_numpy(bits(words("%s beside %d" % (name, beside), t.numel()), 0, 2).reshape(t.shape) - 1.5) * 2.0 ** -24)
        p[name] = t.to(dtype) if t.dtype == torch.float64 else t
        if not spec.get("constant"):
            p[name].requires_grad_(True)
    free = [t for t in p.values() if t.requires_grad]
    groups = [{"params": [t for t in free if t.dim() >= 2], **options}, {"params": [t for t in free if t.dim() < 2], **options, "weight_decay": 0.0}]
    o = OPTIMISERS[optimiser](groups)
    losses = []
    for at in range(STEPS):
        batch = {}
        for name, spec in {**inputs, "target": I(inputs["x"]["shape"][0], low=0, high=classes - 1)}.items():
            t = torch.from_numpy(np.array(values(spec, "%s/%s%d" % (network, name, at % BATCHES))))
            batch[name] = t.to(dtype) if t.dtype == torch.float64 else t
        if "mask" in batch:
            batch["mask"][:, 0] = True
        rate = float(np.float32(globals()[schedule](options["lr"], at, **settings)))
        for g in o.param_groups:
            g["lr"] = rate
        for t in free:
            t.grad = None
        loss = forward(p, batch)
        loss.backward()
        o.step()
        losses.append(loss.item())
    torch.set_num_threads(1)
    return np.array(losses), {name: t.detach().double().reshape(-1).numpy() for name, t in p.items()}


def places(network, name, n):
    """KEPT elements by hash; few enough are kept whole."""
    if n <= KEPT:
        return np.arange(n)
    return ((words(network + "/" + name + "/sample", KEPT) >> np.uint64(11)) % np.uint64(n)).astype(np.int64)


def distance(network, a, b):
    """Of the losses, and the largest of any parameter's kept elements or its norm: |a - b| / (max|b| + rms(b)) of all of it."""
    (la, pa), (lb, pb) = a, b
    worst = 0.0
    for name, ref in pb.items():
        if name.endswith(SILENT):
            continue
        below = max(np.abs(ref).max() + math.sqrt(np.mean(ref ** 2)), 1e-30)
        at = places(network, name, len(ref))
        worst = max(worst, np.abs(pa[name] - ref)[at].max() / below, abs(np.linalg.norm(pa[name]) - np.linalg.norm(ref)) / max(np.linalg.norm(ref), 1e-30))
    return float(np.abs(la - lb).max() / (np.abs(lb).max() + math.sqrt(np.mean(lb ** 2)))), float(worst)


def keep(x):
    stored.append(np.asarray(x, dtype=np.float64))
    offset, common.total = common.total, common.total + len(x)
    return offset


if __name__ == "__main__":
    for network, ((specs, forward, classes), build, inputs) in NETWORKS.items():
        for n, (optimiser, options, schedule, settings) in enumerate(RUNS):
            ref = train(network, optimiser, options, schedule, settings, torch.float64, 1)
            one, two = (train(network, optimiser, options, schedule, settings, torch.float32, k) for k in (1, 2))
            own, gap = distance(network, one, ref), distance(network, two, one)
            others = [distance(network, train(network, optimiser, options, schedule, settings, torch.float32, 1, k + 1), ref) for k in range(OTHERS)]
            others = [max(d[i] for d in others) for i in (0, 1)]
            case = {"name": "%s_%s_%d" % (network, optimiser.lower(), n + 1), "network": network, **build, "inputs": inputs, "classes": classes, "params": specs,
                    "batches": BATCHES, "optimiser": optimiser, "settings": options, "schedule": schedule, "rates": settings,
                    "own": {"loss": own[0], "params": own[1]}, "gap": {"loss": gap[0], "params": gap[1]},
                    "others": {"loss": others[0], "params": others[1]}, "silent": list(SILENT), "steps": STEPS, "losses": keep(ref[0]), "final": {}}
            for name, v in ref[1].items():
                case["final"][name] = {"offset": keep(np.concatenate([[np.abs(v).max(), np.linalg.norm(v)], v[places(network, name, len(v))]])), "n": len(v)}
            if n > 0:
                del case["params"]   # as in the network's first run
            CASES.append(case)
            print("%-22s loss %.4f -> %.4f  f32 own %.1e %.1e  gap %.1e %.1e  others %.1e %.1e" % (case["name"], ref[0][0], ref[0][-1], *own, *gap, *others), flush=True)
    counts.update(NETWORKS)
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "trajectory.safetensors"))
