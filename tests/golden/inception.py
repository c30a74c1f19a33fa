"""Golden features of FID's InceptionV3, written by `pytorch-fid`'s own blocks over torchvision's network.

    pip install --no-deps pytorch-fid==0.3.0 torchvision==0.24.0
    python tests/golden/inception.py        (torch 2.9)

The network is too large to commit (88 MB), so its values come from the formula of `lpips_nets.py`, which
`tests/it/inception.rs` computes, too: scales of norms and variances are one more than it gives. Recorded: a picture of
84 × 90 as the network sees it, and a small one through the resizing to 299 × 299.
"""

import torch
import torch.nn.functional as F
from generate import HERE, generator, normal, save
from lpips_nets import parameter
from pytorch_fid import inception as reference
from torchvision.models import inception_v3


def network():
    model = inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    model.Mixed_5b = reference.FIDInceptionA(192, pool_features=32)
    model.Mixed_5c = reference.FIDInceptionA(256, pool_features=64)
    model.Mixed_5d = reference.FIDInceptionA(288, pool_features=64)
    model.Mixed_6b = reference.FIDInceptionC(768, channels_7x7=128)
    model.Mixed_6c = reference.FIDInceptionC(768, channels_7x7=160)
    model.Mixed_6d = reference.FIDInceptionC(768, channels_7x7=160)
    model.Mixed_6e = reference.FIDInceptionC(768, channels_7x7=192)
    model.Mixed_7b = reference.FIDInceptionE_1(1280)
    model.Mixed_7c = reference.FIDInceptionE_2(2048)
    model.eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.startswith("fc.") or name.endswith("num_batches_tracked"):
                continue
            drawn = parameter(name, tensor.shape)
            positive = name.endswith(("bn.weight", "bn.running_var"))
            tensor.copy_(1 + drawn if positive else drawn)
    return model


def features(model, images):
    """In the order of pytorch-fid's four blocks; images in [-1, 1]."""
    states = model.Conv2d_2b_3x3(model.Conv2d_2a_3x3(model.Conv2d_1a_3x3(images)))
    states = F.max_pool2d(states, kernel_size=3, stride=2)
    states = model.Conv2d_4a_3x3(model.Conv2d_3b_1x1(states))
    states = F.max_pool2d(states, kernel_size=3, stride=2)
    for name in ["5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"]:
        states = getattr(model, f"Mixed_{name}")(states)
    return F.adaptive_avg_pool2d(states, (1, 1)).flatten(1)


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    model = network()
    random = generator("inception")
    # Squares of one colour, so that little need be recorded.
    squares = normal(random, 1, 3, 28, 30).mul(0.5).clamp(-1, 1)
    images = squares.repeat_interleave(3, -1).repeat_interleave(3, -2)
    small = normal(random, 1, 3, 20, 24).mul(0.5).clamp(-1, 1)
    # pytorch-fid resizes pictures in [0, 1] and scales them after; the two commute.
    large = F.interpolate(small, size=(299, 299), mode="bilinear", align_corners=False)
    tensors = {
        "input.squares": squares,
        "input.small": small,
        "output.features": features(model, images),
        "output.resized_features": features(model, large),
    }
    (HERE / "inception").mkdir(exist_ok=True)
    path = HERE / "inception/golden.safetensors"
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    save(tensors, path, {"kind": "inception-formula", "compute_dtype": "float32"})
    path.chmod(0o644)
    for name, value in tensors.items():
        print(name, tuple(value.shape), value.abs().max().item(), value.std().item())
    print(path.stat().st_size)


if __name__ == "__main__":
    main()
