#!/usr/bin/env python3
"""Makes spec/golden/parity.safetensors: whole networks of torchvision, timm and transformers at their real sizes, forward and backward; see README.md here.

Parameters, running statistics and inputs are made by formula from their names (common.py), so that only probes are stored: of every tensor that is
compared, 64 elements by hash, max and rms of the f64 values, and the largest error of PyTorch's f32 forms (`forms`) on just these.
"""
import contextlib
import gc
import os
import pickle
import re
import subprocess
import tempfile

import timm
import torchvision
import transformers
from timm.models.vision_transformer import VisionTransformer

from common import *   # noqa: F403
import common

KEPT = 64
# Softmax does not see the bias of keys: its gradient is 0 but for rounding.
NOISE = "attention.self.key.bias"
LIBRARIES = {"torchvision": torchvision.__version__, "timm": timm.__version__, "transformers": transformers.__version__}


def power(x): return 2.0 ** round(math.log2(x))


# ---------------------------------------------------------------- parameters by formula


def spec_of(name, shape):
    """Standard deviations are 1.15 x scale. Matrices and kernels keep the variance of what they are given (scale near 1/sqrt(fan in)); norms are near the
    identity, the last one of a ResNet's block near a quarter of it, so that 16 blocks do not magnify rounding into noise; running variances are 0.5 to 1.5.
    BERT's queries and keys are twice as large and its attention's output half, or all tokens were alike after twelve layers and attention got no gradient."""
    last = name.rsplit(".", 1)[-1]
    if last == "running_mean":
        return M(N(*shape, scale=2.0 ** -4))
    if last == "running_var":
        return M(N(*shape, scale=2.0 ** -3, shift=1))
    if last == "num_batches_tracked":
        return M(V(0, shape=[], float=False))
    if name in ("cls_token", "pos_embed"):
        return N(*shape, scale=2.0 ** -3)
    if "embeddings.weight" in name:
        return N(*shape, scale=2.0 ** -5)
    if last == "bias":
        return N(*shape, scale=2.0 ** -5)
    if len(shape) == 1:
        return N(*shape, scale=2.0 ** -6, shift=0.25) if re.search(r"layer\d\.\d+\.bn3", name) else N(*shape, scale=2.0 ** -4, shift=1)
    factor = 2 if re.search(r"attention\.self\.(query|key)", name) else 0.5 if "attention.output.dense" in name else 1
    return N(*shape, scale=factor * power(1 / math.sqrt(np.prod(shape[1:]))))


def tensor_of(spec, key):
    return torch.from_numpy(np.array(values(spec, key)))


# ---------------------------------------------------------------- networks: how to make one, its inputs, its loss


