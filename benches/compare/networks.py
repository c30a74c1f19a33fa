#!/usr/bin/env python3
"""The networks here, in PyTorch and in candle: the same work on the same random weights, side by side.

    python benches/compare/networks.py                     (torch 2.9, diffusers, transformers, peft, safetensors)
    python benches/compare/networks.py --size paper --device cuda --dtype bf16
    python benches/compare/networks.py --only unet vae --rounds 9 --no-candle

Random weights are written once, in the hub's format, under --models. For every piece of work each contender is a process
that loads them, computes once, and leaves its result: results must agree before any time is taken. Then they take turns,
one run each, in an order that changes from round to round; a busy machine slows all of them alike. Printed is a Markdown
table: the median time of each, the ratio of ours to the faster of the others (median over rounds, with the interval that
holds half of them), loading time and peak memory. With more threads than one, PyTorch takes part twice, its threads waiting
actively (as it comes) and passively (OMP_WAIT_POLICY, which helps where something else uses the cores too), and the faster counts.

Builds what it runs: `cargo bench --no-run --bench compare` here, `cargo build --release` in benches/candle. With
--features it builds and compares another backend (`--features tch --device tch`).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GUIDANCE = 7.5
STEP = 481.0
NEW_TOKENS = 32
WORK = {
    "clip-image": "CLIP, images",
    "clip-text": "CLIP, prompts",
    "caption": "BLIP-2, caption of 20 tokens",
    "prefill": "Llama, reading a prompt",
    "decode": f"Llama, {NEW_TOKENS} new tokens",
    "lora": "Llama, LoRA loss and gradients",
    "unet": "UNet, one call",
    "vae": "VAE, decoding",
    "image": "image, 20 steps with guidance",
}
# Pieces that compare sums of many steps, and in what type.
TOLERANCE = {"float32": 2e-3, "bfloat16": 8e-2, "float16": 2e-2}

SIZES = {
    # About the shipped family, with widths that candle's 32 groups divide; and ViT-B/32, the one CLIP that it names.
    "tiny": dict(
        clip=(8, 8), unet=dict(channels=[64, 96, 128], heads=4, context=128, side=16, batch=16, layers=1, groups=32, first=False),
        vae=dict(channels=[32, 32, 96], layers=1, groups=32, batch=1), llama=dict(width=256, inner=688, layers=6, heads=8, vocabulary=8192),
        prompt=128, blip=dict(vision=(128, 4, 4, 16, 64), qformer=(128, 2, 4), text=(256, 4, 4, 4096), queries=8, batch=4)),
    # Stable Diffusion 1.5 and Llama of a size that two cores can bear.
    "sd15": dict(
        clip=(8, 8), unet=dict(channels=[320, 640, 1280, 1280], heads=8, context=768, side=64, batch=1, layers=2, groups=32, first=True),
        vae=dict(channels=[128, 256, 512, 512], layers=2, groups=32, batch=1), llama=dict(width=1024, inner=2816, layers=12, heads=16, vocabulary=32000),
        prompt=256, blip=dict(vision=(768, 6, 12, 14, 224), qformer=(768, 4, 12), text=(1024, 8, 16, 50304), queries=32, batch=1)),
    # What the paper runs; needs a GPU of 80 GB.
    "paper": dict(
        clip=(32, 32), unet=dict(channels=[320, 640, 1280, 1280], heads=8, context=768, side=64, batch=2, layers=2, groups=32, first=True),
        vae=dict(channels=[128, 256, 512, 512], layers=2, groups=32, batch=1), llama=dict(width=4096, inner=11008, layers=32, heads=32, vocabulary=32000),
        prompt=512, blip=dict(vision=(1408, 39, 16, 14, 224), qformer=(768, 12, 12), text=(2560, 32, 32, 50304), queries=32, batch=4)),
}


def models(arguments, folder):
    """Writes what is not there yet: networks with random weights, and inputs."""
    import torch
    from safetensors.torch import save_file

    size, dtype = SIZES[arguments.size], getattr(torch, arguments.dtype)
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)

    def once(name, make):
        if not (folder / name / "done").exists():
            make().to(dtype).save_pretrained(folder / name, safe_serialization=True, max_shard_size="200GB")
            (folder / name / "done").touch()

    def inputs(name, **tensors):
        tensors = {key: value.contiguous() for key, value in tensors.items()}
        save_file(tensors, folder / f"{name}.safetensors")

    def clip():
        from transformers import CLIPConfig, CLIPModel
        config = CLIPConfig()
        config.text_config.eos_token_id = 49407
        return CLIPModel(config)

    def llama_config():
        from transformers import LlamaConfig
        shape = size["llama"]
        return LlamaConfig(hidden_size=shape["width"], intermediate_size=shape["inner"], num_hidden_layers=shape["layers"],
                           num_attention_heads=shape["heads"], vocab_size=shape["vocabulary"], max_position_embeddings=2048,
                           tie_word_embeddings=False, rope_theta=10000.0)

    def llama():
        from transformers import LlamaForCausalLM
        return LlamaForCausalLM(llama_config())

    def blip():
        from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2QFormerConfig, Blip2VisionConfig, OPTConfig
        shape = size["blip"]
        (width, layers, heads, patch, side), (query, query_layers, query_heads) = shape["vision"], shape["qformer"]
        text, text_layers, text_heads, vocabulary = shape["text"]
        config = Blip2Config(
            vision_config=Blip2VisionConfig(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
                                            num_attention_heads=heads, patch_size=patch, image_size=side).to_dict(),
            qformer_config=Blip2QFormerConfig(hidden_size=query, intermediate_size=4 * query, num_hidden_layers=query_layers,
                                              num_attention_heads=query_heads, encoder_hidden_size=width, vocab_size=1000).to_dict(),
            text_config=OPTConfig(hidden_size=text, ffn_dim=4 * text, num_hidden_layers=text_layers, word_embed_proj_dim=text,
                                  num_attention_heads=text_heads, vocab_size=vocabulary, max_position_embeddings=256).to_dict(),
            num_query_tokens=shape["queries"], image_token_index=vocabulary - 1)
        return Blip2ForConditionalGeneration(config)

    def unet():
        from diffusers import UNet2DConditionModel
        shape = size["unet"]
        levels = len(shape["channels"])
        # SD-1.x attends on all levels but the lowest, the tiny family on all but the highest.
        attends = [level + 1 < levels if shape["first"] else level > 0 for level in range(levels)]
        return UNet2DConditionModel(
            sample_size=shape["side"], block_out_channels=shape["channels"], layers_per_block=shape["layers"],
            down_block_types=["CrossAttnDownBlock2D" if here else "DownBlock2D" for here in attends],
            up_block_types=["CrossAttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attends)],
            cross_attention_dim=shape["context"], attention_head_dim=shape["heads"], norm_num_groups=shape["groups"])

    def vae():
        from diffusers import AutoencoderKL
        shape = size["vae"]
        levels = len(shape["channels"])
        return AutoencoderKL(
            block_out_channels=shape["channels"], layers_per_block=shape["layers"], norm_num_groups=shape["groups"],
            down_block_types=["DownEncoderBlock2D"] * levels, up_block_types=["UpDecoderBlock2D"] * levels, latent_channels=4)

    wanted = set(arguments.only)
    if wanted & {"clip-image", "clip-text"}:
        once("clip", clip)
        images, prompts = size["clip"]
        inputs("clip-image", pixels=torch.randn(images, 3, 224, 224))
        ids = torch.randint(0, 49000, (prompts, 77))
        ids[:, 76] = 49407
        inputs("clip-text", ids=ids)
    if wanted & {"prefill", "decode", "lora"}:
        once("llama", llama)
        vocabulary, prompt = size["llama"]["vocabulary"], size["prompt"]
        inputs("prefill", ids=torch.randint(10, vocabulary, (1, prompt)))
        inputs("decode", ids=torch.randint(10, vocabulary, (1, 32)))
        inputs("lora", ids=torch.randint(10, vocabulary, (2, prompt // 2)))
        if "lora" in wanted and not (folder / "adapter" / "done").exists():
            from peft import LoraConfig, get_peft_model
            from transformers import LlamaForCausalLM
            model = get_peft_model(LlamaForCausalLM.from_pretrained(folder / "llama"), LoraConfig(
                r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], lora_dropout=0.0))
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    torch.nn.init.normal_(parameter, std=0.02)
            model.save_pretrained(folder / "adapter")
            (folder / "adapter" / "done").touch()
    if "caption" in wanted:
        once("blip2", blip)
        shape = size["blip"]
        side, vocabulary, queries = shape["vision"][4], shape["text"][3], shape["queries"]
        prompt = torch.tensor([[vocabulary - 1] * queries + [2]] * shape["batch"])
        inputs("caption", pixels=torch.randn(shape["batch"], 3, side, side), prompt=prompt)
    if wanted & {"unet", "vae", "image"}:
        from diffusers import DDIMScheduler
        once("unet", unet)
        once("vae", vae)
        scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                                  set_alpha_to_one=False, steps_offset=1)
        scheduler.save_pretrained(folder / "scheduler")
        shape = size["unet"]
        side, context, tokens = shape["side"], shape["context"], 77
        inputs("unet", latents=torch.randn(shape["batch"], 4, side, side), states=torch.randn(shape["batch"], tokens, context))
        inputs("vae", latents=torch.randn(size["vae"]["batch"], 4, side, side))
        scheduler.set_timesteps(20)
        steps = []
        for moment in scheduler.timesteps.tolist():
            before = moment - 1000 // 20
            alpha = scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod
            steps.append([moment, float(scheduler.alphas_cumprod[moment]), float(alpha)])
        inputs("image", latents=torch.randn(1, 4, side, side), states=torch.randn(1, tokens, context),
               empty=torch.randn(1, tokens, context), steps=torch.tensor(steps, dtype=torch.float32))


def worker(name, folder, device, dtype, threads):
    """PyTorch's side, with the protocol of benches/compare/ragar.rs."""
    import resource

    import torch
    from safetensors.torch import load_file, save_file

    torch.set_num_threads(threads)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    cuda = device.startswith("cuda")
    device = torch.device(device if cuda else "cpu")
    started = time.perf_counter()
    given = {key: value.to(device) for key, value in load_file(folder / f"{name}.safetensors").items()}
    given = {key: value.to(dtype) if value.is_floating_point() and key != "steps" else value for key, value in given.items()}

    def ready(network):
        return network.to(device, dtype).eval()

    def unet_of():
        from diffusers import UNet2DConditionModel
        return ready(UNet2DConditionModel.from_pretrained(folder / "unet"))

    def vae_of():
        from diffusers import AutoencoderKL
        return ready(AutoencoderKL.from_pretrained(folder / "vae"))

    def llama_of():
        from transformers import LlamaForCausalLM
        return ready(LlamaForCausalLM.from_pretrained(folder / "llama", dtype=dtype))

    def features(found):
        return found if torch.is_tensor(found) else found.pooler_output

    if name in ("clip-image", "clip-text"):
        from transformers import CLIPModel
        network = ready(CLIPModel.from_pretrained(folder / "clip"))
        if name == "clip-image":
            work = lambda: features(network.get_image_features(pixel_values=given["pixels"]))
        else:
            work = lambda: features(network.get_text_features(input_ids=given["ids"]))
    elif name == "unet":
        network = unet_of()
        work = lambda: network(given["latents"], STEP, given["states"]).sample
    elif name == "vae":
        network = vae_of()
        work = lambda: network.decode(given["latents"]).sample
    elif name == "image":
        from diffusers import DDIMScheduler
        unet, vae = unet_of(), vae_of()
        scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
        context = torch.cat([given["empty"], given["states"]])

        def work():
            scheduler.set_timesteps(20)
            latents = given["latents"]
            for moment in scheduler.timesteps:
                without, with_prompt = unet(torch.cat([latents] * 2), moment, context).sample.chunk(2)
                latents = scheduler.step(without + GUIDANCE * (with_prompt - without), moment, latents).prev_sample
            return vae.decode(latents / vae.config.scaling_factor).sample.clamp(-1, 1)
    elif name == "caption":
        from transformers import Blip2ForConditionalGeneration
        network = ready(Blip2ForConditionalGeneration.from_pretrained(folder / "blip2", dtype=dtype))

        def work():
            found = network.generate(pixel_values=given["pixels"], input_ids=given["prompt"], max_new_tokens=20,
                                     min_new_tokens=20, do_sample=False, num_beams=1)
            return found[:, -20:].float()
    elif name == "prefill":
        network = llama_of()
        work = lambda: network(given["ids"], logits_to_keep=1, use_cache=False).logits
    elif name == "decode":
        network = llama_of()

        def work():
            found = network.generate(given["ids"], max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False,
                                     attention_mask=torch.ones_like(given["ids"]), pad_token_id=0)
            return found[:, -NEW_TOKENS:].float()
    elif name == "lora":
        from peft import PeftModel
        network = PeftModel.from_pretrained(llama_of(), folder / "adapter", is_trainable=True)
        followed = next(value for key, value in network.named_parameters() if "q_proj.lora_B" in key)

        def work():
            network.zero_grad()
            logits = network(given["ids"][:, :]).logits[:, :-1].float()
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), given["ids"][:, 1:].flatten())
            loss.backward()
            return torch.cat([loss.detach().reshape(1), followed.grad.float().flatten()])
    else:
        raise SystemExit(f"no work called {name}")

    def run():
        with torch.set_grad_enabled(name == "lora"):
            result = work()
        if cuda:
            torch.cuda.synchronize()
        return result

    if cuda:
        torch.cuda.synchronize()
    loading = time.perf_counter() - started
    save_file({"output": run().float().cpu().contiguous()}, folder / f"{name}-pytorch.safetensors")
    print(f"ready {loading:.4f}", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        run()
        print(f"{time.perf_counter() - started:.6f}", flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


class Disagreement(Exception):
    """Contenders that do not do the same work."""


class Contender:
    """A process that does one piece of work whenever it is told to."""

    def __init__(self, name, command, environment):
        self.name = name
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seconds = []
        self.peak = float("nan")
        word = self.process.stdout.readline().split()
        self.able = bool(word) and word[0] == "ready"
        if self.able:
            self.loading = float(word[1])
        elif word != ["none"]:
            raise Disagreement(f"{name} failed")

    def run(self):
        # Threads of whoever was at it before may still spin.
        time.sleep(0.05)
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.seconds.append(float(self.process.stdout.readline()))

    def end(self):
        self.process.stdin.close()
        line = self.process.stdout.readline()
        self.peak = float(line or "nan")
        self.process.wait()


def build(arguments):
    features = ["--no-default-features", "--features", arguments.features] if arguments.features else []
    output = subprocess.run(
        ["cargo", "bench", "--no-run", "--bench", "compare", "--message-format=json", *features],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    ours = [line["executable"] for line in map(json.loads, output.splitlines())
            if line.get("executable") and line["target"]["name"] == "compare"][-1]
    if arguments.no_candle:
        return ours, None
    cuda = ["--features", "cuda"] if arguments.device.startswith("cuda") else []
    manifest = ROOT / "benches/candle/Cargo.toml"
    output = subprocess.run(
        ["cargo", "build", "--release", "--manifest-path", manifest, "--message-format=json", *cuda],
        check=True, stdout=subprocess.PIPE, text=True).stdout
    theirs = [line["executable"] for line in map(json.loads, output.splitlines()) if line.get("executable")][-1]
    return ours, theirs


def agree(folder, name, contender, tolerance):
    """The largest difference from PyTorch's result, as a share of its largest value."""
    from safetensors.torch import load_file

    want = load_file(folder / f"{name}-pytorch.safetensors")["output"]
    got = load_file(folder / f"{name}-{contender}.safetensors")["output"]
    if want.shape != got.shape:
        raise Disagreement(f"{contender} has the shape {tuple(got.shape)}, PyTorch {tuple(want.shape)}")
    # A loss and its gradients differ in size: each against its own.
    parts = [slice(0, 1), slice(1, None)] if name == "lora" else [slice(None)]
    worst = max(float((want[part] - got[part]).abs().max() / want[part].abs().max()) for part in parts)
    if not worst <= (0.0 if name in ("caption", "decode") and tolerance < 1e-2 else tolerance):
        raise Disagreement(f"{contender} is {worst:.1e} off PyTorch's result")
    return worst


def gflop(size, name):
    """Of a run, two for every multiplication and addition; none where it was not counted."""
    if size == "tiny":
        return None
    shape = SIZES[size]["llama"]
    weights = shape["layers"] * (4 * shape["width"] ** 2 + 3 * shape["width"] * shape["inner"])
    head, prompt = shape["width"] * shape["vocabulary"], SIZES[size]["prompt"]
    return {
        "unet": 803.3 * SIZES[size]["unet"]["batch"],
        "vae": 2514.5 * SIZES[size]["vae"]["batch"],
        "image": 20 * 2 * 803.3 + 2514.5,
        "prefill": 2e-9 * (weights * prompt + head),
        "decode": 2e-9 * (weights * (32 + NEW_TOKENS) + head * NEW_TOKENS),
    }.get(name)


def device_memory(process):
    """MiB of the GPU that this process holds; its allocator gives nothing back, so at the end that is the peak."""
    output = subprocess.run(["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"],
                            check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = (line.split(",") for line in output.splitlines())
    return next((float(used) for pid, used in lines if int(pid) == process), float("nan"))


def quartiles(values):
    values = sorted(values)
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def time_text(seconds):
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.2f} ms"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--only", nargs="*", choices=WORK, default=list(WORK))
    parser.add_argument("--device", default="flex", help="ours; PyTorch and candle take cuda where it says so, else the CPU")
    parser.add_argument("--features", help="Cargo features, where not the default ones")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-candle", action="store_true")
    parser.add_argument("--built", nargs=2, type=Path, metavar=("OURS", "CANDLE"), help="run these in place of building")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the device in this type: prints the share that we reach")
    parser.add_argument("--models", type=Path, default=ROOT / "data/compare", help="where random weights are kept")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        name, folder, device, dtype, threads = arguments.worker
        return worker(name, Path(folder), device, dtype, int(threads))

    ours, theirs = arguments.built or build(arguments)
    folder = arguments.models.resolve() / f"{arguments.size}-{arguments.dtype}"
    models(arguments, folder)
    short = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[arguments.dtype]
    threads = str(arguments.threads)
    environment = os.environ | {"RAYON_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
    load = os.getloadavg()[0]
    print(f"\n{arguments.size}, {arguments.device} in {arguments.dtype}, {threads} threads, {arguments.rounds} rounds; "
          f"load of the machine before: {load:.1f}\n")
    print("| work | here | PyTorch | candle | ratio to the faster (half of the rounds) | difference | loading: here, PyTorch, candle | "
          "peak MiB: here, PyTorch, candle |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    failed = False
    for name in arguments.only:
        def command(kind):
            device = arguments.device
            if kind.startswith("pytorch"):
                return [sys.executable, __file__, "--worker", name, folder, device, short, threads]
            return [ours if kind == "ragar" else theirs, name, folder, device, short, threads]

        passive = ["pytorch passive"] if arguments.threads > 1 and not arguments.device.startswith("cuda") else []
        kinds = ["pytorch", *passive, "ragar"] + (["candle"] if theirs else [])
        try:
            print(row(arguments, name, {kind: list(map(str, command(kind))) for kind in kinds}, folder, environment), flush=True)
        except Disagreement as reason:
            failed = True
            print(f"| {WORK[name]} | no time taken: {reason} |||||||", flush=True)
    return 1 if failed else 0


def row(arguments, name, commands, folder, environment):
    """A row of the table."""
    field = {}
    try:
        for kind, command in commands.items():
            waiting = {"OMP_WAIT_POLICY": "passive"} if kind.endswith("passive") else {}
            contender = Contender(kind, command, environment | waiting)
            if contender.able:
                field[kind] = contender
        tolerance = TOLERANCE[arguments.dtype]
        worst = max(agree(folder, name, kind, tolerance) for kind in field if not kind.startswith("pytorch"))
    except Disagreement:
        for contender in field.values():
            contender.end()
        raise
    names = list(field)
    for turn in range(arguments.rounds + 1):
        for place in range(len(names)):
            field[names[(place + turn) % len(names)]].run()
    for contender in field.values():
        on_device = device_memory(contender.process.pid) if arguments.device.startswith("cuda") else None
        contender.end()
        contender.peak = contender.peak if on_device is None else on_device
        # The first round warms caches.
        contender.seconds = contender.seconds[1:]
    def median(kind):
        return statistics.median(field[kind].seconds)

    pytorch = min((kind for kind in field if kind.startswith("pytorch")), key=median)
    faster = min((kind for kind in (pytorch, "candle") if kind in field), key=median)
    ratios = [a / b for a, b in zip(field["ragar"].seconds, field[faster].seconds)]
    low, high = quartiles(ratios)

    def cells(of):
        return [of(field[kind]) if kind in field else "–" for kind in ("ragar", pytorch, "candle")]

    medians = cells(lambda c: time_text(statistics.median(c.seconds)))
    work = gflop(arguments.size, name)
    if work and arguments.peak:
        medians[0] += f" ({work / statistics.median(field['ragar'].seconds) / arguments.peak / 10:.0f} % of the peak)"
    loading = ", ".join(cells(lambda c: time_text(c.loading)))
    memory = ", ".join(cells(lambda c: f"{c.peak:.0f}"))
    return (f"| {WORK[name]} | {' | '.join(medians)} | {statistics.median(ratios):.2f} ({low:.2f} … {high:.2f}) | {worst:.0e} | "
            f"{loading} | {memory} |")


if __name__ == "__main__":
    sys.exit(main())
