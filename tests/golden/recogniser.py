"""A recogniser of glyphs or styles, written a second time in torch: small random weights, and what each layer makes of three pictures.

    python tests/golden/recogniser.py

Writes `recogniser/model` (config.json, model.safetensors) and `recogniser/golden.safetensors`.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).parent / "recogniser"
CONFIG = {
    "model_type": "ragar-recogniser",
    "image_size": 21,
    "shape": {"stem_width": 6, "stem_kernel": 5, "stem_stride": 2, "widths": [6, 10], "norm_num_groups": 2},
    "aspect": "glyph",
    "names": ["1f600", "1f436", "1f354", "2764", "1f308", "26bd", "1f680"],
}


class Block(nn.Module):
    def __init__(self, inputs, outputs, groups):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False)
        self.norm1 = nn.GroupNorm(groups, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(groups, outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, 2, bias=False)

    def forward(self, x):
        hidden = self.norm2(self.conv2(F.silu(self.norm1(self.conv1(x)))))
        return F.silu(hidden + self.shortcut(x))


class Recogniser(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        widths = [shape["stem_width"], *shape["widths"]]
        groups, kernel = shape["norm_num_groups"], shape["stem_kernel"]
        self.stem = nn.Conv2d(3, widths[0], kernel, shape["stem_stride"], kernel // 2, bias=False)
        self.stem_norm = nn.GroupNorm(groups, widths[0])
        self.blocks = nn.ModuleList(Block(a, b, groups) for a, b in zip(widths, widths[1:]))
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x):
        maps = [F.silu(self.stem_norm(self.stem(x)))]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps, self.head(maps[-1].mean((2, 3)))


def main():
    torch.manual_seed(11)
    network = Recogniser(CONFIG["shape"], len(CONFIG["names"])).eval()
    with torch.no_grad():
        # Norms that do nothing would hide a missing one.
        for name, value in network.named_parameters():
            if "norm" in name:
                value.copy_(torch.randn_like(value) * 0.3 + (1.0 if name.endswith("weight") else 0.0))
        pixels = torch.rand(3, 3, CONFIG["image_size"], CONFIG["image_size"]) * 2 - 1
        maps, scores = network(pixels)
        golden = {"input.pixels": pixels, "output.scores": scores}
        golden |= {f"output.map{number}": value for number, value in enumerate(maps)}
    (HERE / "model").mkdir(parents=True, exist_ok=True)
    (HERE / "model" / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    contiguous = lambda tensors: {name: value.contiguous() for name, value in tensors.items()}
    save_file(contiguous(network.state_dict()), HERE / "model" / "model.safetensors")
    save_file(contiguous(golden), HERE / "golden.safetensors")


if __name__ == "__main__":
    main()
