"""Golden sample of textual inversion: learned tokens in each form that files have, read by diffusers into the text
encoder and tokenizer of `pipeline`.

    python tests/golden/textual_inversion.py        (torch 2.9, transformers 5.23, diffusers 0.42)

Writes the files into `textual-inversion/`, and what the loaded pipeline makes of prompts with these tokens: the
converted prompts, their ids, and the text encoder's last states.
"""

import json

import torch
from diffusers import StableDiffusionPipeline
from generate import HERE, generator, normal, save, silence_libraries
from safetensors.torch import save_file
from transformers import CLIPTextModel

FOLDER = HERE / "textual-inversion"
MODEL = HERE / "pipeline/model"
PROMPTS = [
    "a photo of <crate> on a table",
    "a cat in the style of <sketch>, two of them",
    "old-chair and <crate>, <sketch>",
    "a red cat",
]


def write(width):
    """diffusers' pickle with one vector, the web UI's safetensors with three, the web UI's pickle with two."""
    random = generator("textual-inversion")
    vectors = [normal(random, width), normal(random, 3, width), normal(random, 2, width)]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "crate").mkdir(exist_ok=True)
    torch.save({"<crate>": vectors[0]}, FOLDER / "crate/learned_embeds.bin")
    save_file({"emb_params": vectors[1]}, FOLDER / "sketch.safetensors")
    chair = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": torch.nn.Parameter(vectors[2])},
        "name": "old-chair",
        "step": 1200,
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
    }
    torch.save(chair, FOLDER / "chair.pt")


@torch.no_grad()
def main():
    silence_libraries()
    torch.set_num_threads(1)
    # The other parts play no role; the loader wants a pipeline.
    pipeline = StableDiffusionPipeline.from_pretrained(
        MODEL, text_encoder=CLIPTextModel.from_pretrained(MODEL / "text_encoder", dtype=torch.float32), safety_checker=None
    )
    write(pipeline.text_encoder.config.hidden_size)
    pipeline.load_textual_inversion(FOLDER / "crate")
    pipeline.load_textual_inversion(FOLDER / "sketch.safetensors", token="<sketch>")
    pipeline.load_textual_inversion(FOLDER / "chair.pt")
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder.eval()
    converted = pipeline.maybe_convert_prompt(PROMPTS, tokenizer)
    ids = tokenizer(
        converted, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    ).input_ids
    print(converted, ids[:, :20], len(tokenizer), encoder.get_input_embeddings().weight.shape)
    tensors = {"output.input_ids": ids, "output.prompt_embeds": encoder(ids).last_hidden_state.contiguous()}
    metadata = {
        "kind": "textual-inversion", "base": "pipeline", "compute_dtype": "float32",
        "prompts": json.dumps(PROMPTS), "converted": json.dumps(converted),
    }
    save(tensors, FOLDER / "golden.safetensors", metadata)


if __name__ == "__main__":
    main()
