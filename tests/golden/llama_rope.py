"""Golden samples of Llamas for long contexts, padded on the left, written by transformers and peft.

`llama-llama3`: Llama 3.1's scaling in the form of published files, grouped keys, heads wider than width / heads, a tied
output layer; an rsLoRA adapter whose targets are a regular expression.
`llama-linear`: linear scaling in the newer form, biases in attention and feed-forward.
`llama-saved-adapter`: no model of its own. `adapter` is a folder as this crate writes it (`tests/it/llama.rs` holds it
to that); recorded are the logits that peft computes with it on top of `llama-mha`.

    python tests/golden/llama_rope.py [case …] [--verify]        (torch 2.9, transformers 5.23, peft 0.21)
"""

import json

import torch
from generate import HERE, Case, greedy, hub_shapes, main, read_back, write_weights, zero_masked
from safetensors.torch import load_file

COMMON = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 110, "hidden_size": 32,
    "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_act": "silu",
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2,
}


class LongLlama(Case):
    kind = "llama"
    weights_dtype = "float16"
    smallest_gap = 0.02
    num_new = 8

    def __init__(self, name, config, adapter=None):
        self.name, self.config, self.adapter = name, COMMON | config, adapter

    def write(self, seed):
        from transformers import LlamaConfig, LlamaForCausalLM

        self.model.mkdir(parents=True, exist_ok=True)
        (self.model / "config.json").write_text(json.dumps(self.config, indent=2) + "\n")
        model = LlamaForCausalLM(LlamaConfig.from_pretrained(self.model))
        # Layers that outweigh the word last written, which a tied output layer would otherwise repeat.
        scale = {"lm_head": 2.0, "down_proj": 8.0, "o_proj": 8.0}
        write_weights(self.model / "model.safetensors", hub_shapes(model), seed, torch.float16, scale)
        if self.adapter:
            from peft import LoraConfig, get_peft_model

            folder = self.folder / "adapter"
            adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **self.adapter))
            adapted.peft_config["default"].base_model_name_or_path = "../model"
            adapted.peft_config["default"].inference_mode = True
            adapted.save_pretrained(folder)
            (folder / "README.md").unlink()
            shapes = {name: tuple(value.shape) for name, value in load_file(folder / "adapter_model.safetensors").items()}
            write_weights(folder / "adapter_model.safetensors", shapes, seed)

    def inputs(self, random):
        ids = torch.randint(3, self.config["vocab_size"], (3, 13), generator=random)
        mask = torch.ones_like(ids)
        for row, padding in enumerate((0, 3, 9)):
            ids[row, :padding], mask[row, :padding] = 0, 0
            ids[row, padding] = 1
        return {"input_ids": ids, "attention_mask": mask}

    def outputs(self, inputs):
        from transformers import LlamaForCausalLM

        model = read_back(LlamaForCausalLM, self.model)
        mask = inputs["attention_mask"]
        recorded, further = {}, {"max_new_tokens": str(self.num_new), "zeroed": "where attention_mask == 0"}
        if self.adapter:
            from peft import PeftModel

            recorded["base_logits"] = zero_masked(model(**inputs).logits, mask)
            model = PeftModel.from_pretrained(model, self.folder / "adapter").eval()
            further["adapter"] = "adapter"
        out = model(**inputs, output_hidden_states=True)
        ids, gap = greedy(model, self.num_new, **inputs, pad_token_id=0)
        recorded |= {
            "logits": zero_masked(out.logits, mask),
            "last_hidden_state": zero_masked(out.hidden_states[-1], mask),
            "generated_ids": ids,
        }
        return recorded, further | {"min_top2_gap": f"{gap:.6f}"}

    def varied(self, inputs, outputs):
        rows = outputs["generated_ids"][:, inputs["input_ids"].shape[1] :]
        whole = rows.shape[1] == self.num_new and bool((rows != 2).all())
        return whole and all(len(set(row.tolist())) > 3 for row in rows)


class SavedAdapter(Case):
    """The adapter is an input here: this crate wrote it."""

    name, kind = "llama-saved-adapter", "llama-saved-adapter"

    def write(self, seed):
        assert (self.folder / "adapter/adapter_model.safetensors").is_file(), "see `tests/it/llama.rs`"

    def inputs(self, random):
        return {"input_ids": load_file(HERE / "llama-mha/golden.safetensors")["input.input_ids"]}

    def outputs(self, inputs):
        from peft import PeftModel
        from transformers import LlamaForCausalLM

        model = read_back(LlamaForCausalLM, HERE / "llama-mha/model")
        base = model(**inputs).logits
        model = PeftModel.from_pretrained(model, self.folder / "adapter").eval()
        logits = model(**inputs).logits
        assert (logits - base).abs().max() > 0.1, "the adapter changes nothing"
        return {"logits": logits}, {"base": "llama-mha"}


CASES = [
    LongLlama("llama-llama3", {
        "num_key_value_heads": 2, "head_dim": 12, "tie_word_embeddings": True, "rope_theta": 100.0,
        "rope_scaling": {
            "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 2.0, "original_max_position_embeddings": 16,
            "rope_type": "llama3", "type": "llama3"}},
        dict(r=3, lora_alpha=4, use_rslora=True, target_modules=r".*\.(k_proj|o_proj|up_proj)")),
    LongLlama("llama-linear", {
        "num_key_value_heads": 4, "tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True,
        "rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 500.0}}),
    SavedAdapter(),
]


if __name__ == "__main__":
    main(CASES, __doc__)
