//! This program's side of `benches/compare/networks.py`: one piece of work, once per line that arrives.
//!
//! `<work> <folder> <device> <dtype> <threads>`: loads what the work needs from the folder, does it once, writes the result to
//! `<folder>/<work>-ragar.safetensors`, says `ready <seconds of loading>`; then answers every line of input with the seconds that
//! one more run took, and at its end with the largest resident memory in MiB.
//!
//! `start <pipeline> <latents> <prompt> <png> <device>`, for `benches/compare/start.py`: draws one picture from nothing and ends.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use burn::module::Module;
use burn::tensor::backend::Backend as _;
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use ragar::app::backend::{self, Backend, Devices};
use ragar::app::pictures::png;
use ragar::app::pool::in_pool;
use ragar::data::pixels::to_pictures;
use ragar::generation::generator::{GenerateOptions, Generator};
use ragar::networks::blip2::{CaptionOptions, TokenBatch};
use ragar::networks::scheduler::SchedulerChoice;
use ragar::nn::precision::cast_parameters;
use ragar::pretrained::{blip2, clip, diffusion, llama};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// A finished run: what it computed, to be compared.
type Output = TensorData;
type Work = Box<dyn FnMut() -> Output>;

/// How a picture is drawn.
const IMAGE: GenerateOptions = GenerateOptions {
    num_steps: 20,
    guidance_scale: 7.5,
    scheduler: SchedulerChoice::Pipeline,
    guidance_rescale: 0.0,
    strength: 1.0,
};

struct Inputs {
    bytes: Vec<u8>,
    devices: Devices,
    dtype: FloatDType,
}

impl Inputs {
    fn data(&self, name: &str) -> anyhow::Result<TensorData> {
        let file = SafeTensors::deserialize(&self.bytes)?;
        let view = file.tensor(name)?;
        let shape = view.shape().to_vec();
        let four = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).unwrap_or_default();
        let eight = |bytes: &[u8]| <[u8; 8]>::try_from(bytes).unwrap_or_default();
        Ok(match view.dtype() {
            Dtype::F32 => {
                let values = view
                    .data()
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes(four(b)));
                TensorData::new(values.collect::<Vec<f32>>(), shape)
            }
            Dtype::I64 => {
                let values = view
                    .data()
                    .chunks_exact(8)
                    .map(|b| i64::from_le_bytes(eight(b)));
                TensorData::new(values.collect::<Vec<i64>>(), shape)
            }
            other => anyhow::bail!("{name} is {other:?}"),
        })
    }

    fn float<const D: usize>(&self, name: &str) -> anyhow::Result<Tensor<Backend, D>> {
        let tensor = Tensor::<Backend, D>::from_data(self.data(name)?, &self.devices.frozen);
        Ok(tensor.cast(self.dtype))
    }

    fn int(&self, name: &str) -> anyhow::Result<Tensor<Backend, 2, Int>> {
        Ok(Tensor::from_data(self.data(name)?, &self.devices.frozen))
    }

    fn ids(&self, name: &str) -> anyhow::Result<Vec<Vec<u32>>> {
        let data = self.data(name)?;
        let width = data.shape.to_vec()[1];
        let ids: Vec<u32> = data.iter::<i64>().map(|id| id as u32).collect();
        Ok(ids.chunks(width).map(<[u32]>::to_vec).collect())
    }
}

fn floats<const D: usize>(tensor: Tensor<Backend, D>) -> Output {
    tensor.cast(FloatDType::F32).into_data()
}

/// Token ids as numbers, rows filled up with −1.
fn tokens(rows: &[Vec<u32>]) -> Output {
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut values = Vec::new();
    for row in rows {
        values.extend(row.iter().map(|id| *id as f32));
        values.resize(values.len() + width - row.len(), -1.0);
    }
    TensorData::new(values, [rows.len(), width])
}

