"""Opens what Unic saved in the library whose names it carries, with every name required to match, and compares the output: for ./unic check parity.

    parity_back.py NETWORK FOLDER      FOLDER: weights.safetensors, or model.safetensors and config.json; output.safetensors
prints: names equal|..., difference max|a - b| / (max|b| + rms(b))
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
import parity   # noqa: E402
import torch   # noqa: E402
import transformers   # noqa: E402
from safetensors.torch import load_file   # noqa: E402

name, folder = sys.argv[1:]
if name.startswith("bert"):
    # Hugging Face picks the class by config.json.
    auto = transformers.AutoModelForMaskedLM if name == "bert_mlm" else transformers.AutoModel
    model, info = auto.from_pretrained(folder, output_loading_info=True, attn_implementation="sdpa")
    wrong = {what: names for what, names in info.items() if names}
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            assert module.p == 0.0, "config.json says dropout 0"
else:
    model = parity.NETWORKS[name]["make"]()
    answer = model.load_state_dict(load_file(folder + "/weights.safetensors"), strict=True)
    wrong = {what: names for what, names in (("missing", answer.missing_keys), ("unexpected", answer.unexpected_keys)) if names}
print("names", wrong or "equal")
batch = {what: t.float() if t.dtype == torch.float64 else t for what, t in parity.batch_of(name).items()}
with torch.no_grad():
    y = parity.forward(name, model.eval(), batch)[0]["outputs"][0][1].double()
ours = load_file(folder + "/output.safetensors")["output"].double()
print("difference %.3g" % float((ours - y).abs().max() / (y.abs().max() + y.square().mean().sqrt())))
