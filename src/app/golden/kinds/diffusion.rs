//! The denoising network, the autoencoder, and the pipeline that joins them.

use burn::tensor::{Tensor, TensorData};

use crate::app::backend::Backend;
use crate::app::golden::case::{Case, Outputs};
use crate::generation::generator::{GenerateOptions, Generator};
use crate::networks::scheduler::SchedulerChoice;
use crate::pretrained::diffusion;

/// One call of the denoising network.
pub fn unet(case: &Case<'_>) -> anyhow::Result<Outputs> {
    let (_, network) = diffusion::open_unet::<Backend>(case.folder()?, &case.device)?;
    let sample = case.ready(network).forward(
        case.floats("sample")?,
        steps(case)?,
        case.floats("encoder_hidden_states")?,
    );
    let mut outputs = Outputs::default();
    outputs.put("sample", sample);
    Ok(outputs)
}

/// Timesteps, whole or fractional, in f32 whatever the network computes in.
fn steps(case: &Case<'_>) -> anyhow::Result<Tensor<Backend, 1>> {
    let data = case.golden.input("timestep", 1)?;
    let data = data.convert_dtype(burn::tensor::DType::F32);
    Ok(Tensor::from_data(data, &case.device))
}

/// Encoding and decoding.
pub fn vae(case: &Case<'_>) -> anyhow::Result<Outputs> {
    let (_, network) = diffusion::open_vae::<Backend>(case.folder()?, &case.device)?;
    let network = case.ready(network);
    let mut outputs = Outputs::default();
    if case.golden.gives("image") {
        let latent = network.encode(case.floats("image")?);
        outputs.put("latent_mean", latent.mean);
        outputs.put("latent_logvar", latent.logvar);
    }
    if case.golden.gives("latent") {
        outputs.put("image", network.decode(case.floats("latent")?));
    }
    Ok(outputs)
}

/// From prompts and noise to a picture.
pub fn pipeline(case: &Case<'_>) -> anyhow::Result<Outputs> {
    let golden = case.golden;
    let pipeline = diffusion::open::<Backend>(case.folder()?, &case.device)?;
    let mut outputs = Outputs::default();
    if let Some(texts) = golden.option("tokenizer_texts") {
        let texts: Vec<String> = serde_json::from_str(texts).map_err(|error| {
            anyhow::anyhow!(
                "{}: metadata `tokenizer_texts`: {error}",
                golden.path().display()
            )
        })?;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let encoder = &pipeline.text_encoder;
        let (rows, _) = encoder
            .tokenizer
            .encode_padded(&texts, encoder.context_length());
        outputs.put_rows("tokenizer_ids", &rows);
    }
    if let Some(eta) = golden.option("eta").filter(|eta| eta.parse() != Ok(0.0)) {
        anyhow::bail!(
            "{}: eta is {eta}; only 0 can be repeated",
            golden.path().display()
        );
    }
    let vocabulary = pipeline.text_encoder.config.vocab_size;
    let encoder = case.ready(pipeline.text_encoder.network);
    let states = |name: &str| -> anyhow::Result<Tensor<Backend, 3>> {
        Ok(encoder
            .forward(case.tokens(name, vocabulary)?)
            .last_hidden_state)
    };
    let (negative, positive) = (states("negative_ids")?, states("prompt_ids")?);
    outputs.put(
        "prompt_embeds",
        Tensor::cat(vec![negative.clone(), positive.clone()], 0),
    );

    let options = GenerateOptions {
        num_steps: golden.required("num_inference_steps")?,
        guidance_scale: golden.required("guidance_scale")?,
        guidance_rescale: match golden.option("guidance_rescale") {
            Some(_) => golden.required("guidance_rescale")?,
            None => 0.0,
        },
        scheduler: SchedulerChoice::Pipeline,
        strength: 1.0,
    };
    let generator = Generator::new(
        case.ready(pipeline.unet),
        case.ready(pipeline.vae),
        pipeline.scheduler,
    );
    let start = case.floats::<4>("latents")?;
    let noises = match golden.gives("noise") {
        true => Some(case.floats::<5>("noise")?),
        false => None,
    };
    let noise = |step: usize| match &noises {
        Some(noises) => noises.clone().narrow(0, step, 1).squeeze_dim::<4>(0),
        None => start.zeros_like(),
    };
    let mut calls: Vec<Tensor<Backend, 4>> = Vec::new();
    let observe = |_: usize, latents: &Tensor<Backend, 4>| calls.push(latents.clone());
    let latents =
        generator.denoise(positive, negative, start.clone(), &noise, &options, observe)?;
    let steps: Vec<Tensor<Backend, 5>> = calls
        .into_iter()
        .map(|call| call.unsqueeze_dim(0))
        .collect();
    let steps = Tensor::cat(steps, 0);
    // A batch of one is recorded without its own dimension.
    match recorded_rank(case, "latents_steps") {
        Some(4) if latents.dims()[0] == 1 => {
            outputs.put("latents_steps", steps.squeeze_dim::<4>(1))
        }
        _ => outputs.put("latents_steps", steps),
    }
    outputs.put("latents", latents.clone());
    outputs.put(
        "image",
        generator.decode(latents).add_scalar(1.0).div_scalar(2.0),
    );
    Ok(outputs)
}

fn recorded_rank(case: &Case<'_>, name: &str) -> Option<usize> {
    let mut outputs = case.golden.outputs();
    let rank = |data: &TensorData| data.shape.len();
    outputs
        .find(|(other, _)| *other == name)
        .map(|(_, data)| rank(data))
}
