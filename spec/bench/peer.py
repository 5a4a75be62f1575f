"""The peer of `./unic bench --vs torch`: the same models and training steps in plain PyTorch, one process per form, driven over stdin.

  peer.py state WORKLOAD FILE         weights and inputs, for both sides (torch.save)
  peer.py work WORKLOAD DTYPE FORM FILE     then lines on stdin, answers on stdout (see spec/bench/worker.lua, which speaks the same)
  peer.py infer WORKLOAD DTYPE FORM FILE    the same for the forward pass alone

FORM: eager (channels-last images, fused AdamW where this PyTorch has it) or compile (the same under torch.compile). Parameter names are
torchvision's, timm's and Hugging Face's, so that the file loads on both sides by name. Works with PyTorch 1.13 and later.
"""
import json
import os
import sys
import time


def resident(field="VmRSS"):
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024


START = resident()
import torch                                    # noqa: E402
import torch.nn as nn                           # noqa: E402
import torch.nn.functional as F                 # noqa: E402

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
IMPORTED = resident()
SDPA = getattr(F, "scaled_dot_product_attention", None)


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        h = self.relu(self.bn1(self.conv1(x)))
        h = self.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h))
        h += identity
        return self.relu(h)


class ResNet50(nn.Module):
    def __init__(self, classes=None):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for s, (width, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
            blocks = []
            for b in range(depth):
                blocks.append(Bottleneck(inputs, width, 2 if b == 0 and s > 0 else 1))
                inputs = 4 * width
            setattr(self, "layer%d" % (s + 1), nn.Sequential(*blocks))
        if classes:
            self.fc = nn.Linear(inputs, classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(m, Bottleneck):
                # A branch small beside its shortcut, as trained nets have it. With 1 rounding errors grow a millionfold up to the loss: two
                # correct programs would differ by percents in f32, and say nothing about one another in bf16.
                nn.init.constant_(m.bn3.weight, 0.2)

    def forward(self, x):
        h = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for s in range(1, 5):
            h = getattr(self, "layer%d" % s)(h)
        h = F.adaptive_avg_pool2d(h, 1).flatten(1)
        return self.fc(h) if hasattr(self, "fc") else h


def attend(q, k, v, dropout, training):
    """[B,H,S,D]; PyTorch's fused attention where it has one."""
    if SDPA:
        return SDPA(q, k, v, dropout_p=dropout if training else 0.0)
    p = ((q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5).softmax(-1)
    return F.dropout(p, dropout, training) @ v


class VitAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        b, s, w = x.shape
        q, k, v = self.qkv(x).view(b, s, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(attend(q, k, v, 0.0, self.training).transpose(1, 2).reshape(b, s, w))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class VitBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = VitAttention(width, heads), Mlp(width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, width, patch):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class Vit(nn.Module):
    def __init__(self, patch, width, depth, heads, classes, size=224):
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.02)
        self.patch_embed = PatchEmbed(width, patch)
        self.blocks = nn.Sequential(*[VitBlock(width, heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, classes)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, 0, 0.02)

    def forward(self, x):
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class Named(nn.Module):
    """Submodules under the names that Hugging Face's BERT has."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class BertLayer(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        norm = lambda: nn.LayerNorm(width, eps=1e-12)   # noqa: E731
        self.attention = nn.ModuleDict({
            "self": Named(query=nn.Linear(width, width), key=nn.Linear(width, width), value=nn.Linear(width, width)),
            "output": Named(dense=nn.Linear(width, width), LayerNorm=norm())})
        self.intermediate = Named(dense=nn.Linear(width, 4 * width))
        self.output = Named(dense=nn.Linear(4 * width, width), LayerNorm=norm())

    def forward(self, x):
        b, s, w = x.shape
        own, out = self.attention["self"], self.attention["output"]
        q, k, v = (f(x).view(b, s, self.heads, w // self.heads).transpose(1, 2) for f in (own.query, own.key, own.value))
        y = attend(q, k, v, self.dropout, self.training).transpose(1, 2).reshape(b, s, w)
        x = out.LayerNorm(F.dropout(out.dense(y), self.dropout, self.training) + x)
        y = self.output.dense(F.gelu(self.intermediate.dense(x)))
        return self.output.LayerNorm(F.dropout(y, self.dropout, self.training) + x)


class Bert(nn.Module):
    def __init__(self, vocab=30522, width=768, depth=12, heads=12, dropout=0.1, pooler=False):
        super().__init__()
        self.embeddings = Named(word_embeddings=nn.Embedding(vocab, width), position_embeddings=nn.Embedding(512, width),
                                token_type_embeddings=nn.Embedding(2, width), LayerNorm=nn.LayerNorm(width, eps=1e-12))
        self.encoder = Named(layer=nn.ModuleList(BertLayer(width, heads, dropout) for _ in range(depth)))
        if pooler:
            self.pooler = Named(dense=nn.Linear(width, width))
        self.dropout = dropout
        for m in self.modules():
            if isinstance(m, (nn.Linear, nn.Embedding)):
                nn.init.normal_(m.weight, 0, 0.02)

    def forward(self, ids):
        e = self.embeddings
        h = e.word_embeddings(ids) + (e.position_embeddings.weight[:ids.shape[1]] + e.token_type_embeddings.weight[:1])
        h = F.dropout(e.LayerNorm(h), self.dropout, self.training)
        for layer in self.encoder.layer:
            h = layer(h)
        return torch.tanh(self.pooler.dense(h[:, 0])) if hasattr(self, "pooler") else h


class BertClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.bert, self.classifier = Bert(pooler=True), nn.Linear(768, 2)
        nn.init.normal_(self.classifier.weight, 0, 0.02)

    def forward(self, ids):
        return self.classifier(self.bert(ids))


class Projector(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.fc1, self.bn1 = nn.Linear(inputs, 2048), nn.BatchNorm1d(2048)
        self.fc2, self.bn2 = nn.Linear(2048, outputs), nn.BatchNorm1d(outputs, affine=False)

    def forward(self, x):
        return self.bn2(self.fc2(F.relu(self.bn1(self.fc1(x.float())))))


def info_nce(a, b, tau, symmetric):
    s = F.normalize(a.float(), dim=1) @ F.normalize(b.float(), dim=1).t() / tau
    y = torch.arange(len(a))
    rows = F.cross_entropy(s, y)
    return (rows + F.cross_entropy(s.t(), y)) / 2 if symmetric else rows


def cross_correlation(a, b, dim, weight=5.1e-3, eps=1e-5):
    def standard(x):
        x = x.float() - x.float().mean(dim, keepdim=True)
        return x / ((x.square().mean(dim, keepdim=True) + eps).sqrt() * x.shape[dim] ** 0.5)
    a, b = standard(a), standard(b)
    c = a.t() @ b if dim == 0 else a @ b.t()
    diagonal = c.diagonal()
    return ((1 - diagonal).square().sum() + weight * (c.square().sum() - diagonal.square().sum())) / len(c)


class Medunic(nn.Module):
    def __init__(self):
        super().__init__()
        self.image_encoder, self.text_encoder = ResNet50(), Bert()
        self.proj_v, self.proj_l, self.proj_d = Projector(2048, 512), Projector(768, 512), Projector(768, 512)
        self.text_encoder.embeddings.requires_grad_(False)
        for layer in self.text_encoder.encoder.layer[:9]:
            layer.requires_grad_(False)

    def forward(self, view1, view2, ids):
        v1, v2 = self.proj_v(self.image_encoder(view1)), self.proj_v(self.image_encoder(view2))
        h1, h2 = self.text_encoder(ids)[:, 0], self.text_encoder(ids)[:, 0]
        d1, d2 = self.proj_d(h1), self.proj_d(h2)
        with torch.autocast("cpu", torch.bfloat16, enabled=False):   # losses in f32
            return (info_nce(v1, self.proj_l(h1), 0.07, True) + info_nce(v1, v2, 0.07, False)
                    + cross_correlation(d1, d2, 0) + cross_correlation(d1, d2, 1))


def pixels(n, size=224):
    return torch.randn(n, 3, size, size)


def tokens(n, length):
    return torch.randint(1, 30522, (n, length))


def classified(model, x, classes):
    return model, {"x": x, "y": torch.randint(0, classes, (len(x),))}


def workload(name):
    """`resnet50`, or with other sizes `resnet50:batch=4,size=128`, `bert_base:batch=8,length=64`."""
    kind, _, sizes = name.partition(":")
    o = {k: int(v) for k, v in (pair.split("=") for pair in sizes.split(",") if pair)}
    if kind == "resnet50":
        return classified(ResNet50(1000), pixels(o.get("batch", 16), o.get("size", 224)), 1000)
    if kind == "vit_b16":
        size = o.get("size", 224)
        return classified(Vit(16, 768, 12, 12, 1000, size), pixels(o.get("batch", 8), size), 1000)
    if kind == "vit_l32":
        return classified(Vit(32, 1024, 24, 16, 1000), pixels(o.get("batch", 8)), 1000)
    if kind == "bert_base":
        return classified(BertClassifier(), tokens(o.get("batch", 8), o.get("length", 128)), 2)
    if kind == "medunic":
        n, size = o.get("batch", 8), o.get("size", 224)
        return Medunic(), {"view1": pixels(n, size), "view2": pixels(n, size), "ids": tokens(n, o.get("length", 128))}
    sys.exit("peer.py: no workload '%s'" % name)


class Side:
    def __init__(self, name, dtype, form, path, train):
        self.name, self.low, self.train = name, dtype == "bf16", train
        model, _ = workload(name)
        file = torch.load(path)
        inputs = {k[6:]: v for k, v in file.items() if k.startswith("input.")}
        model.load_state_dict({k: v for k, v in file.items() if not k.startswith("input.")}, strict=True)
        del file
        self.model = model.to(memory_format=torch.channels_last).train(train)
        self.inputs = {k: v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v for k, v in inputs.items()}
        self.params = [p for p in model.parameters() if p.requires_grad]
        self.run = torch.compile(self.model) if form == "compile" else self.model
        options = {}
        if tuple(int(n) for n in torch.__version__.split(".")[:2]) >= (2, 4):
            options["fused"] = True
        self.adamw = torch.optim.AdamW(self.params, lr=1e-4, weight_decay=0.05, **options)

    def loss(self):
        i = self.inputs
        with torch.autocast("cpu", torch.bfloat16, enabled=self.low):
            if self.name.startswith("medunic"):
                return self.run(i["view1"], i["view2"], i["ids"])
            out = self.run(i["x"])
        return F.cross_entropy(out.float(), i["y"])

    def step(self):
        begin = time.perf_counter()
        self.adamw.zero_grad(set_to_none=True)      # PyTorch 1.13 would fill them with zeros
        loss = self.loss()
        loss.backward()
        if self.name.startswith("medunic"):
            nn.utils.clip_grad_norm_(self.params, 1.0)
        self.adamw.step()
        self.value = loss.item()
        return time.perf_counter() - begin

    def infer(self):
        begin = time.perf_counter()
        with torch.no_grad():
            self.value = self.loss().item()
        return time.perf_counter() - begin

    def norm(self):
        """Loss and norm of all gradients without dropout; nothing is updated."""
        rates = []
        for m in self.model.modules():
            if isinstance(getattr(m, "dropout", None), float):
                rates.append((m, m.dropout))
                m.dropout = 0.0
        keep = {k: v.clone() for k, v in self.model.named_buffers()}
        run, self.run = self.run, self.model
        loss = self.loss()
        loss.backward()
        self.run = run
        missing = sum(p.grad is None for p in self.params)
        norm = torch.sqrt(sum(p.grad.double().square().sum() for p in self.params if p.grad is not None))
        self.adamw.zero_grad(set_to_none=True)
        for m, rate in rates:
            m.dropout = rate
        for k, v in self.model.named_buffers():
            v.copy_(keep[k])
        return {"loss": loss.item(), "norm": norm.item(), "missing": missing}

    def about(self):
        moments = [v for s in self.adamw.state_dict()["state"].values() for v in s.values() if torch.is_tensor(v) and v.dim() > 0]
        types = {str(t.dtype).replace("torch.float", "f") for t in self.params + moments}
        rates = {m.dropout for m in self.model.modules() if isinstance(getattr(m, "dropout", None), float) and m.dropout > 0}
        return {"parameters": sum(p.numel() for p in self.model.parameters()), "state": sum(v.numel() for v in moments), "types": sorted(types),
                "dropout": sorted(rates), "training": self.model.training, "gradients_missing": sum(p.grad is None for p in self.params)}


def capability():
    if hasattr(torch.backends, "cpu"):
        return torch.backends.cpu.get_cpu_capability()
    return torch.__config__.show().split("CPU capability usage: ")[1].split()[0]


def blas():
    """The file of the libblas that this PyTorch takes its products from; empty where they are built in."""
    with open("/proc/self/maps") as f:
        return next((line.split()[-1] for line in f if "/libblas.so" in line), "")


def answer(**what):
    print(json.dumps(what), flush=True)


def main():
    mode, name = sys.argv[1:3]
    torch.manual_seed(0)
    if mode == "state":
        model, inputs = workload(name)
        torch.save({**model.state_dict(), **{"input." + k: v for k, v in inputs.items()}}, sys.argv[3])
        answer(saved=True)
        return
    side = Side(name, sys.argv[3], sys.argv[4], sys.argv[5], mode == "work")
    if mode == "infer":
        side.step = side.infer
    answer(version=torch.__version__, isa=capability(), threads=torch.get_num_threads(), imported=IMPORTED, blas=blas(),
           cores=sorted(os.sched_getaffinity(0)), openblas=sorted(k for k in os.environ if k.startswith("OPENBLAS")))
    for line in sys.stdin:
        command, *rest = line.split()
        if command == "norm":
            answer(**side.norm())
        elif command == "steps":
            answer(seconds=[side.step() for _ in range(int(rest[0]))], loss=side.value)
        elif command == "about":
            answer(**side.about())
        elif command == "mark":
            with open("/proc/self/clear_refs", "w") as f:
                f.write("5")
            answer(resident=resident())
        elif command == "peak":
            answer(peak=resident("VmHWM"), resident=resident())
        elif command == "quit":
            return


main()
