//! A sampler, fed with recorded network outputs.

use std::cell::Cell;

use burn::tensor::{DType, Tensor, TensorData};

use crate::app::backend::Backend;
use crate::app::golden::case::{Case, Outputs};
use crate::networks::scheduler::Sampler;
use crate::pretrained::diffusion::open_scheduler;

/// Timesteps, and scaled input and sample of every call.
pub fn compute(case: &Case<'_>) -> anyhow::Result<Outputs> {
    let golden = case.golden;
    let config = open_scheduler(case.folder()?)?;
    let mut sampler: Box<dyn Sampler<Backend>> =
        config.sampler(golden.required("num_inference_steps")?)?;
    let mut outputs = Outputs::default();
    let timesteps = sampler.timesteps().to_vec();
    outputs.put_data("timesteps", as_recorded(case, &timesteps));

    let answers = case.floats::<5>("model_outputs")?;
    anyhow::ensure!(
        answers.dims()[0] == timesteps.len(),
        "{}: {} network outputs are recorded, the sampler calls {} times",
        golden.path().display(),
        answers.dims()[0],
        timesteps.len()
    );
    let noises = match golden.gives("noise") {
        true => Some(case.floats::<5>("noise")?),
        false => None,
    };
    let row = |values: &Tensor<Backend, 5>, index: usize| {
        values.clone().narrow(0, index, 1).squeeze_dim::<4>(0)
    };
    let mut sample = case.floats::<4>("sample")?;
    let missing = Cell::new(None);
    let noise = |step: usize| match &noises {
        Some(noises) if step < noises.dims()[0] => row(noises, step),
        _ => {
            missing.set(Some(step));
            row(&answers, 0).zeros_like()
        }
    };
    let (mut inputs, mut samples) = (Vec::new(), Vec::new());
    for index in 0..timesteps.len() {
        let input = sampler.scale_input(sample.clone(), index);
        inputs.push(input.unsqueeze_dim::<5>(0));
        sample = sampler.step(row(&answers, index), index, sample, &noise);
        samples.push(sample.clone().unsqueeze_dim::<5>(0));
    }
    if let Some(step) = missing.get() {
        anyhow::bail!(
            "{}: the sampler adds noise at step {step}, but `input.noise` does not hold any for it",
            golden.path().display()
        );
    }
    outputs.put("scaled_inputs", Tensor::cat(inputs, 0));
    outputs.put("samples", Tensor::cat(samples, 0));
    Ok(outputs)
}

/// Whole steps are recorded as integers, fractional ones as numbers.
fn as_recorded(case: &Case<'_>, timesteps: &[f64]) -> TensorData {
    let mut outputs = case.golden.outputs();
    let whole = outputs.any(|(name, data)| name == "timesteps" && !data.dtype.is_float());
    let data = TensorData::new(timesteps.to_vec(), [timesteps.len()]);
    data.convert_dtype(if whole { DType::I64 } else { DType::F32 })
}
