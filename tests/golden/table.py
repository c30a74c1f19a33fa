"""The table of docs/architectures.md: the largest error of every golden case that `ragar model check` takes.

    cargo build --release && python tests/golden/table.py [FOLDER of further cases]
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PROGRAM = HERE.parent.parent / "target/release/ragar"
# Beams have no kind of their own, LPIPS' weights are a formula here, and two cases have no folder of a model.
APART = {"blip2-beam", "blip2-t5-beam", "lpips-alex", "lpips-squeeze", "lpips-vgg", "llama-saved-adapter", "ssim",
         "textual-inversion", "image-preprocess"}


def main():
    folders = [HERE, *map(Path, sys.argv[1:])]
    cases = sorted(path.parent for folder in folders for path in folder.glob("*/golden.safetensors"))
    print("| case | kind | outputs | largest error | of the output's largest value | allowed |\n|---|---|---|---|---|---|")
    for case in cases:
        if case.parent == HERE and case.name in APART:
            continue
        model = [str(case / "model")] if (case / "model").exists() else []
        words = [PROGRAM, "model", "check", *model, "--golden", str(case / "golden.safetensors"), "--json"]
        found = subprocess.run(words, capture_output=True, text=True)
        if not found.stdout:
            sys.exit(f"{case.name}: {found.stderr}")
        proof = json.loads(found.stdout)
        # Token ids are equal or not: their bound is none.
        numbers = [line for line in proof["outputs"] if line["bound"] > 0]
        worst = max(numbers, key=lambda line: line["error"] / line["bound"])
        assert proof["passed"], (case.name, found.stderr)
        print(f"| `{case.name}` | {proof['kind']} | {len(proof['outputs'])} | {worst['error']:.1e} (`{worst['name']}`) "
              f"| {worst['relative']:.1e} | {worst['bound']:.1e} |")


if __name__ == "__main__":
    main()
