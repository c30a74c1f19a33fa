"""Records what CLIP's image processor makes of two pictures (transformers, Pillow, numpy, safetensors).

    python tests/golden/image_preprocess.py

Writes image-preprocess/golden.safetensors: `input.wide`, `input.tall` (height, width, channels; 0 to 255) and
`output.wide`, `output.tall` (3, 24, 24): bicubic resize of the shorter side, central crop, scale, normalise.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from transformers import CLIPImageProcessor

HERE = Path(__file__).parent
SIDE = 24


def picture(height, width, seed):
    """Smooth waves and a few hard edges, so that both halves of the filter show."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / (3 + c) + seed) * np.cos(y / (5 - c)) for c in range(3)]
    values = np.stack(waves, axis=-1) * 100 + 128
    values[height // 4 : height // 2, width // 3 : width // 2] = [250, 5, 120]
    return values.clip(0, 255).astype(np.uint8)


processor = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
tensors = {}
for name, shape in [("wide", (41, 90)), ("tall", (77, 31))]:
    pixels = picture(*shape, seed=len(name))
    output = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
    tensors[f"input.{name}"] = pixels.astype(np.float32)
    tensors[f"output.{name}"] = np.ascontiguousarray(output, dtype=np.float32)
save_file(tensors, HERE / "image-preprocess" / "golden.safetensors", {"kind": "image-preprocess"})
