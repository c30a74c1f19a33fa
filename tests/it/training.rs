//! The training loop on small random checkpoints in the hub's format.

use std::path::Path;

use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor};
use ragar::generation::calibrator::{CalibratorConfig, Pool};
use ragar::generation::conditioning::ClipTextEncoder;
use ragar::generation::generator::Generator;
use ragar::generation::mapper::MapperConfig;
use ragar::generation::noise::NoiseKey;
use ragar::generation::preference::{ConditioningShape, PreferenceConfig, PreferenceModel};
use ragar::generation::sample::Sample;
use ragar::optimisation::parameters::{Selection, collect};
use ragar::optimisation::{Interrupt, Progress, Silent};
use ragar::pretrained::diffusion::PretrainedDiffusion;
use ragar::pretrained::{diffusion, llama};
use ragar::reflection::ReflectionConfig;
use ragar::reflection::discriminator::{Discriminator, VisualEncoder};
use ragar::reflection::reward::Judgement;
use ragar::reflection::step::Frozen;
use ragar::training::preference::{Outcome, PreferenceTraining, TrainingConfig, TrainingError};

use crate::support::{TestBackend, devices, golden_dir};

const WIDTH: usize = 32;

/// Mean colour as a feature, brightness as taste: enough to order images.
struct Brightness;

impl<B: Backend> VisualEncoder<B> for Brightness {
    fn encode(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        let [batch, channels, _, _] = images.dims();
        images.mean_dim(3).mean_dim(2).reshape([batch, channels])
    }
}

impl<B: Backend> Discriminator<B> for Brightness {
    fn judge(&self, _user: usize, _reference: usize, visual: Tensor<B, 2>) -> Vec<Judgement> {
        let scores = visual.mean_dim(1).into_data();
        let judged = |score| Judgement { score, rank: 1 };
        scores.iter::<f32>().map(judged).collect()
    }
}

fn sample(number: usize) -> Sample {
    let key = NoiseKey {
        seed: 5,
        stream: "sample",
        user: "u",
        item: "i",
        noise: number,
        step: 0,
    };
    let values = key.normal(2 * WIDTH);
    Sample {
        user: format!("user {number}"),
        user_index: number,
        reference: number,
        reference_id: format!("item {number}"),
        keywords: vec!["a".into()],
        summary: "a".into(),
        preference_prompt: String::new(),
        preference_ids: (1..4 + number as u32).collect(),
        global_prompt: ["a cat", "dogs", "the end"][number % 3].into(),
        retrieved: vec![],
        retrieved_preference: values[..WIDTH].to_vec(),
        reference_semantic: values[WIDTH..].to_vec(),
        reference_visual: vec![0.1, 0.2, 0.3],
    }
}

struct World {
    diffusion: PretrainedDiffusion<TestBackend>,
    generator: Generator<TestBackend>,
    samples: Vec<Sample>,
    reflection: ReflectionConfig,
}

impl World {
    fn new() -> Self {
        let device = devices().frozen;
        let folder = golden_dir("pipeline").join("model");
        let diffusion = diffusion::open::<TestBackend>(&folder, &device).unwrap();
        let generator = Generator::new(
            diffusion.unet.clone(),
            diffusion.vae.clone(),
            diffusion.scheduler.clone(),
        );
        Self {
            diffusion,
            generator,
            samples: (0..3).map(sample).collect(),
            reflection: ReflectionConfig {
                num_noises: 2,
                num_steps: 2,
                images_per_batch: 4,
                ..Default::default()
            },
        }
    }

