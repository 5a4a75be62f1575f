"""Files that PyTorch and NumPy write themselves, for spec/check/checkpoints.lua: torch_files.py FOLDER

Beside them FOLDER/expected.tsv: file, tensor, dtype, shape, the elements' bytes in hexadecimal; "-" for a tensor that is listed and not read."""
import argparse
import collections
import os
import sys
import warnings
import zipfile

import numpy
import torch

warnings.filterwarnings("ignore")
folder = sys.argv[1]
torch.manual_seed(1)
rows = []
NAMES = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
         torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL", torch.uint16: "U16", torch.uint32: "U32"}


def note(file, name, dtype, shape, data):
    rows.append((file, name, dtype, "x".join(str(n) for n in shape), data))


def walk(file, value, path):
    if isinstance(value, torch.Tensor):
        name = ".".join(path) or "(root)"
        dense = value.detach().contiguous()
        flat = dense.reshape(-1).view(torch.uint8) if dense.numel() and dense.dim() else dense.reshape(1).view(torch.uint8) if dense.numel() else dense
        note(file, name, NAMES[value.dtype], value.shape, bytes(flat.numpy().tobytes()).hex() if dense.numel() else "")
    elif isinstance(value, dict):
        for key, item in value.items():
            walk(file, item, path + [str(key)])
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            walk(file, item, path + [str(i)])


def save(name, value, extra=()):
    for suffix, options in (("pt", {}), ("pth", {"_use_new_zipfile_serialization": False}), ("p4.pt", {"pickle_protocol": 4}), ("p5.pt", {"pickle_protocol": 5}),
                            ("p3.pth", {"_use_new_zipfile_serialization": False, "pickle_protocol": 3}),
                            ("p4.pth", {"_use_new_zipfile_serialization": False, "pickle_protocol": 4})):
        file = name + "." + suffix
        torch.save(value, os.path.join(folder, file), **options)
        walk(file, value, [])
        for row in extra:
            note(file, *row)


base = torch.randn(6, 5, 4)
save("views", {"whole": base, "row": base[2], "columns": base[:, 1], "turned": base.permute(2, 0, 1), "steps": base[::2, 1::3, ::2], "one": base[3, 2, 1],
               "expanded": torch.randn(3, 1).expand(3, 4), "empty": base[:0], "none": torch.zeros(2, 0, 3), "diagonal": torch.randn(4, 4).diagonal(),
               "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)})
save("dtypes", {str(d)[6:]: (torch.randn(3, 4) * 50).to(d) for d in NAMES if d not in (torch.bool, torch.uint16, torch.uint32)} | {
    "bool": torch.tensor([True, False, True]), "scalar": torch.tensor(7), "special": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])})
save("unsigned", {"u16": torch.tensor([1, 65535], dtype=torch.uint16), "u32": torch.tensor([1, 4294967295], dtype=torch.uint32)})
shared = torch.randn(5, 3)
nested = collections.OrderedDict(a={"b": [shared, (shared.t(), {"c": shared[1]})]}, args=argparse.Namespace(lr=0.1, name="x"), epoch=3, best=0.5, big=2**80, none=None,
                                 text="ñ", flags=[True, False], np64=numpy.float64(1.5), np32=numpy.float32(2.5), npi=numpy.int64(-7), array=numpy.arange(3), size=torch.Size([1, 2]),
                                 dtype=torch.float32, device=torch.device("cpu"), kinds={1, 2}, counter=collections.Counter("aab"),
                                 factory=collections.defaultdict(list, x=[torch.ones(2)]), raw=b"\x00\x01", complex=1 + 2j)
