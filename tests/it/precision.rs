//! Frozen networks in half precision against the same in f32.

use burn::tensor::{DType, Device, Tensor};
use ragar::app::assembly::{Eyes, Generation, Language, preference};
use ragar::app::commands::DEMO_QUICK;
use ragar::app::config::RunConfig;
use ragar::generation::conditioning::TextEncoder as _;
use ragar::generation::generator::GenerateOptions;
use ragar::generation::noise::NoiseKey;
use ragar::generation::preference::{PreferenceModel, Reading};

use crate::support::{TestBackend, devices};

fn config(dtype: &str) -> RunConfig {
    let own = format!("models.dtype={dtype}");
    let arguments = DEMO_QUICK.iter().map(ToString::to_string).chain([own]);
    RunConfig::load(None, &arguments.collect::<Vec<_>>()).unwrap()
}

/// Half-precision types that the device under test computes in.
fn halves() -> Vec<&'static str> {
    use burn::tensor::backend::Backend as _;

    let device = devices().frozen;
    let has = |dtype| TestBackend::supports_dtype(&device, dtype);
    let all = [("f16", has(DType::F16)), ("bf16", has(DType::BF16))];
    let found = all.into_iter().filter(|(_, there)| *there);
    found.map(|(word, _)| word).collect()
}

fn noise<const D: usize>(
    stream: &'static str,
    shape: [usize; D],
    device: &Device<TestBackend>,
) -> Tensor<TestBackend, D> {
    let key = NoiseKey {
        seed: 3,
        stream,
        user: "u",
        item: "i",
        noise: 0,
        step: 0,
    };
    let values = key.normal(shape.iter().product());
    Tensor::from_data(burn::tensor::TensorData::new(values, shape), device)
}

/// Largest difference over the largest value.
fn apart<const D: usize>(one: Tensor<TestBackend, D>, other: Tensor<TestBackend, D>) -> f32 {
    assert_eq!(other.dtype(), DType::F32, "f32 outside of the networks");
    let values =
        |tensor: Tensor<TestBackend, D>| -> Vec<f32> { tensor.into_data().iter::<f32>().collect() };
    let (one, other) = (values(one), values(other));
    let largest = one.iter().fold(0f32, |most, value| most.max(value.abs()));
    let pairs = one.iter().zip(&other);
    pairs.fold(0f32, |most, (a, b)| match (a - b).abs() {
        difference if difference.is_finite() => most.max(difference),
        _ => f32::INFINITY,
    }) / largest
}

/// The mean difference of pixels in [−1, 1]: at an edge that moves a little single ones differ much.
fn mean_apart(one: Tensor<TestBackend, 4>, other: Tensor<TestBackend, 4>) -> f32 {
    assert_eq!(other.dtype(), DType::F32, "f32 outside of the networks");
    (one - other).abs().mean().into_scalar()
}

/// What an 11-bit and an 8-bit mantissa leave of the outputs of some twenty layers.
fn bound(word: &str) -> f32 {
    match word {
        "f16" => 0.02,
        _ => 0.15,
    }
}