fn work(name: &str, folder: &Path, inputs: Inputs) -> anyhow::Result<Work> {
    let (device, dtype) = (inputs.devices.frozen.clone(), inputs.dtype);
    Ok(match name {
        "clip-image" => {
            let (_, network) = clip::open_network::<Backend>(&folder.join("clip"), &device)?;
            let (network, pixels) = (cast_parameters(network, dtype), inputs.float("pixels")?);
            Box::new(move || floats(network.image_embeds(pixels.clone())))
        }
        "clip-text" => {
            let (_, network) = clip::open_network::<Backend>(&folder.join("clip"), &device)?;
            let (network, ids) = (cast_parameters(network, dtype), inputs.int("ids")?);
            Box::new(move || floats(network.text_embeds(ids.clone())))
        }
        "unet" => {
            let (_, unet) = diffusion::open_unet::<Backend>(&folder.join("unet"), &device)?;
            let unet = cast_parameters(unet, dtype);
            let (latents, states) = (inputs.float::<4>("latents")?, inputs.float::<3>("states")?);
            let [rows, ..] = latents.dims();
            let step = Tensor::<Backend, 1>::full([rows], 481.0, &device);
            Box::new(move || floats(unet.forward(latents.clone(), step.clone(), states.clone())))
        }
        "vae" => {
            let (_, vae) = diffusion::open_vae::<Backend>(&folder.join("vae"), &device)?;
            let (vae, latents) = (cast_parameters(vae, dtype), inputs.float("latents")?);
            Box::new(move || floats(vae.decode(latents.clone())))
        }
        "image" => {
            let (_, unet) = diffusion::open_unet::<Backend>(&folder.join("unet"), &device)?;
            let (_, vae) = diffusion::open_vae::<Backend>(&folder.join("vae"), &device)?;
            let scheduler = diffusion::open_scheduler(&folder.join("scheduler"))?;
            let (unet, vae) = (cast_parameters(unet, dtype), cast_parameters(vae, dtype));
            let generator = Generator::new(unet, vae, scheduler);
            let (latents, states) = (inputs.float::<4>("latents")?, inputs.float::<3>("states")?);
            let empty = inputs.float("empty")?;
            Box::new(move || {
                let silent =
                    |_: usize| -> Tensor<Backend, 4> { unreachable!("DDIM asks for no noise") };
                let (states, empty) = (states.clone(), empty.clone());
                let images = generator.generate(states, empty, latents.clone(), &silent, &IMAGE);
                floats(images.expect("20 steps are within the schedule"))
            })
        }
        "caption" => {
            let (_, network) = blip2::open_network::<Backend>(&folder.join("blip2"), &device)?;
            let (network, pixels) = (cast_parameters(network, dtype), inputs.float("pixels")?);
            let prompt = TokenBatch::unpadded(inputs.ids("prompt")?);
            let options = CaptionOptions {
                max_new_tokens: 20,
                end_tokens: Some(Vec::new()),
                ..CaptionOptions::default()
            };
            Box::new(move || {
                let written = network.generate(pixels.clone(), &prompt, &options);
                let written = written.expect("a prompt with room for the picture");
                // The prompt stands before what is new.
                let new = written.iter().map(|row| row[row.len() - 20..].to_vec());
                tokens(&new.collect::<Vec<_>>())
            })
        }
        "prefill" => {
            let model = llama::load::<Backend>(&folder.join("llama"), &device)?.model;
            let (model, ids) = (cast_parameters(model, dtype), inputs.int("ids")?);
            Box::new(move || {
                let hidden = model.forward_hidden(model.embed(ids.clone()), None);
                let [_, length, _] = hidden.dims();
                floats(model.logits(hidden.narrow(1, length - 1, 1)))
            })
        }
        "decode" => {
            let model = llama::load::<Backend>(&folder.join("llama"), &device)?.model;
            let (model, prompts) = (cast_parameters(model, dtype), inputs.ids("ids")?);
            Box::new(move || tokens(&model.generate(&prompts, 32, &[])))
        }
        "lora" => lora(folder, &inputs)?,
        other => anyhow::bail!("no work called {other}"),
    })
}

