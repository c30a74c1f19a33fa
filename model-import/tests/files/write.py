"""Writes the files of this folder with the reference libraries: torch, safetensors, transformers, onnx, gguf.

    pip install torch==2.9.0 transformers safetensors onnx==1.23.2 onnxscript==0.7.2 gguf==0.19.0
    python write.py            # all, into the folder of this script
    python write.py gguf       # one of safetensors, pytorch, onnx, gguf

Every format holds the same small CLIP text encoder or the same small Llama as a safetensors file beside
it, so that a reader is right when both give the same tensors. The weights are drawn at random.
"""

import json
import shutil
import sys
import warnings
from pathlib import Path

import gguf
import numpy as np
import onnx
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
warnings.filterwarnings("ignore")


def randomise(model):
    """Fresh biases are all zero and fresh norms all one: equal tensors hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    return model.eval()


def clip():
    config = CLIPTextConfig(
        vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=4, projection_dim=6, bos_token_id=18, eos_token_id=19, pad_token_id=0,
        attn_implementation="eager",
    )
    return randomise(CLIPTextModelWithProjection(config))


def parameters(model):
    return {name: tensor.detach().clone().contiguous() for name, tensor in model.named_parameters()}


def write_safetensors(weights):
    save_file(weights, HERE / "clip.safetensors", metadata={"format": "pt"})
    save_file({k: v.half() for k, v in weights.items()}, HERE / "clip.fp16.safetensors")


def shards(weights, folder, stem, ending, save):
    folder.mkdir(exist_ok=True)
    names = sorted(weights)
    half = len(names) // 2
    index = {"metadata": {"total_size": sum(v.nbytes for v in weights.values())}, "weight_map": {}}
    for number, part in enumerate((names[:half], names[half:]), 1):
        file = f"{stem}-{number:05}-of-00002.{ending}"
        save({name: weights[name] for name in part}, folder / file)
        index["weight_map"].update({name: file for name in part})
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index, indent=1))


def write_pytorch(model, weights):
    torch.save(model.state_dict(), HERE / "clip.bin")
    torch.save(model.state_dict(), HERE / "clip.legacy.bin", _use_new_zipfile_serialization=False)
    torch.save(model.bfloat16().state_dict(), HERE / "clip.bf16.pt")
    model.float().load_state_dict(weights)
    shards(weights, HERE / "sharded-bin", "pytorch_model", "bin", torch.save)
    # What a training program keeps: the weights beside an optimiser, numbers and text.
    layer = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    state = {"state_dict": layer.state_dict(), "optimizer": optimiser.state_dict(), "epoch": 3, "loss": 0.5, "note": "a note"}
    torch.save(state, HERE / "training.ckpt")
    # Views: transposed, sliced, with steps, of one shared storage; a parameter; no dimensions; nothing.
    base = torch.arange(24, dtype=torch.float32)
    views = {
        "base": base,
        "transposed": base.reshape(4, 6).t(),
        "slice": base[5:11],
        "steps": base[1::3],
        "block": base.reshape(2, 3, 4)[:, 1:, ::2],
        "channels_last": base.reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(base[:2].clone()),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "float64": torch.tensor([0.1, -0.2], dtype=torch.float64),
        "int64": torch.tensor([[1, -2], [3, 1 << 40]]),
        "bool": torch.tensor([True, False]),
        "bfloat16": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "uint16": torch.tensor([1, 65535], dtype=torch.uint16),
    }
    for ending, new in (("pt", True), ("legacy.pt", False)):
        torch.save(views, HERE / f"views.{ending}", _use_new_zipfile_serialization=new)
    save_file({k: v.detach().clone().contiguous() for k, v in views.items()}, HERE / "views.safetensors")
    # Views that repeat values, and programs instead of weights: to be refused.
    torch.save({"expanded": torch.ones(1).expand(1000, 1000)}, HERE / "expanded.pt")
    torch.save(layer, HERE / "whole_model.pt")
    torch.save({"a": Calls()}, HERE / "calls.pt")
    torch.save({"a": Calls()}, HERE / "calls.legacy.pt", _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.trace(layer, torch.ones(1, 3)), HERE / "script.pt")


class Calls:
    """Unpickled by Python this would run a command."""

    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/was-run",)


class Picture(torch.nn.Module):
    """Layers that exporters fold or rename each in its own way."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.norm = torch.nn.GroupNorm(2, 4)
        self.proj = torch.nn.Linear(4, 5)
        self.mix = torch.nn.Parameter(torch.zeros(5, 6))
        self.twice = torch.nn.Linear(6, 6, bias=False)
        self.out = torch.nn.Sequential(torch.nn.LayerNorm(6), torch.nn.Linear(6, 7))

    def forward(self, pixels):
        pooled = self.norm(self.conv(pixels)).flatten(2).transpose(1, 2)
        return self.out(self.twice(self.twice(self.proj(pooled) @ self.mix)))