#[test]
fn clip_and_the_generator_compute_nearly_the_same_in_half_the_memory() {
    let device = devices().frozen;
    let open = |word: &str| {
        let models = config(word).models;
        let eyes = Eyes::open(&models, &device).unwrap();
        (eyes, Generation::open(&models, &device).unwrap())
    };
    let (whole_eyes, whole) = open("f32");
    let options = GenerateOptions {
        num_steps: 4,
        guidance_scale: 2.0,
        ..Default::default()
    };
    let [channels, height, width] = whole.latent_shape;
    let pixels = noise("pixels", [2, 3, 64, 64], &device);
    let side = whole_eyes.clip.config.vision_config.image_size;
    assert_eq!(side, 64, "the pictures above are of CLIP's size");
    let draw = |eyes: &Eyes, generation: &Generation| {
        let text = generation.text(eyes);
        let states = text.encode(&["a flat hamburger", "a 3d fox"]).states;
        let empty = text.encode(&[""]).states;
        let latents = noise("latents", [2, channels, height, width], &device);
        let none = |_| Tensor::zeros([2, channels, height, width], &device);
        let generator = &generation.generator;
        let images = generator.generate(states.clone(), empty, latents, &none, &options);
        (states, images.unwrap())
    };
    let (states, images) = draw(&whole_eyes, &whole);
    let embeds = whole_eyes.clip.network.image_embeds(pixels.clone());
    for word in halves() {
        let (eyes, generation) = open(word);
        let stored = eyes.clip.network.visual_projection.weight.val().dtype();
        assert_ne!(stored, DType::F32, "{word}");
        assert_ne!(eyes.clip.fingerprint, whole_eyes.clip.fingerprint);
        let (half_states, half_images) = draw(&eyes, &generation);
        let half_embeds = eyes.clip.network.image_embeds(pixels.clone());
        for (what, apart) in [
            ("states", apart(states.clone(), half_states)),
            ("embeddings", apart(embeds.clone(), half_embeds)),
            // A tenth of the bound: these are means.
            ("images", 10.0 * mean_apart(images.clone(), half_images)),
        ] {
            println!("{word} {what}: {apart:.2e}");
            assert!(apart > 0.0, "{word} {what}: nothing was rounded");
            assert!(apart < bound(word), "{word} {what}: {apart}");
        }
    }
}

#[test]
fn the_adapter_trains_in_f32_over_a_language_model_in_half_precision() {
    let devices = devices();
    let open = |word: &str| -> PreferenceModel<TestBackend> {
        let config = config(word);
        let language = Language::open(&config.models, &devices.frozen).unwrap();
        let generation = Generation::open(&config.models, &devices.frozen).unwrap();
        let language = language.tracked();
        preference::fresh(&config, &language, &generation, &devices.train).unwrap()
    };
    let prompts = [(3..40).collect::<Vec<u32>>(), (5..30).collect()];
    let compute = |model: &PreferenceModel<TestBackend>| {
        let [tokens, width] = [32, 128];
        let global = noise("global", [2, tokens, width], &devices.train);
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let preference = model.forward(&Reading {
            prompts: &prompts,
            retrieved: noise("retrieved", [2, width], &devices.train),
            shift: None,
            global,
        });
        let loss = preference.multimodal.clone().powi_scalar(2).mean();
        let gradients = loss.backward();
        // `B` starts at zero: at first only it has a gradient.
        let update = model.llama.model.layers[0].self_attn.q_proj.lora.as_ref();
        let weight = &update.expect("an adapter").lora_B.weight;
        let gradient = weight.val().grad(&gradients).expect("a gradient");
        assert_eq!(weight.val().dtype(), DType::F32);
        (Tensor::from_inner(preference.multimodal.inner()), gradient)
    };
    let (states, gradient) = compute(&open("f32"));
    for word in halves() {
        let model = open(word);
        let stored = model.llama.model.embed_tokens.weight.val().dtype();
        assert_ne!(stored, DType::F32, "{word}");
        let (half_states, half_gradient) = compute(&model);
        for (what, apart) in [
            ("states", apart(states.clone(), half_states)),
            ("gradient", apart(gradient.clone(), half_gradient)),
        ] {
            println!("{word} {what}: {apart:.2e}");
            assert!(apart > 0.0, "{word} {what}: nothing was rounded");
            assert!(apart < bound(word), "{word} {what}: {apart}");
        }
    }
}

#[test]
fn a_language_model_is_shared_with_its_tracked_form() {
    let devices = devices();
    let config = config("f32");
    let language = Language::open(&config.models, &devices.frozen).unwrap();
    let tracked = language.tracked().model;
    let opened = Language::open(&config.models, &devices.train)
        .unwrap()
        .model;
    let ids = |device| Tensor::from_data([[5, 9, 2, 40]], device);
    let hidden = |model: &ragar::networks::llama::LlamaForCausalLm<TestBackend>| {
        let embedded = model.embed(ids(&devices.train));
        model.forward_hidden(embedded, None).into_data()
    };
    assert_eq!(hidden(&tracked), hidden(&opened));
}
