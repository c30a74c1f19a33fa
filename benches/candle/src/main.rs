//! candle's side of `benches/compare/networks.py`: the same work and the same protocol as `benches/compare/ragar.rs`.
//!
//! What candle-transformers has no network for (BLIP-2) or no training of (LoRA) it answers with `none`.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::clip::{ClipConfig, ClipModel};
use candle_transformers::models::llama::{Cache, Llama, LlamaConfig};
use candle_transformers::models::stable_diffusion::unet_2d::{
    BlockConfig, UNet2DConditionModel, UNet2DConditionModelConfig,
};
use candle_transformers::models::stable_diffusion::vae::{AutoEncoderKL, AutoEncoderKLConfig};
use serde_json::Value;

type Work = Box<dyn FnMut() -> Result<Tensor>>;

struct Place {
    folder: PathBuf,
    device: Device,
    dtype: DType,
    inputs: HashMap<String, Tensor>,
}

impl Place {
    fn float(&self, name: &str) -> Result<Tensor> {
        Ok(self.int(name)?.to_dtype(self.dtype)?)
    }

    fn int(&self, name: &str) -> Result<Tensor> {
        Ok(self.inputs.get(name).context(name.to_string())?.clone())
    }

    fn weights(&self, part: &str, file: &str) -> Result<VarBuilder<'static>> {
        let path = self.folder.join(part).join(file);
        Ok(unsafe { VarBuilder::from_mmaped_safetensors(&[path], self.dtype, &self.device)? })
    }

    fn config(&self, part: &str) -> Result<Value> {
        let text = std::fs::read_to_string(self.folder.join(part).join("config.json"))?;
        Ok(serde_json::from_str(&text)?)
    }

    fn unet(&self) -> Result<UNet2DConditionModel> {
        let config = self.config("unet")?;
        let kinds = list(&config["down_block_types"]);
        let widths = numbers(&config["block_out_channels"]);
        let heads = number(&config["attention_head_dim"])?;
        let blocks = kinds.iter().zip(&widths).map(|(kind, width)| BlockConfig {
            out_channels: *width,
            use_cross_attn: (kind == "CrossAttnDownBlock2D").then_some(1),
            attention_head_dim: heads,
        });
        let options = UNet2DConditionModelConfig {
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            blocks: blocks.collect(),
            layers_per_block: number(&config["layers_per_block"])?,
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            norm_num_groups: number(&config["norm_num_groups"])?,
            norm_eps: 1e-5,
            cross_attention_dim: number(&config["cross_attention_dim"])?,
            sliced_attention_size: None,
            use_linear_projection: false,
        };
        let weights = self.weights("unet", "diffusion_pytorch_model.safetensors")?;
        Ok(UNet2DConditionModel::new(weights, 4, 4, false, options)?)
    }

    fn vae(&self) -> Result<(AutoEncoderKL, f64)> {
        let config = self.config("vae")?;
        let options = AutoEncoderKLConfig {
            block_out_channels: numbers(&config["block_out_channels"]),
            layers_per_block: number(&config["layers_per_block"])?,
            latent_channels: 4,
            norm_num_groups: number(&config["norm_num_groups"])?,
            use_quant_conv: true,
            use_post_quant_conv: true,
        };
        let weights = self.weights("vae", "diffusion_pytorch_model.safetensors")?;
        let scale = config["scaling_factor"].as_f64().context("scaling_factor")?;
        Ok((AutoEncoderKL::new(weights, 3, 3, options)?, scale))
    }

    fn llama(&self) -> Result<(Llama, candle_transformers::models::llama::Config)> {
        let config: LlamaConfig = serde_json::from_value(self.config("llama")?)?;
        let config = config.into_config(false);
        let weights = self.weights("llama", "model.safetensors")?;
        Ok((Llama::load(weights, &config)?, config))
    }

    fn clip(&self) -> Result<ClipModel> {
        // The driver writes ViT-B/32, the one size that candle names.
        let weights = self.weights("clip", "model.safetensors")?;
        Ok(ClipModel::new(weights, &ClipConfig::vit_base_patch32())?)
    }
}

fn number(value: &Value) -> Result<usize> {
    Ok(value.as_u64().with_context(|| value.to_string())? as usize)
}

fn numbers(value: &Value) -> Vec<usize> {
    let values = value.as_array().into_iter().flatten();
    values.filter_map(|value| Some(value.as_u64()? as usize)).collect()
}

fn list(value: &Value) -> Vec<String> {
    let values = value.as_array().into_iter().flatten();
    values.filter_map(|value| Some(value.as_str()?.to_string())).collect()
}

