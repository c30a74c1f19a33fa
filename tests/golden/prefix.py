"""A learned prefix in front of every layer (P-Tuning v2), through transformers' cache.

`llama-prefix`: keys and values of three tokens for `llama-mha`, a prompt with left padding, and the last hidden states,
as PEFT's prefix tuning feeds them: the prompt's positions begin behind the prefix.

    python tests/golden/prefix.py        (after `generate.py llama-mha`; torch 2.9, transformers 5.23)
"""

import torch
from generate import HERE, generator, normal, save
from transformers import DynamicCache, LlamaForCausalLM

PREFIX = 3


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    folder = HERE / "llama-mha/model"
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    config = model.config
    random = generator("llama-prefix")
    width = config.hidden_size // config.num_attention_heads
    shape = (config.num_hidden_layers, config.num_key_value_heads, PREFIX, width)
    keys, values = 0.8 * normal(random, *shape), 0.8 * normal(random, *shape)
    ids = torch.randint(3, config.vocab_size, (2, 6), generator=random)
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[1, :2] = 0
    cache = DynamicCache()
    for layer in range(config.num_hidden_layers):
        repeat = lambda table: table[layer][None].repeat(2, 1, 1, 1)
        cache.update(repeat(keys), repeat(values), layer)
    whole = torch.cat([torch.ones(2, PREFIX, dtype=torch.long), mask], 1)
    output = model.model(
        input_ids=ids, attention_mask=whole, past_key_values=cache,
        position_ids=torch.arange(PREFIX, PREFIX + 6)[None].repeat(2, 1))
    tensors = {
        "input.keys": keys,
        "input.values": values,
        "input.input_ids": ids,
        "input.attention_mask": mask,
        "output.states": output.last_hidden_state[:, 2:],
    }
    (HERE / "llama-prefix").mkdir(exist_ok=True)
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    path = HERE / "llama-prefix/golden.safetensors"
    save(tensors, path, {"kind": "llama-prefix", "compute_dtype": "float32"})
    path.chmod(0o644)
    print({name: tuple(value.shape) for name, value in tensors.items()}, path.stat().st_size)


if __name__ == "__main__":
    main()