nested["parameter"] = torch.nn.Parameter(torch.randn(2, 2))
nested["buffer"] = torch.nn.Buffer(torch.randn(2, 2))
nested[7] = torch.tensor([7])
save("nested", nested)
save("root", torch.randn(3, 2))
save("list", [torch.ones(2), torch.zeros(1, 3)])
model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4, 2))
save("state_dict", model.state_dict())
optimizer = torch.optim.AdamW(model.parameters())
model(torch.randn(2, 3, 3, 3)).sum().backward()
optimizer.step()
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
save("training", {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(), "rng": torch.get_rng_state()})
for name, value, dtype, shape in (
        ("complex", torch.ones(2, dtype=torch.complex64), "C64", (2,)), ("complex128", torch.ones(2, dtype=torch.complex128), "C128", (2,)),
        ("sparse", torch.eye(3).to_sparse(), "SPARSE", (3, 3)), ("csr", torch.eye(3).to_sparse_csr(), "SPARSE", (3, 3)),
        ("quantised", torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8), "QINT8", (2, 2)),
        ("channels", torch.quantize_per_channel(torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.quint8), "QUINT8", (2, 2)),
        ("float8", torch.ones(3).to(torch.float8_e4m3fn), "F8_E4M3", (3,)), ("u64", torch.tensor([1], dtype=torch.uint64), "U64", (1,)),
        ("meta", torch.ones(2, 2, device="meta"), "F32", (2, 2)), ("conj", torch.ones(2, dtype=torch.complex64).conj(), "C64", (2,)),
        ("neg", torch.ones(2, dtype=torch.complex64).conj().imag, "F32", (2,)),
        ("nested", torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "NESTED", ())):
    for suffix, options in (("pt", {}), ("pth", {"_use_new_zipfile_serialization": False})):
        file = "kind_" + name + "." + suffix
        try:
            torch.save({"x": value, "real": torch.ones(2)}, os.path.join(folder, file), **options)
        except Exception:  # some kinds cannot be saved in the old form
            continue
        note(file, "x", dtype, shape, "-")
        note(file, "real", "F32", (2,), torch.ones(2).numpy().tobytes().hex())
# The same archive with sizes of 64 bits, as one of more than 4 GB has them, and compressed.
with zipfile.ZipFile(os.path.join(folder, "views.pt")) as source:
    for name, method in (("zip64.pt", zipfile.ZIP_STORED), ("packed.pt", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(os.path.join(folder, name), "w", method) as out:
            for member in source.namelist():
                with out.open(member, "w", force_zip64=True) as to:
                    to.write(source.read(member))
        for row in [row for row in rows if row[0] == "views.pt"]:
            rows.append((name,) + row[1:])
script = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)))
script.save(os.path.join(folder, "script.pt"))
walk("script.pt", script.state_dict(), [])

KINDS = {"f4": "F32", "f8": "F64", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8", "u1": "U8", "u2": "U16", "u4": "U32", "b1": "BOOL"}


def array(file, name, a):
    kind = a.dtype.str[1:]
    little = numpy.ascontiguousarray(a).astype(a.dtype.newbyteorder("<"))
    note(file, name, KINDS.get(kind, {"u8": "U64", "c8": "C64", "c16": "C128"}.get(kind, kind)), a.shape, little.tobytes().hex() if kind in KINDS else "-")


arrays = {}
for kind in list(KINDS) + ["u8", "c8", "c16", "S5", "U3", "f16", "M8[s]"]:
    a = numpy.arange(24).astype(kind) if kind != "b1" else numpy.arange(24) % 2 == 1
    arrays[kind.strip("[s]") + ("_d" if "[" in kind else "")] = a.reshape(2, 3, 4)
for name, a in list(arrays.items()):
    if a.dtype.kind in "fiu" and a.dtype.itemsize > 1:
        arrays[name + "_big"] = a.astype(a.dtype.newbyteorder(">"))
    arrays[name + "_fortran"] = numpy.asfortranarray(a)
arrays["scalar"] = numpy.float32(3)
arrays["empty"] = numpy.zeros((3, 0, 2), "f4")
arrays["long"] = numpy.arange(50000, dtype="f4").reshape(125, 400).T
for name, a in arrays.items():
    a = numpy.asanyarray(a)
    numpy.save(os.path.join(folder, name + ".npy"), a)
    array(name + ".npy", "(root)", a)
    array("all.npz", name, a)
    array("packed.npz", name, a)
numpy.savez(os.path.join(folder, "all.npz"), **arrays)
numpy.savez_compressed(os.path.join(folder, "packed.npz"), **arrays)
for version in ((1, 0), (2, 0), (3, 0)):
    file = "version%d.npy" % version[0]
    with open(os.path.join(folder, file), "wb") as out:
        numpy.lib.format.write_array(out, numpy.arange(3.0), version)
    array(file, "(root)", numpy.arange(3.0))

with open(os.path.join(folder, "expected.tsv"), "w") as out:
    for row in rows:
        out.write("\t".join(row) + "\n")
print(torch.__version__, numpy.__version__)