    fn train(
        &self,
        folder: &Path,
        training: &TrainingConfig,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<(PreferenceModel<TestBackend>, Outcome), TrainingError> {
        let devices = devices();
        let encoder = &self.diffusion.text_encoder;
        let text = ClipTextEncoder::new(
            &encoder.network,
            None,
            &encoder.tokenizer,
            16,
            &devices.frozen,
        );
        PreferenceTraining::<TestBackend> {
            samples: &self.samples,
            frozen: Frozen {
                text: &text,
                generator: &self.generator,
                visual: &Brightness,
                discriminator: &Brightness,
                latent_shape: [4, 8, 8],
                device: devices.frozen.clone(),
            },
            training,
            reflection: &self.reflection,
            pool: Pool::Mean,
            folder,
            interrupt,
            progress,
        }
        .run(model(training.seed, &devices.train))
    }
}

fn model(seed: u64, device: &Device<TestBackend>) -> PreferenceModel<TestBackend> {
    let folder = golden_dir("llama-mha").join("model");
    let llama = llama::load::<TestBackend>(&folder, device).unwrap().model;
    let config = PreferenceConfig {
        image_tokens: 2,
        mapper: MapperConfig {
            d_model: 16,
            nhead: 2,
            num_encoder_layers: 1,
            num_decoder_layers: 1,
            dim_feedforward: 32,
        },
        calibrator: CalibratorConfig {
            num_heads: 4,
            ..Default::default()
        },
        ..Default::default()
    };
    let shape = ConditioningShape {
        tokens: 16,
        width: WIDTH,
    };
    config.init(llama, shape, seed, device).unwrap()
}

fn training(steps: usize) -> TrainingConfig {
    TrainingConfig {
        steps,
        batch_size: 2,
        save_every: 100,
        ..Default::default()
    }
}

/// Raises an interrupt when a step is reached.
struct StopAfter<'a>(usize, &'a Interrupt);

impl Progress for StopAfter<'_> {
    fn begin(&self, _name: &str, _total: usize) {}
    fn advance(&self, position: usize, _message: &str) {
        if position == self.0 {
            self.1.raise();
        }
    }
    fn end(&self) {}
    fn note(&self, _text: &str) {}
}

#[test]
fn an_interrupted_run_resumes_to_the_same_numbers() {
    let world = World::new();
    let whole = tempfile::tempdir().unwrap();
    let parts = tempfile::tempdir().unwrap();
    let training = training(5);
    let (expected, outcome) = world
        .train(whole.path(), &training, &Silent, &Interrupt::default())
        .unwrap();
    assert_eq!(outcome, Outcome::Finished);

    let interrupt = Interrupt::default();
    let (_, outcome) = world
        .train(
            parts.path(),
            &training,
            &StopAfter(2, &interrupt),
            &interrupt,
        )
        .unwrap();
    assert_eq!(outcome, Outcome::Interrupted);
    let (resumed, _) = world
        .train(parts.path(), &training, &Silent, &Interrupt::default())
        .unwrap();

    let values = |model| collect::<TestBackend, _>(model, Selection::Trainable);
    assert_eq!(values(&expected), values(&resumed), "parameters");
    let log = |folder: &Path| std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    assert_eq!(log(whole.path()), log(parts.path()), "metrics");
    assert_eq!(log(whole.path()).lines().count(), 5);
}

#[test]
fn only_what_should_train_trains_and_all_of_it_does() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let start = model(0, &devices().train);
    let (end, _) = world
        .train(folder.path(), &training(3), &Silent, &Interrupt::default())
        .unwrap();
    let before = collect::<TestBackend, _>(&start, Selection::All);
    let after = collect::<TestBackend, _>(&end, Selection::All);
    let trained = [
        "lora",
        "image_tokens",
        "modal_mapper",
        "text_projection",
        "calibrator",
    ];
    for (name, value) in &before {
        let should = trained.iter().any(|part| name.contains(part));
        let moved = value != &after[name];
        assert_eq!(moved, should, "{name}: moved {moved}");
    }
    assert_eq!(before.len(), after.len());
}

#[test]
fn another_seed_is_another_configuration() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let quiet = Interrupt::default();
    world
        .train(folder.path(), &training(1), &Silent, &quiet)
        .unwrap();
    let other = TrainingConfig {
        seed: 1,
        ..training(1)
    };
    let error = world
        .train(folder.path(), &other, &Silent, &quiet)
        .unwrap_err();
    assert!(
        error.to_string().contains("another configuration"),
        "{error}"
    );
}

#[test]
fn a_loss_that_is_no_number_names_its_users_and_step() {
    let mut world = World::new();
    world.samples[0].retrieved_preference[0] = f32::NAN;
    world.samples.truncate(1);
    let folder = tempfile::tempdir().unwrap();
    let error = world
        .train(folder.path(), &training(2), &Silent, &Interrupt::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("step 0") && error.contains("user 0"),
        "{error}"
    );
}

#[test]
fn no_sample_is_an_error() {
    let mut world = World::new();
    world.samples.clear();
    let folder = tempfile::tempdir().unwrap();
    let error = world
        .train(folder.path(), &training(2), &Silent, &Interrupt::default())
        .unwrap_err();
    assert!(matches!(error, TrainingError::Empty), "{error}");
}
