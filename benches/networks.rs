//! What a drawing costs, part by part, on the shipped tiny family: `cargo bench` (`--features tch` and others to compare).
//!
//! The device is `RAGAR_BENCH_DEVICE`, by default `flex`. Timings of one machine say little: compare devices, or two
//! versions of the code, in one sitting.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use burn::tensor::backend::Backend as _;
use burn::tensor::{Device, Tensor};
use criterion::{Criterion, criterion_group};
use ragar::app::backend::{self, Backend};
use ragar::app::pool::in_pool;
use ragar::pretrained::clip::open_vision_model;
use ragar::pretrained::diffusion::{open_unet, open_vae};
use ragar::retrieval::correlation::retrieve;

fn device() -> Device<Backend> {
    let name = std::env::var("RAGAR_BENCH_DEVICE").unwrap_or_else(|_| "flex".into());
    backend::open(&name)
        .expect("RAGAR_BENCH_DEVICE must be usable")
        .frozen
}

fn models() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/models/tiny"))
}

/// Runs `work` to its end on the device.
fn finished<const D: usize>(device: &Device<Backend>, work: Tensor<Backend, D>) {
    black_box(work);
    Backend::sync(device).expect("the device must answer");
}

fn networks(criterion: &mut Criterion) {
    let device = device();
    let zeros = |shape: [usize; 4]| Tensor::<Backend, 4>::zeros(shape, &device);

    // A batch of 8 with its unconditional half, as classifier-free guidance asks for.
    let folder = models().join("diffusion/unet");
    let (config, unet) = open_unet::<Backend>(&folder, &device).expect("the shipped UNet");
    let latents = zeros([16, 4, 16, 16]);
    let timesteps = Tensor::<Backend, 1>::full([16], 500.0, &device);
    let context = Tensor::<Backend, 3>::zeros([16, 32, config.cross_attention_dim], &device);
    criterion.bench_function("unet step, 8 images guided", |bencher| {
        bencher.iter(|| {
            let states = (latents.clone(), timesteps.clone(), context.clone());
            finished(&device, unet.forward(states.0, states.1, states.2));
        });
    });

    let (_, vae) =
        open_vae::<Backend>(&models().join("diffusion/vae"), &device).expect("the shipped VAE");
    let latents = zeros([8, 4, 16, 16]);
    criterion.bench_function("vae decode, 8 images", |bencher| {
        bencher.iter(|| finished(&device, vae.decode(latents.clone())));
    });

    let (_, tower) =
        open_vision_model::<Backend>(&models().join("clip"), &device).expect("the shipped CLIP");
    let pixels = zeros([8, 3, 64, 64]);
    criterion.bench_function("clip vision tower, 8 images", |bencher| {
        bencher.iter(|| finished(&device, tower.forward(pixels.clone()).pooler_output));
    });
}

fn retrieval(criterion: &mut Criterion) {
    let embedding = |seed: usize| -> Vec<f32> {
        (0..512)
            .map(|place| ((place * 31 + seed * 17) % 101) as f32 - 50.0)
            .collect()
    };
    let history: Vec<Vec<f32>> = (1..=200).map(embedding).collect();
    let history: Vec<&[f32]> = history.iter().map(Vec::as_slice).collect();
    let reference = embedding(0);
    criterion.bench_function("retrieval, 5 of 200 items", |bencher| {
        bencher.iter(|| retrieve(black_box(&history), black_box(&reference), 5));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .measurement_time(Duration::from_secs(8));
    targets = networks, retrieval
}

fn main() {
    // As the program computes.
    in_pool(None, || {
        benches();
        Criterion::default().configure_from_args().final_summary();
    });
}
