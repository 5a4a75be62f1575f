"""The peer of `./unic bench kernels --vs torch`: the kernels of spec/bench/kernels.lua, by the same names, in PyTorch. Driven over stdin:

  use NAME|PASS|DTYPE|CALLS    from here on; answers whether there is such a pass
  steps N                      N steps of CALLS calls, seconds of a call in each
  quit
"""
import json
import os
import sys
import time

import torch
import torch.nn.functional as F

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def answer(**values):
    print(json.dumps(values), flush=True)


class Kernel:
    """forward() makes the output; the gradients of `inputs[which]` are its backward passes."""

    def __init__(self, name, dtype):
        torch.manual_seed(0)
        kind, *sizes = name.split()
        self.type = DTYPES[dtype]
        self.inputs, self.step = {}, None
        self.forward = getattr(self, kind)(*(int(s) for s in sizes))

    def draw(self, *shape, last=False):
        t = torch.randn(*shape).to(self.type)
        return (t.contiguous(memory_format=torch.channels_last) if last else t).requires_grad_()

    def conv(self, n, i, o, k, stride, side):
        x, w = self.draw(n, i, side, side, last=True), self.draw(o, i, k, k, last=True)
        self.inputs = {"data": [x], "weights": [w]}
        return lambda: F.conv2d(x, w, stride=stride, padding=k // 2)

    def linear(self, rows, i, o):
        x, w = self.draw(rows, i), self.draw(o, i)
        self.inputs = {"data": [x], "weights": [w]}
        return lambda: F.linear(x, w)

    def batch_norm(self, n, c, side, added):
        x, w, b = self.draw(n, c, side, side, last=True), torch.ones(c, requires_grad=True), torch.zeros(c, requires_grad=True)
        mean, var = torch.zeros(c), torch.ones(c)
        if not added:
            self.inputs = {"backward": [x, w, b]}
            return lambda: F.relu_(F.batch_norm(x, mean, var, w, b, True))
        r = self.draw(n, c, side, side, last=True)
        self.inputs = {"backward": [x, w, b, r]}
        return lambda: F.relu_(F.batch_norm(x, mean, var, w, b, True).add_(r))

    def batch_norm_relu(self, n, c, side):
        return self.batch_norm(n, c, side, False)

    def batch_norm_add_relu(self, n, c, side):
        return self.batch_norm(n, c, side, True)

    def attention(self, n, heads, s, d):
        q, k, v = (self.draw(n, s, heads, d) for _ in range(3))
        self.inputs = {"backward": [q, k, v]}
        if hasattr(F, "scaled_dot_product_attention"):
            return lambda: F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)
        return lambda: ((q.transpose(1, 2) @ k.permute(0, 2, 3, 1) * d ** -0.5).softmax(-1) @ v.transpose(1, 2)).transpose(1, 2)

    def layer_norm(self, rows, c):
        x, w, b = self.draw(rows, c), torch.ones(c, dtype=self.type, requires_grad=True), torch.zeros(c, dtype=self.type, requires_grad=True)
        self.inputs = {"backward": [x, w, b]}
        return lambda: F.layer_norm(x, (c,), w, b)

    def add_layer_norm(self, rows, c):
        x, r = self.draw(rows, c), self.draw(rows, c)
        w, b = torch.ones(c, dtype=self.type, requires_grad=True), torch.zeros(c, dtype=self.type, requires_grad=True)
        self.inputs = {"backward": [x, r, w, b]}
        return lambda: F.layer_norm(F.dropout(x, 0.1) + r, (c,), w, b)

    def elementwise(self, x, fn):
        self.inputs = {"backward": [x]}
        return fn

    def gelu(self, rows, c):
        x = self.draw(rows, c)
        return self.elementwise(x, lambda: F.gelu(x))

    def softmax(self, rows, c):
        x = self.draw(rows, c)
        return self.elementwise(x, lambda: F.softmax(x, -1))

    def cross_entropy(self, rows, c):
        x, target = self.draw(rows, c), torch.randint(0, c, (rows,))
        return self.elementwise(x, lambda: F.cross_entropy(x, target))

    def dropout(self, rows, c):
        x = self.draw(rows, c)
        return self.elementwise(x, lambda: F.dropout(x, 0.1))

    def embedding(self, n, words, c):
        ids, table = torch.randint(0, words, (n,)), self.draw(words, c)
        return self.elementwise(table, lambda: F.embedding(ids, table))

    def adamw(self, n):
        p = torch.randn(n, requires_grad=True)
        p.grad = torch.randn(n)
        try:
            self.step = torch.optim.AdamW([p], lr=1e-4, fused=True).step
        except (RuntimeError, TypeError):      # a PyTorch without a fused one for the CPU
            self.step = torch.optim.AdamW([p], lr=1e-4).step
        return None

    def interpolate(self, n, c, side):
        x = self.draw(n, c, side, side, last=True)
        return self.elementwise(x, lambda: F.interpolate(x, size=(2 * side, 2 * side), mode="bilinear", align_corners=False))

    def group_norm(self, n, c, side):
        x = self.draw(n, c, side, side, last=True)
        w, b = torch.ones(c, dtype=self.type, requires_grad=True), torch.zeros(c, dtype=self.type, requires_grad=True)
        self.inputs = {"backward": [x, w, b]}
        return lambda: F.group_norm(x, 32, w, b)

    def run(self, which):
        """What a call of a pass is; None where there is none."""
        if which == "step":
            return self.step
        if which == "forward":
            def forward():
                with torch.no_grad():
                    self.forward()
            return forward
        if which not in self.inputs:
            return None
        y = self.forward()
        dy = torch.randn(y.shape).to(y.dtype)
        if dy.dim() == 4 and y.is_contiguous(memory_format=torch.channels_last):
            dy = dy.contiguous(memory_format=torch.channels_last)
        return lambda: torch.autograd.grad(y, self.inputs[which], dy, retain_graph=True)


def main():
    answer(version=torch.__version__, threads=torch.get_num_threads(), cores=sorted(os.sched_getaffinity(0)))
    kernel, known, run, calls = None, None, None, 1
    for line in sys.stdin:
        command, rest = (line.strip().split(" ", 1) + [""])[:2]
        if command == "use":
            name, which, dtype, calls = rest.split("|")
            if known != (name, dtype):
                kernel, known = Kernel(name, dtype), (name, dtype)
            run, calls = kernel.run(which), int(calls)
            answer(there=run is not None)
        elif command == "steps":
            seconds = []
            for _ in range(int(rest)):
                begin = time.perf_counter()
                for _ in range(calls):
                    run()
                seconds.append((time.perf_counter() - begin) / calls)
            answer(seconds=seconds)
        elif command == "quit":
            return


main()
