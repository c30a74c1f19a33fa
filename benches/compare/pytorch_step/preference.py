"""The preference model (equations 7 to 9): Llama with LoRA, `[IMG]` rows, GILL's mapper, `W_t`, the fusion and the shift."""

import warnings

import torch
import torch.nn.functional as F
from torch import nn

# A share of the shift is one number where a layer has thousands that move together.
SHARE_RATE = 100.0


class Mapper(nn.Module):
    """GILL's `TextFcLayer` in `gill_mapper` mode."""

    def __init__(self, inputs, outputs, queries, sizes):
        super().__init__()
        width = sizes["d_model"]
        self.fc = nn.Linear(inputs, width)
        with warnings.catch_warnings():
            # Nested tensors need norms behind the layers; these have them before.
            warnings.simplefilter("ignore")
            self.tfm = nn.Transformer(**sizes, dropout=0.0, norm_first=True, batch_first=True)
        self.query_embs = nn.Parameter(torch.zeros(1, queries, width))
        self.model = nn.Linear(width, outputs)

    def forward(self, states, embeddings):
        return self.model(self.tfm(self.fc(states + embeddings), self.query_embs.expand(len(states), -1, -1)))


class Fusion(nn.Module):
    """`E_K + CrossAttention(query E_K, key/value E_mm)`."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.to_out = nn.Linear(width, width)

    def forward(self, keyword, multimodal, real):
        def split(states):
            return states.unflatten(2, (self.heads, -1)).transpose(1, 2)

        q, k, v = split(self.to_q(keyword)), split(self.to_k(multimodal)), split(self.to_v(multimodal))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None, :])
        return keyword + self.to_out(mixed.transpose(1, 2).flatten(2))


class Preference(nn.Module):
    def __init__(self, llama, settings, tokens, width):
        """`llama` is a PeftModel; `tokens` and `width` are those of the generator's text states."""
        super().__init__()
        self.llama = llama
        hidden = llama.config.hidden_size
        self.image_tokens = nn.Parameter(torch.zeros(settings["image_tokens"], hidden))
        self.modal_mapper = Mapper(hidden, width, tokens, settings["mapper"])
        self.text_projection = nn.Linear(hidden, width)
        self.calibrator = Fusion(width, settings["calibrator"]["num_heads"])
        self.retrieval_shares = nn.Parameter(torch.zeros(tokens))

    def forward(self, ids, mask, keyword, shift):
        """`E_mm` with what of it is real, and `E_gen`; `ids` are padded on the left."""
        batch, images = len(ids), len(self.image_tokens)
        tokens = self.image_tokens.expand(batch, -1, -1)
        embeddings = torch.cat([self.llama.get_input_embeddings()(ids), tokens], 1)
        mask = torch.cat([mask, mask.new_ones(batch, images)], 1)
        network = self.llama.get_base_model().model
        states = network(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).last_hidden_state
        text, image = states[:, :-images], states[:, -images:]
        multimodal = torch.cat([self.text_projection(text), self.modal_mapper(image, tokens)], 1)
        real = torch.cat([mask[:, :-images], mask.new_ones(batch, keyword.shape[1])], 1).bool()
        general = self.calibrator(keyword, multimodal, real)
        return multimodal, real, general + shift * (SHARE_RATE * self.retrieval_shares)[:, None]


def as_theirs(name, value):
    """A tensor of the exchange under PyTorch's name and as PyTorch lays it out; none where the adapter's folder has it."""
    ends = {"image_tokens.weight": "image_tokens", ".gamma": ".weight", ".beta": ".bias"}
    for ours, theirs in ends.items():
        if name.endswith(ours):
            return name.removesuffix(ours) + theirs, value
    if name.startswith("llama."):
        name = name.replace("llama.", "llama.base_model.model.").replace(".lora.", ".")
        name = name.replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default.")
    return name, value.T if name.endswith(".weight") else value
