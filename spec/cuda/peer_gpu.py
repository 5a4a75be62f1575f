"""The same training steps in PyTorch on a GPU: peer_gpu.py WORKLOAD DTYPE eager|compile STEPS. Prints one line of JSON.

The models are those of spec/bench/peer.py; channels-last pictures, fused AdamW, bf16 by autocast; times of whole steps that end in a synchronisation.
"""
import json
import os
import sys
import time

import torch
import torch.nn.functional as F

os.environ.setdefault("OMP_NUM_THREADS", "4")
name, dtype, form, steps = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
source = open(os.path.join(os.path.dirname(__file__), "..", "bench", "peer.py")).read()
peer = {"__name__": "peer"}
exec(compile(source.replace("\nmain()\n", "\n").replace('torch.autocast("cpu"', 'torch.autocast("cuda"').replace("torch.arange(len(a))", "torch.arange(len(a), device=a.device)"),
             "peer.py", "exec"), peer)
torch.manual_seed(1)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
torch.backends.cudnn.benchmark = True
model, inputs = peer["workload"](name)
model = model.cuda().to(memory_format=torch.channels_last).train()
inputs = {k: (v.cuda().contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v.cuda()) for k, v in inputs.items()}
params = [p for p in model.parameters() if p.requires_grad]
adamw = torch.optim.AdamW(params, lr=1e-4, fused=True)
run = torch.compile(model) if form == "compile" else model


def step():
    adamw.zero_grad(set_to_none=True)
    with torch.autocast("cuda", torch.bfloat16, enabled=dtype == "bf16"):
        if name.startswith("medunic"):
            loss = run(inputs["view1"], inputs["view2"], inputs["ids"])
        else:
            out = run(inputs["x"])
    if not name.startswith("medunic"):
        loss = F.cross_entropy(out.float(), inputs["y"])
    loss.backward()
    if name.startswith("medunic"):
        torch.nn.utils.clip_grad_norm_(params, 1.0)
    adamw.step()
    return loss


for _ in range(5):
    step()
torch.cuda.synchronize()
torch.cuda.reset_peak_memory_stats()
times = []
for _ in range(steps):
    begin = time.perf_counter()
    loss = step()
    torch.cuda.synchronize()
    times.append(time.perf_counter() - begin)
times.sort()
print(json.dumps({"workload": name, "dtype": dtype, "form": form, "torch": torch.__version__, "median": times[len(times) // 2], "min": times[0],
                  "loss": loss.item(), "peak_bytes": torch.cuda.max_memory_allocated()}))