/// Loss of the next tokens and its gradients; what is compared is the loss and one gradient.
fn lora(folder: &Path, inputs: &Inputs) -> anyhow::Result<Work> {
    let device: &Device<Backend> = &inputs.devices.train;
    let model = llama::load::<Backend>(&folder.join("llama"), device)?.model;
    let (_, adapter) = llama::load_adapter::<Backend>(&folder.join("adapter"), &model)?;
    let model = cast_parameters(model, inputs.dtype).no_grad();
    let model = model.with_adapter(&adapter);
    let ids = Tensor::<Backend, 2, Int>::from_data(inputs.data("ids")?, device);
    let [rows, length] = ids.dims();
    Ok(Box::new(move || {
        let hidden = model.forward_hidden(model.embed(ids.clone()), None);
        let logits = model.logits(hidden.narrow(1, 0, length - 1));
        let [_, steps, vocabulary] = logits.dims();
        let logits = logits
            .cast(FloatDType::F32)
            .reshape([rows * steps, vocabulary]);
        let next = ids.clone().narrow(1, 1, steps).reshape([rows * steps, 1]);
        let loss = burn::tensor::activation::log_softmax(logits, 1)
            .gather(1, next)
            .mean()
            .neg();
        let gradients = loss.backward();
        let first = &model.model.layers[0].self_attn.q_proj.lora;
        let gradient = first
            .as_ref()
            .and_then(|update| update.lora_B.weight.val().grad(&gradients));
        let gradient = gradient.expect("the adapter is trained");
        let mut values: Vec<f32> = loss.into_data().iter::<f32>().collect();
        values.extend(
            gradient
                .cast(FloatDType::F32)
                .transpose()
                .into_data()
                .iter::<f32>(),
        );
        let count = values.len();
        TensorData::new(values, [count])
    }))
}

/// One picture of `prompt` from a pipeline's folder and the latent that `latents` holds, as a PNG file.
fn start(
    pipeline: &Path,
    latents: &Path,
    prompt: &str,
    picture: &Path,
    devices: Devices,
) -> anyhow::Result<()> {
    let device = devices.frozen.clone();
    let inputs = Inputs {
        bytes: std::fs::read(latents).with_context(|| latents.display().to_string())?,
        devices,
        dtype: FloatDType::F32,
    };
    let opened = diffusion::open::<Backend>(pipeline, &device)?;
    let states = opened.text_encoder.states(&[prompt], &device);
    let empty = opened.text_encoder.states(&[""], &device);
    let generator = Generator::new(opened.unet, opened.vae, opened.scheduler);
    let silent = |_: usize| -> Tensor<Backend, 4> { unreachable!("DDIM asks for no noise") };
    let images = generator.generate(states, empty, inputs.float("latents")?, &silent, &IMAGE)?;
    std::fs::write(picture, png(&to_pictures(images)[0])?)?;
    Ok(())
}

fn save(path: &Path, output: &Output) -> anyhow::Result<()> {
    let values: Vec<u8> = output.iter::<f32>().flat_map(f32::to_le_bytes).collect();
    let view = TensorView::new(Dtype::F32, output.shape.to_vec(), &values)?;
    safetensors::serialize_to_file(HashMap::from([("output", view)]), None, path)?;
    Ok(())
}

/// The largest resident memory of this process, in MiB.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

fn main() -> anyhow::Result<()> {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    if let [word, pipeline, latents, prompt, picture, device] = arguments.as_slice()
        && word == "start"
    {
        return in_pool(None, || {
            let devices = backend::open(device)?;
            start(
                pipeline.as_ref(),
                latents.as_ref(),
                prompt,
                picture.as_ref(),
                devices,
            )
        });
    }
    let [name, folder, device, dtype, threads] = arguments.as_slice() else {
        println!("run by benches/compare/networks.py");
        return Ok(());
    };
    in_pool(Some(threads.parse()?), || {
        compare(name, folder, device, dtype)
    })
}

fn compare(name: &str, folder: &str, device: &str, dtype: &str) -> anyhow::Result<()> {
    let folder = PathBuf::from(folder);
    let devices = backend::open(device)?;
    let dtype = match dtype {
        "f32" => FloatDType::F32,
        "f16" => FloatDType::F16,
        "bf16" => FloatDType::BF16,
        other => anyhow::bail!("no type called {other}"),
    };
    let device = devices.frozen.clone();
    let started = Instant::now();
    let input = folder.join(format!("{name}.safetensors"));
    let bytes = std::fs::read(&input).with_context(|| input.display().to_string())?;
    let inputs = Inputs {
        bytes,
        devices,
        dtype,
    };
    let mut work = work(name, &folder, inputs)?;
    Backend::sync(&device)?;
    let loading = started.elapsed().as_secs_f64();
    save(&folder.join(format!("{name}-ragar.safetensors")), &work())?;
    println!("ready {loading:.4}");
    for line in std::io::stdin().lock().lines() {
        line?;
        let started = Instant::now();
        work();
        Backend::sync(&device)?;
        println!("{:.6}", started.elapsed().as_secs_f64());
    }
    println!("{:.1}", peak_memory());
    Ok(())
}
