"""Structural similarity of a few image pairs, written by scikit-image.

`ssim`: pairs `[pairs, 3, height, width]` with values in [0, 1] (equal, noisy, blurred, unrelated, inverted) and their
similarity per pair with the gaussian settings of Wang et al. (window 11, sigma 1.5, population covariance).

    python tests/golden/ssim.py        (scikit-image 0.26)
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

HERE = Path(__file__).parent


def main():
    random = np.random.default_rng(11)
    image = gaussian_filter(random.random((3, 16, 19)), (0, 2, 2))
    image = (image - image.min()) / (image.max() - image.min())
    other = random.random(image.shape)
    seconds = [
        image,
        np.clip(image + 0.1 * random.standard_normal(image.shape), 0, 1),
        gaussian_filter(image, (0, 1.5, 1.5)),
        other,
        1 - image,
    ]
    first = np.stack([image] * len(seconds)).astype(np.float32)
    second = np.stack(seconds).astype(np.float32)
    similarity = [
        structural_similarity(
            a.astype(np.float64), b.astype(np.float64), channel_axis=0, data_range=1.0, gaussian_weights=True,
            sigma=1.5, use_sample_covariance=False)
        for a, b in zip(first, second)
    ]
    folder = HERE / "ssim"
    folder.mkdir(exist_ok=True)
    save_file(
        {"input.first": first, "input.second": second, "output.similarity": np.array(similarity, dtype=np.float32)},
        folder / "golden.safetensors",
        metadata={"kind": "ssim", "data_range": "1.0"})


if __name__ == "__main__":
    main()