fn work(name: &str, place: Place) -> Result<Option<Work>> {
    Ok(Some(match name {
        "clip-image" => {
            let (network, pixels) = (place.clip()?, place.float("pixels")?);
            Box::new(move || Ok(network.get_image_features(&pixels)?))
        }
        "clip-text" => {
            let (network, ids) = (place.clip()?, place.int("ids")?);
            Box::new(move || Ok(network.get_text_features(&ids)?))
        }
        "unet" => {
            let unet = place.unet()?;
            let (latents, states) = (place.float("latents")?, place.float("states")?);
            Box::new(move || Ok(unet.forward(&latents, 481.0, &states)?))
        }
        "vae" => {
            let ((vae, _), latents) = (place.vae()?, place.float("latents")?);
            Box::new(move || Ok(vae.decode(&latents)?))
        }
        "image" => {
            let (unet, (vae, scale)) = (place.unet()?, place.vae()?);
            let (latents, states) = (place.float("latents")?, place.float("states")?);
            let empty = place.float("empty")?.broadcast_as(states.shape())?;
            let context = Tensor::cat(&[empty, states], 0)?;
            let steps: Vec<Vec<f64>> = place.int("steps")?.to_dtype(DType::F64)?.to_vec2()?;
            Box::new(move || {
                let mut latents = latents.clone();
                for step in &steps {
                    let [time, now, before] = step[..] else { anyhow::bail!("three numbers a step") };
                    let both = Tensor::cat(&[&latents, &latents], 0)?;
                    let parts = unet.forward(&both, time, &context)?.chunk(2, 0)?;
                    let noise = (&parts[0] + ((&parts[1] - &parts[0])? * 7.5)?)?;
                    // DDIM without noise of its own.
                    let clean = ((&latents - (&noise * (1.0 - now).sqrt())?)? / now.sqrt())?;
                    latents = ((clean * before.sqrt())? + (noise * (1.0 - before).sqrt())?)?;
                }
                Ok(vae.decode(&(latents / scale)?)?.clamp(-1f32, 1f32)?)
            })
        }
        "prefill" => {
            let ((llama, config), ids) = (place.llama()?, place.int("ids")?);
            Box::new(move || {
                let mut cache = Cache::new(true, place.dtype, &config, &place.device)?;
                Ok(llama.forward(&ids, 0, &mut cache)?.unsqueeze(1)?)
            })
        }
        "decode" => {
            let ((llama, config), ids) = (place.llama()?, place.int("ids")?);
            Box::new(move || {
                let mut cache = Cache::new(true, place.dtype, &config, &place.device)?;
                let (mut input, mut position, mut written) = (ids.clone(), 0, Vec::new());
                for _ in 0..32 {
                    let logits = llama.forward(&input, position, &mut cache)?;
                    position += input.dim(1)?;
                    input = logits.argmax_keepdim(1)?.to_dtype(DType::I64)?;
                    // As a caller must, to know whether the text has ended.
                    written.push(input.flatten_all()?.to_vec1::<i64>()?[0] as f32);
                }
                Ok(Tensor::from_vec(written, (1, 32), &Device::Cpu)?)
            })
        }
        _ => return Ok(None),
    }))
}

/// The largest resident memory of this process, in MiB.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, folder, device, dtype, threads] = arguments.as_slice() else {
        anyhow::bail!("run by benches/compare/networks.py");
    };
    rayon::ThreadPoolBuilder::new().num_threads(threads.parse()?).build_global()?;
    let device = match device.strip_prefix("cuda") {
        Some(_) => Device::new_cuda(0)?,
        None => Device::Cpu,
    };
    let dtype = match dtype.as_str() {
        "f32" => DType::F32,
        "f16" => DType::F16,
        "bf16" => DType::BF16,
        other => anyhow::bail!("no type called {other}"),
    };
    let folder = Path::new(folder);
    let started = Instant::now();
    let inputs = candle_core::safetensors::load(folder.join(format!("{name}.safetensors")), &device)?;
    let place = Place {
        folder: folder.to_path_buf(),
        device: device.clone(),
        dtype,
        inputs,
    };
    let Some(mut work) = work(name, place)? else {
        println!("none");
        return Ok(());
    };
    device.synchronize()?;
    let loading = started.elapsed().as_secs_f64();
    let output = work()?.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
    let path = folder.join(format!("{name}-candle.safetensors"));
    candle_core::safetensors::save(&HashMap::from([("output", output)]), path)?;
    println!("ready {loading:.4}");
    for line in std::io::stdin().lock().lines() {
        line?;
        let started = Instant::now();
        work()?;
        device.synchronize()?;
        println!("{:.6}", started.elapsed().as_secs_f64());
    }
    println!("{:.1}", peak_memory());
    Ok(())
}