def strip(path, external=None):
    """Without the traces of Python's stack, which name files of the machine and make up most of a small graph."""
    model = onnx.load(path)
    for node in model.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        node.doc_string = ""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    if external:
        onnx.save_model(model, path, save_as_external_data=True, location=external, size_threshold=0)
        return
    onnx.save_model(model, path)
    # The newer exporter puts the weights there; they are in the graph now.
    path.with_name(path.name + ".data").unlink(missing_ok=True)


def write_onnx(model):
    ids = torch.tensor([[18, 3, 4, 19]])
    picture = randomise(Picture())
    save_file(parameters(picture), HERE / "picture.safetensors")
    for dynamo, suffix in ((False, ""), (True, ".dynamo")):
        options = {"dynamo": dynamo, "opset_version": 18 if dynamo else 17}
        path = HERE / f"clip{suffix}.onnx"
        torch.onnx.export(model, (ids,), path, input_names=["input_ids"], **options)
        strip(path)
        path = HERE / f"picture{suffix}.onnx"
        torch.onnx.export(picture, (torch.randn(1, 3, 4, 4),), path, **options)
        strip(path)
    # Fresh: equal biases are stored once.
    torch.manual_seed(0)
    fresh = CLIPTextModelWithProjection(model.config).eval()
    save_file(parameters(fresh), HERE / "fresh.safetensors")
    torch.onnx.export(fresh, (ids,), HERE / "fresh.onnx", dynamo=False, opset_version=17)
    strip(HERE / "fresh.onnx")
    torch.onnx.export(fresh, (ids,), HERE / "fresh.dynamo.onnx", dynamo=True, opset_version=18)
    strip(HERE / "fresh.dynamo.onnx")
    folder = HERE / "external"
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx.data").unlink(missing_ok=True)
    shutil.copy(HERE / "picture.onnx", folder / "model.onnx")
    strip(folder / "model.onnx", external="model.onnx.data")
    # The same values in typed lists instead of raw bytes, in several data types.
    values = np.array([[1.5, -2.0, 0.25], [3.0, 4.0, -0.5]], dtype=np.float32)
    tensors = []
    for name, kind in (("float", 1), ("half", 10), ("double", 11), ("bfloat", 16), ("int32", 6), ("int64", 7), ("uint8", 2)):
        data = np.abs(values).astype(np.int64) if name.startswith(("int", "uint")) else values
        tensors.append(onnx.helper.make_tensor(f"typed.{name}", kind, [2, 3], data.flatten().tolist()))
    graph = onnx.helper.make_graph([], "typed", [], [], initializer=tensors)
    onnx.save_model(onnx.helper.make_model(graph), HERE / "typed.onnx")


def llama_weights():
    config = LlamaConfig(
        vocab_size=12, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=16, tie_word_embeddings=False,
    )
    return {name: tensor.half() for name, tensor in parameters(randomise(LlamaForCausalLM(config))).items()}


def permute(weights, heads):
    """As `convert_hf_to_gguf.py` regroups the rows of query and key projections."""
    rows = weights.shape[0]
    return weights.reshape(heads, 2, rows // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


LLAMA_NAMES = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)


