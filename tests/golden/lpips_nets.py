"""Golden samples of LPIPS, written by the `lpips` package over torchvision's trunks at their full widths.

    pip install --no-deps lpips==0.1.4 torchvision==0.24.0
    python tests/golden/lpips_nets.py        (torch 2.9)

The trunks are too large to commit (VGG16's features: 59 MB), so their values come from a formula of name and place
that `tests/it/lpips.rs` computes, too, to the last bit: `values` below. What is committed are the heads — one case as
safetensors, one as a pickle of the old kind, as the published heads are, one as a zipped pickle — the images and the
distances.
"""

import lpips
import numpy as np
import torch
from generate import HERE, generator, normal, save
from safetensors.torch import save_file


def values(name, count):
    """Uniform in [-1, 1): 24 bits of splitmix64, seeded by the name's FNV-1a."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) % 2**64
    with np.errstate(over="ignore"):
        state = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return ((state >> np.uint64(40)).astype(np.int64) * 2 - 2**24).astype(np.float32) / np.float32(2**24)


def parameter(name, shape):
    """The values times a power of two near √(6 / inputs): exact, and no layer's states vanish or explode."""
    drawn = torch.from_numpy(values(name, torch.Size(shape).numel())).reshape(shape)
    if len(shape) == 1:
        return drawn / 8
    inputs = torch.Size(shape[1:]).numel()
    return drawn * 2.0 ** (1 - (inputs.bit_length() - 1) // 2)


def reference(net):
    model = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False).eval()
    with torch.no_grad():
        for name, tensor in model.net.named_parameters():
            _slice, place, *rest = name.split(".")
            tensor.copy_(parameter(".".join(["features", place, *rest]), tensor.shape))
        for place, head in enumerate(model.lins):
            weight = head.model[1].weight
            # Not below 0, as the published ones, and some of them 0.
            weight.copy_((parameter(f"{net}.lin{place}", weight.shape[1:2]) * 2).clamp(min=0)[None, :, None, None])
    return model


def write_heads(model, net, folder):
    heads = {f"lin{place}.model.1.weight": head.model[1].weight.detach() for place, head in enumerate(model.lins)}
    if net == "vgg":
        save_file(heads, folder / "lin.safetensors")
    else:
        torch.save(heads, folder / f"{net}.pth", _use_new_zipfile_serialization=net != "alex")


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    # Sides at which pooling has something left over.
    for net, pairs, height, width in [("vgg", 1, 26, 35), ("alex", 1, 47, 41), ("squeeze", 2, 30, 41)]:
        folder = HERE / f"lpips-{net}"
        (folder / "model").mkdir(parents=True, exist_ok=True)
        model = reference(net)
        write_heads(model, net, folder / "model")
        random = generator("lpips", net)
        first = normal(random, pairs, 3, height, width).mul(0.5).clamp(-1, 1)
        # A flat area: many channels are 0 there.
        first[..., : height // 2, :] = 0.1
        second = (first + 0.3 * normal(random, pairs, 3, height, width)).clamp(-1, 1)
        distance, layers = model(first, second, retPerLayer=True)
        tensors = {
            "input.in0": first,
            "input.in1": second,
            "output.distance": distance.flatten(),
            "output.layer_distances": torch.cat([layer.flatten(1) for layer in layers], 1),
        }
        metadata = {"kind": "lpips-formula", "net": net, "compute_dtype": "float32"}
        save({name: value.contiguous() for name, value in tensors.items()}, folder / "golden.safetensors", metadata)
        print(net, tensors["output.distance"].tolist(), tensors["output.layer_distances"].tolist())


if __name__ == "__main__":
    main()
