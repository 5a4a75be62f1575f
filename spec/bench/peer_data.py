"""The peer of `./unic bench data --vs torch` and `tokenizer --vs torch`: torchvision and Pillow in DataLoader workers, Hugging Face's tokenizers.

  peer_data.py data FOLDER STYLE WORKERS    a step is one epoch over the pictures in FOLDER
  peer_data.py tokenizer VOCABULARY TEXTS   a step is all lines of TEXTS, as one batch

STYLE: pil (transforms of Pillow's pictures) or tensor (transforms v2 of tensors of bytes, resized without anti-aliasing as ours are). Lines on stdin as in
peer.py: `steps N`, `quit`.
"""
import json
import os
import sys
import time


def answer(**values):
    print(json.dumps(values), flush=True)


class Pictures:
    """The work of our pipeline: cropped to what is not black, stretched to 0..255, resized to 256, then augmented and normalised."""

    def __init__(self, folder, style):
        import torch
        import torchvision
        torchvision.disable_beta_transforms_warning()
        from torchvision.transforms import v2
        self.paths = sorted(os.path.join(folder, name) for name in os.listdir(folder))
        self.style = style
        turn = [v2.RandomCrop(224), v2.RandomHorizontalFlip(), v2.RandomRotation((0, 90)), v2.RandomAffine(0, (0.1, 0.1), (0.9, 1.1), (-10, 10, 0, 0))]
        if style == "pil":
            from torchvision import transforms as v1
            turn = [v1.RandomCrop(224), v1.RandomHorizontalFlip(), v1.RandomRotation((0, 90)), v1.RandomAffine(0, (0.1, 0.1), (0.9, 1.1), (-10, 10, 0, 0))]
            self.transform = v1.Compose([v1.Resize((256, 256)), *turn, v1.ToTensor(), v1.Normalize([0.5], [0.5])])
        else:
            self.transform = v2.Compose([v2.Resize((256, 256), antialias=False), *turn, v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.5])])

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        import numpy as np
        import torch
        from PIL import Image, ImageOps
        with Image.open(self.paths[i]) as picture:
            picture.load()
            box = picture.getbbox() if picture.mode in ("L", "I") else None
            if picture.mode.startswith("I"):
                # Pillow neither stretches nor resizes 16 bits: NumPy makes bytes of them.
                deep = np.asarray(picture)
                rows, columns = np.flatnonzero(deep.any(1)), np.flatnonzero(deep.any(0))
                deep = deep[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
                low, high = int(deep.min()), int(deep.max())
                picture = Image.fromarray(((deep - low) * np.float32(255 / max(high - low, 1))).astype(np.uint8))
            else:
                picture = ImageOps.autocontrast(picture.convert("L").crop(box))
        if self.style == "pil":
            return self.transform(picture)
        return self.transform(torch.from_numpy(np.array(picture))[None])


def data_steps(folder, style, workers):
    import torch
    torch.set_num_threads(1)
    pictures = Pictures(folder, style)
    loader = torch.utils.data.DataLoader(pictures, batch_size=8, shuffle=True, num_workers=workers, persistent_workers=workers > 0, prefetch_factor=2 if workers else None)

    def step():
        begin, seen = time.perf_counter(), 0
        for batch in loader:
            seen += len(batch)
        assert seen == len(pictures) and batch.shape[1:] == (1, 224, 224)
        return time.perf_counter() - begin
    return step, torch.__version__


def tokenizer_steps(vocabulary, texts):
    import tokenizers
    tok = tokenizers.BertWordPieceTokenizer(vocabulary, lowercase=True)
    with open(texts, encoding="utf-8") as f:
        lines = f.read().splitlines()

    def step():
        begin = time.perf_counter()
        step.ids = tok.encode_batch(lines)
        return time.perf_counter() - begin

    def total():
        return sum(len(line.ids) for line in step.ids)
    return step, tokenizers.__version__, total


def main():
    total = None
    if sys.argv[1] == "data":
        step, version = data_steps(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        step, version, total = tokenizer_steps(sys.argv[2], sys.argv[3])
    answer(version=version, cores=sorted(os.sched_getaffinity(0)))
    for line in sys.stdin:
        command, *rest = line.split()
        if command == "steps":
            answer(seconds=[step() for _ in range(int(rest[0]))])
        elif command == "tokens":
            answer(tokens=total())
        elif command == "quit":
            return


if __name__ == "__main__":
    main()
