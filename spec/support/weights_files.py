"""Files of weights as other programs write them, for ./unic check weights; and what Unic wrote, opened by those programs.

    weights_files.py make FOLDER    writes FOLDER/CASE/... and FOLDER/CASE.expected.safetensors: the values under the names of the library's module
    weights_files.py back FOLDER    opens FOLDER/back/..., prints `CASE equal`, or `CASE` and what is not
Values are random: no weights are downloaded.
"""
import argparse
import json
import os
import sys

import numpy
import safetensors
import timm
import torch
import torchvision
import transformers
from safetensors.torch import load_file, save_file

action, folder = sys.argv[1:]
torch.manual_seed(7)
transformers.logging.set_verbosity_error()


def vit(**more):
    return timm.create_model("vit_tiny_patch16_224", depth=2, **more)


def bert_config(**more):
    return transformers.BertConfig(vocab_size=90, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=40, **more)


def drawn(model):
    """Every float of its own: norms begin at 1 and 0, and would hide a mistake."""
    with torch.no_grad():
        for t in list(model.parameters()) + list(model.buffers()):
            if t.is_floating_point():
                t.normal_()
    return model


def place(case):
    os.makedirs(f"{folder}/{case}", exist_ok=True)
    return f"{folder}/{case}/"


def expect(case, state):
    save_file({name: t.detach().clone().contiguous() for name, t in state.items()}, f"{folder}/{case}.expected.safetensors")


def make():
    net = drawn(torchvision.models.resnet18(num_classes=5))
    state = net.state_dict()
    for case, write in {
        "resnet_safetensors": lambda p: save_file(state, p + "model.safetensors"),
        "resnet_pt": lambda p: torch.save(state, p + "model.pt"),
        "resnet_pt_legacy": lambda p: torch.save(state, p + "model.pt", _use_new_zipfile_serialization=False),
        "resnet_npz": lambda p: numpy.savez(p + "model.npz", **{name: t.numpy() for name, t in state.items()}),
        "resnet_wrapped": lambda p: torch.save({"epoch": 3, "state_dict": {"module." + name: t for name, t in state.items()}, "args": argparse.Namespace(lr=0.1)},
                                               p + "checkpoint.pth.tar"),
    }.items():
        write(place(case))
        expect(case, state)
    half = {name: t.bfloat16() if t.is_floating_point() else t for name, t in state.items()}
    torch.save(half, place("resnet_bf16") + "model.pt")
    expect("resnet_bf16", {name: t.float() if t.is_floating_point() else t for name, t in half.items()})

    state = drawn(vit(num_classes=5)).state_dict()
    save_file(state, place("vit_safetensors") + "model.safetensors")
    expect("vit_safetensors", state)
    torch.save({"model": state}, place("vit_deit") + "model.pth")
    expect("vit_deit", state)
    state = {name: t for name, t in state.items() if not name.startswith("head")}
    torch.save({"model": state, "epoch": 3}, place("vit_mae") + "model.pth")
    expect("vit_mae", state)

    net = drawn(transformers.BertForMaskedLM(bert_config()))
    state = net.state_dict()
    net.save_pretrained(folder + "/bert_mlm")
    expect("bert_mlm", state)
    net.save_pretrained(folder + "/bert_sharded", max_shard_size="30KB")
    expect("bert_sharded", state)
    net = drawn(transformers.BertModel(bert_config()))
    net.save_pretrained(folder + "/bert_bare")
    expect("bert_bare", net.state_dict())
    net = drawn(transformers.BertForPreTraining(bert_config()))
    path = place("bert_bin")
    net.config.save_pretrained(path)
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t for name, t in net.state_dict().items()}
    torch.save(old, path + "pytorch_model.bin")
    expect("bert_bin", net.state_dict())
    path = place("bert_bin_sharded")
    net.config.save_pretrained(path)
    names = list(net.state_dict())
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for shard, part in shards.items():
        torch.save({name: net.state_dict()[name] for name in part}, path + shard)
    with open(path + "pytorch_model.bin.index.json", "w", encoding="utf-8") as index:
        json.dump({"metadata": {}, "weight_map": {name: shard for shard, part in shards.items() for name in part}}, index)
    expect("bert_bin_sharded", net.state_dict())
    print("torch", torch.__version__, "torchvision", torchvision.__version__, "timm", timm.__version__, "transformers", transformers.__version__, "numpy",
          numpy.__version__, "safetensors", safetensors.__version__)


def verdict(case, wrong):
    print(case, "; ".join(wrong) if wrong else "equal", flush=True)


def compare(state, path, tied=()):
    """What differs between a module's state and a file; names in `tied` stand for others."""
    ours = load_file(path)
    wrong = [name for name, t in state.items() if name not in tied and (name not in ours or not torch.equal(t, ours[name].to(t.dtype)))]
    return ["differ: " + ", ".join(wrong[:5])] if wrong else []


def back():
    base = folder + "/back/"
    for case, net in {"resnet": torchvision.models.resnet18(num_classes=5), "vit": vit(num_classes=5)}.items():
        path = base + case + ".safetensors"
        try:
            net.load_state_dict(load_file(path), strict=True)
            verdict(case, compare(net.state_dict(), path))
        except RuntimeError as error:
            verdict(case, [str(error)])
    TIED = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    for case, auto in {"bert_mlm": transformers.AutoModelForMaskedLM, "bert_bare": transformers.AutoModel, "bert_bf16": transformers.AutoModelForMaskedLM}.items():
        net, info = auto.from_pretrained(base + case, output_loading_info=True, dtype=torch.float32)
        wrong = [f"{what}: {sorted(names)}" for what, names in info.items() if names]
        wrong += compare(net.state_dict(), base + case + "/model.safetensors", TIED)
        if case != "bert_bare" and net.cls.predictions.decoder.weight.data_ptr() != net.bert.embeddings.word_embeddings.weight.data_ptr():
            wrong.append("the head is not tied")
        verdict(case, wrong)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base + "bert_mlm")
    wrong = []
    with open(base + "texts.txt", encoding="utf-8") as texts, open(base + "ids.txt", encoding="utf-8") as ids:
        for text, line in zip(texts, ids):
            theirs = tokenizer(text.rstrip("\n"))["input_ids"]
            if theirs != [int(x) for x in line.split()]:
                wrong.append(f"{text!r}: {theirs}, here {line.strip()}")
    if tokenizer.model_max_length != 40 or tokenizer.mask_token != "[MASK]":
        wrong.append(f"length {tokenizer.model_max_length}, mask {tokenizer.mask_token}")
    verdict("tokenizer", wrong)


make() if action == "make" else back()