def write_gguf():
    weights = llama_weights()
    expected = {}
    for file, kind in (("llama", gguf.GGMLQuantizationType.F16), ("llama.q8_0", gguf.GGMLQuantizationType.Q8_0)):
        writer = gguf.GGUFWriter(HERE / f"{file}.gguf", "llama")
        writer.add_block_count(1)
        writer.add_head_count(4)
        writer.add_head_count_kv(2)
        writer.add_tokenizer_model("none")
        writer.add_token_list(["<s>", "a", "b"])
        writer.add_token_scores([0.0, 1.0, 2.0])
        dequantised = {}
        for name, tensor in weights.items():
            data = tensor.numpy()
            for part, heads in (("q_proj", 4), ("k_proj", 2)):
                if part in name:
                    data = permute(data, heads)
            ours = LLAMA_NAMES.get_name(name, try_suffixes=(".weight", ".bias"))
            this = kind if data.ndim > 1 else gguf.GGMLQuantizationType.F16
            if this == gguf.GGMLQuantizationType.F16:
                dequantised[name] = tensor
                writer.add_tensor(ours, data)
                continue
            # Rows are quantised one by one, so that the hub's order gives the same blocks.
            blocks = gguf.quants.quantize(tensor.float().numpy(), this)
            dequantised[name] = torch.from_numpy(gguf.quants.dequantize(blocks, this).copy())
            writer.add_tensor(ours, gguf.quants.quantize(data.astype(np.float32), this), raw_dtype=this)
        # Llama 3's rotary factors: no parameter of the hub's.
        writer.add_tensor("rope_freqs.weight", np.ones(8, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        expected[file] = dequantised
    save_file(weights, HERE / "llama.safetensors")
    save_file({k: v for k, v in expected["llama.q8_0"].items()}, HERE / "llama.q8_0.safetensors")
    write_blocks()


def write_blocks():
    """A tensor of every type: random blocks (the package cannot quantise to K types), dequantised by the package."""
    generator = np.random.default_rng(0)
    types = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(HERE / "blocks.gguf", "test")
    expected = {}
    for kind in (types.Q4_0, types.Q4_1, types.Q5_0, types.Q5_1, types.Q8_0, types.Q4_K, types.Q5_K, types.Q6_K):
        block_values, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        shape = (3, 2 * block_values)
        blocks = generator.integers(0, 256, (3, 2, block_bytes), dtype=np.uint8)
        # Scales as real files have them, not infinite.
        scales = generator.standard_normal((3, 2, 2)).astype(np.float16).view(np.uint8).reshape(3, 2, 4)
        if kind == types.Q6_K:
            blocks[..., -2:] = scales[..., :2]
        elif kind in (types.Q4_0, types.Q5_0, types.Q8_0):
            blocks[..., :2] = scales[..., :2]
        else:
            blocks[..., :4] = scales
        blocks = blocks.reshape(3, -1)
        writer.add_tensor(kind.name, blocks, raw_dtype=kind)
        values = gguf.quants.dequantize(blocks, kind)
        assert values.shape == shape and np.isfinite(values).all()
        expected[kind.name] = torch.from_numpy(values.copy())
    plain = generator.standard_normal((2, 5)).astype(np.float32)
    writer.add_tensor("F16", plain.astype(np.float16))
    expected["F16"] = torch.from_numpy(plain).half()
    bfloat = gguf.quants.quantize(plain, types.BF16)
    writer.add_tensor("BF16", bfloat, raw_dtype=types.BF16)
    expected["BF16"] = torch.from_numpy(gguf.quants.dequantize(bfloat, types.BF16).copy()).bfloat16()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, HERE / "blocks.safetensors")


def main():
    model = clip()
    weights = parameters(model)
    writers = {
        "safetensors": lambda: write_safetensors(weights),
        "pytorch": lambda: write_pytorch(model, weights),
        "onnx": lambda: write_onnx(model),
        "gguf": write_gguf,
    }
    for name in sys.argv[1:] or writers:
        writers[name]()


if __name__ == "__main__":
    main()