def bert_config():
    return transformers.BertConfig(vocab_size=30522, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


BATCH, LENGTH, LENGTHS = 3, 24, [24, 17, 9]


def text_inputs(vocab):
    return {"ids": I(BATCH, LENGTH, low=1, high=vocab - 1), "labels": I(BATCH, LENGTH, low=0, high=vocab - 1), "asked": B(BATCH, LENGTH, p=0.3)}


NETWORKS = {
    "resnet50": {"make": lambda: torchvision.models.resnet50(), "inputs": {"x": N(4, 3, 96, 96), "target": I(4, low=0, high=999)}},
    "vit_b16": {"make": lambda: timm.create_model("vit_base_patch16_224"), "inputs": {"x": N(2, 3, 224, 224), "target": I(2, low=0, high=999)}},
    "vit_l32": {"make": lambda: VisionTransformer(patch_size=32, embed_dim=1024, depth=24, num_heads=16),
                "inputs": {"x": N(2, 3, 224, 224), "target": I(2, low=0, high=999)}},
    "bert": {"make": lambda: transformers.BertModel(bert_config()),
             "inputs": {**text_inputs(30522), "types": I(BATCH, LENGTH, low=0, high=1), "of_hidden": N(BATCH, LENGTH, 768), "of_pooled": N(BATCH, 768)}},
    "bert_mlm": {"make": lambda: transformers.BertForMaskedLM(bert_config()), "inputs": text_inputs(30522)},
}


def batch_of(name):
    batch = {what: tensor_of(spec, "%s/%s" % (name, what)) for what, spec in NETWORKS[name]["inputs"].items()}
    if "ids" in batch:   # row by row shorter; what is beyond is padding, and nothing is asked of it
        mask = torch.arange(LENGTH)[None, :] < torch.tensor(LENGTHS)[:, None]
        batch["ids"][~mask] = 0
        batch["labels"][~(batch.pop("asked") & mask)] = -100
        batch["mask"] = mask
    return {what: t for what, t in batch.items()}


def forward(name, model, batch):
    """(what is compared, {kind: [(name, tensor)]}; the loss)"""
    states, hooks = [], []

    def keep(label):
        def hook(_, inputs, output): states.append((label, output))
        return hook
    if name == "resnet50":
        hooks.append(model.maxpool.register_forward_pre_hook(lambda _, inputs: states.append(("stem", inputs[0]))))
        hooks += [getattr(model, "layer%d" % s).register_forward_hook(keep("layer%d" % s)) for s in range(1, 5)]
    elif name.startswith("vit"):
        hooks += [block.register_forward_hook(keep("block%d" % (i + 1))) for i, block in enumerate(model.blocks)]
        hooks.append(model.norm.register_forward_hook(keep("tokens")))
    if name in ("bert", "bert_mlm"):
        types = {"token_type_ids": batch["types"]} if "types" in batch else {}
        out = model(input_ids=batch["ids"], attention_mask=batch["mask"].long(), output_hidden_states=True, **types)
        states = [("hidden%d" % i, h) for i, h in enumerate(out.hidden_states)]
        if name == "bert":
            y = out.pooler_output
            hidden = out.last_hidden_state
            loss = F.mse_loss(hidden, batch["of_hidden"].to(hidden.dtype)) + F.mse_loss(y, batch["of_pooled"].to(y.dtype))
        else:
            y = out.logits
            loss = F.cross_entropy(y.reshape(-1, y.shape[-1]), batch["labels"].reshape(-1))
    else:
        y = model(batch["x"])
        loss = F.cross_entropy(y, batch["target"])
    for hook in hooks:
        hook.remove()
    return {"outputs": [("output", y)], "states": states}, loss


# ---------------------------------------------------------------- probes


def places(key, n):
    return ((words(key, KEPT) >> np.uint64(11)) % np.uint64(n)).astype(np.int64)


def probe(t, key):
    """64 elements, max and rms."""
    flat = t.detach().contiguous().reshape(-1)
    wide = flat.double()
    rms = float(wide.square().mean().sqrt())
    most = float(flat.abs().max())
    return np.concatenate([[most, rms], wide.numpy()[places(key, flat.numel())]]), flat.numel()


def probes(name, model, x_format, dtype, modes, autocast=False):
    """{(mode, kind, what): (values, n)} of both modes."""
    found = {}
    batch = batch_of(name)
    for what, t in batch.items():
        if t.dtype == torch.float64:
            batch[what] = t.to(dtype)
    if "x" in batch:
        batch["x"] = batch["x"].contiguous(memory_format=x_format)

    def note(mode, kind, what, t):
        if t.dtype != torch.bfloat16 and t.dtype.is_floating_point:
            assert t.dtype == dtype or autocast, (what, t.dtype)
        found[mode, kind, what] = probe(t, "%s/%s/%s/%s" % (name, mode, kind, what))
    for mode in modes:
        model.train(mode == "train")
        if mode == "eval":
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
                seen, loss = forward(name, model, batch)
        else:
            model.zero_grad(set_to_none=True)
            seen, loss = forward(name, model, batch)
            loss.backward()
        for kind, list_ in seen.items():
            for what, t in list_:
                note(mode, kind, what, t)
        note(mode, "loss", "loss", loss)
        if mode == "train":
            for what, t in model.named_buffers():
                if t.dtype.is_floating_point:
                    note(mode, "statistics", what, t)
            for what, p in model.named_parameters():
                note(mode, "noise" if what.endswith(NOISE) else "gradients", what, p.grad)
    return found


def parent(what):
    """The module of a parameter. Query, key and value count as one, as they are in timm's."""
    return re.sub(r"(attention\.self)\.\w+$", r"\1", what.rsplit(".", 1)[0]) if "." in what else ""


def below(reference):
    """What an error is divided by: max + rms; for gradients max + 1e-3 x the largest one in the module (the parameter's owner)."""
    largest = {}
    for (mode, kind, what), (v, _) in reference.items():
        if kind in ("gradients", "noise"):
            largest[parent(what)] = max(largest.get(parent(what), 0.0), v[0])
    return {key: max(v[0] + (1e-3 * largest[parent(key[2])] if key[1] in ("gradients", "noise") else v[1]), 1e-30) for key, (v, _) in reference.items()}


def errors(found, reference, divisors):
    return {key: float(np.abs(found[key][0] - v).max()) / divisors[key] for key, (v, _) in reference.items() if key in found}


# ---------------------------------------------------------------- PyTorch's forms in f32

@contextlib.contextmanager
def plain_attention():
    from torch.nn.attention import SDPBackend, sdpa_kernel
    with sdpa_kernel(SDPBackend.MATH):
        yield


FORMS = {
    "one thread": {},
    "two threads": {"threads": 2},
    "channels last": {"format": torch.channels_last},
    "without oneDNN": {"context": lambda: torch.backends.mkldnn.flags(enabled=False)},
    "attention written out": {"context": plain_attention, "not": ["resnet50"]},
    # Parameters one rounding beside: the same errors drawn anew.
    "beside 1": {"beside": 1}, "beside 2": {"beside": 2}, "beside 3": {"beside": 3},
}


def build(name):
    """The network with the formula's values, their specs, and a function that sets them again."""
    model = NETWORKS[name]["make"]()
    # What is no parameter of ours: positions 0, 1, 2 ... and a decoder that is the word embeddings again.
    saved = {k: t.clone() for k, t in model.state_dict().items() if not k.endswith("position_ids") and not k.startswith("cls.predictions.decoder")}
    specs = {k: spec_of(k, list(t.shape)) for k, t in saved.items()}
    for k, t in saved.items():
        t.copy_(tensor_of(specs[k], name + "/" + k))

    def reset():
        answer = model.load_state_dict(saved, strict=False)
        assert not answer.unexpected_keys and all("position_ids" in k or "decoder" in k for k in answer.missing_keys), answer
        model.zero_grad(set_to_none=True)
    return model, specs, reset


def measure(name):
    """f64 probes, their divisors, the errors of every f32 form and of bf16, the specs."""
    model, specs, reset = build(name)
    model.double()
    reset()
    reference = probes(name, model, torch.contiguous_format, torch.float64, ["eval", "train"])
    divisors = below(reference)
    model.zero_grad(set_to_none=True)
    gc.collect()
    model.float()
    by_form = {}
    for label, form in FORMS.items():
        layout = form.get("format", torch.contiguous_format)
        if name in form.get("not", []) or layout == torch.channels_last and "x" not in NETWORKS[name]["inputs"]:
            continue
        torch.set_num_threads(form.get("threads", 1))
        model.to(memory_format=layout)
        reset()
        if "beside" in form:
            with torch.no_grad():
                for k, p in model.named_parameters():
                    p.copy_(p.double() * (1 + torch.from_numpy(bits(words("%s beside %d" % (k, form["beside"]), p.numel()), 0, 2).reshape(p.shape) - 1.5) * 2.0 ** -24))
        with form.get("context", contextlib.nullcontext)():
            by_form[label] = errors(probes(name, model, layout, torch.float32, ["eval", "train"]), reference, divisors)
        torch.set_num_threads(1)
        model.to(memory_format=torch.contiguous_format)
    reset()
    bf16 = errors(probes(name, model, torch.contiguous_format, torch.float32, ["eval"], autocast=True), reference, divisors)
    return reference, divisors, by_form, bf16, specs


# The same forms with kernels for another set of instructions, which a process chooses when it begins.
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


def measure_again(name):
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run([sys.executable, "-W", "ignore", os.path.abspath(__file__), "--forms", name, file.name], check=True, env={**os.environ, **AVX2})
        return {label + ", AVX2": errs for label, errs in pickle.load(file).items()}


def main(only):
    for name, network in NETWORKS.items():
        if only and name not in only:
            continue
        again = measure_again(name)
        reference, divisors, by_form, bf16, specs = measure(name)
        by_form.update(again)
        own = {key: max(errs[key] for errs in by_form.values()) for key in reference}
        kinds = {}
        print("%s: loss eval %.4f train %.4f" % (name, reference["eval", "loss", "loss"][0][0], reference["train", "loss", "loss"][0][0]))
        for mode, kind in dict.fromkeys((m, k) for m, k, _ in reference):
            lists = {label: [e for (m, k, _), e in errs.items() if (m, k) == (mode, kind)] for label, errs in by_form.items()}
            kinds["%s_%s" % (mode, kind)] = {"largest": max(map(max, lists.values())), "median": float(max(map(np.median, lists.values())))}
            row = ["%s %.1e (%.1e)" % (label, max(list_), np.median(list_)) for label, list_ in lists.items()]
            size = [v[0] for (m, k, _), (v, _) in reference.items() if (m, k) == (mode, kind)]
            print("  %-5s %-10s %3d tensors, largest %.3g .. %.3g; largest error (median): %s" % (mode, kind, len(size), min(size), max(size), ", ".join(row)), flush=True)
        case = {"op": name, "name": name, "kinds": kinds, "inputs": network["inputs"], "lengths": LENGTHS if "ids" in network["inputs"] else [], "params": specs,
                "forms": list(by_form), "records": []}
        for (mode, kind, what), (v, n) in reference.items():
            key = (mode, kind, what)
            record = {"mode": mode, "kind": kind, "name": what, "n": n, "offset": common.total, "below": divisors[key], "f32": own[key]}
            if key in bf16:
                record["bf16"] = bf16[key]
            case["records"].append(record)
            stored.append(v)
            common.total += len(v)
        CASES.append(case)
        counts[name] = len(case["records"])
        gc.collect()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--forms"]:
        with open(sys.argv[3], "wb") as file:
            pickle.dump(measure(sys.argv[2])[2], file)
    else:
        main(sys.argv[1:])
        write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "parity.safetensors"), **LIBRARIES)
