//! The training loop on small random checkpoints in the hub's format.

use std::path::Path;

use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor};
use ragar::generation::calibrator::{CalibratorConfig, Pool};
use ragar::generation::choice::Chooser as _;
use ragar::generation::conditioning::ClipTextEncoder;
use ragar::generation::generator::Generator;
use ragar::generation::mapper::MapperConfig;
use ragar::generation::noise::NoiseKey;
use ragar::generation::preference::{ConditioningShape, PreferenceConfig, PreferenceModel};
use ragar::generation::sample::Sample;
use ragar::optimisation::parameters::{NamedTensors, Selection, collect};
use ragar::optimisation::{Interrupt, Progress, Silent};
use ragar::pretrained::diffusion::PretrainedDiffusion;
use ragar::pretrained::{diffusion, llama};
use ragar::reflection::ReflectionConfig;
use ragar::reflection::choice::RewardChooser;
use ragar::reflection::discriminator::{Discriminator, VisualEncoder};
use ragar::reflection::reward::Judgement;
use ragar::reflection::rollout::Frozen;
use ragar::training::preference::{
    GuardConfig, MicroBatch, MicroBatchRule, Outcome, PreferenceTraining, TrainingConfig,
    TrainingError, Validation, ValidationConfig, Validator,
};

use crate::support::{StopAfter, TestBackend, devices, golden_dir};

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
        history_prompt: String::new(),
        retrieved: vec![],
        retrieved_captions: vec!["a dog".into(), "the cat".into()],
        reference_caption: "a cat".into(),
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
    validator: Option<Box<dyn Validator<TestBackend>>>,
    accept_changes: bool,
    retrieval: bool,
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
            validator: None,
            accept_changes: false,
            retrieval: false,
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
                references: None,
                latent_shape: [4, 8, 8],
                device: devices.frozen.clone(),
            },
            differentiable: None,
            training,
            reflection: &self.reflection,
            pool: Pool::Mean,
            origin: &[("generator".to_string(), "random".to_string())].into(),
            accept_changes: self.accept_changes,
            folder,
            validator: self.validator.as_deref(),
            interrupt,
            progress,
        }
        .run(model_with(training.seed, self.retrieval, &devices.train))
    }

    /// Trains without watching, to the end.
    fn finish(&self, folder: &Path, training: &TrainingConfig) -> PreferenceModel<TestBackend> {
        let run = self.train(folder, training, &Silent, &Interrupt::default());
        let (model, outcome) = run.unwrap();
        assert_eq!(outcome, Outcome::Finished);
        model
    }
}

fn model(seed: u64, device: &Device<TestBackend>) -> PreferenceModel<TestBackend> {
    model_with(seed, false, device)
}

fn model_with(
    seed: u64,
    retrieval: bool,
    device: &Device<TestBackend>,
) -> PreferenceModel<TestBackend> {
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
        retrieval_token: retrieval,
        retrieval_shift: retrieval,
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

    assert_eq!(values(&expected), values(&resumed), "parameters");
    assert_eq!(metrics(whole.path()), metrics(parts.path()), "metrics");
    assert_eq!(metrics(whole.path()).len(), 5);
}

/// The lines of `metrics.jsonl` without the times that no run repeats.
fn metrics(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        let fields = line.as_object_mut().unwrap();
        let timed = fields
            .keys()
            .filter(|key| key.starts_with("seconds_"))
            .count();
        assert_eq!(timed, 6, "{fields:?}");
        fields.retain(|key, _| !key.starts_with("seconds_"));
        line
    };
    text.lines().map(line).collect()
}

fn events(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("events.jsonl")).unwrap_or_default();
    let kind = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["kind"].as_str().unwrap().to_string()
    };
    text.lines().map(kind).collect()
}

fn values(model: &PreferenceModel<TestBackend>) -> NamedTensors {
    collect::<TestBackend, _>(model, Selection::Trainable)
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
fn a_changed_configuration_is_taken_up_when_told() {
    let mut world = World::new();
    let folder = tempfile::tempdir().unwrap();
    world.finish(folder.path(), &training(1));
    let longer = training(2);
    let error = world
        .train(folder.path(), &longer, &Silent, &Interrupt::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("training.steps was 1, is 2"), "{error}");
    world.accept_changes = true;
    world.finish(folder.path(), &longer);
    assert_eq!(metrics(folder.path()).len(), 2);
}

/// What a training said.
#[derive(Default)]
struct Notes(std::sync::Mutex<Vec<String>>);

impl Progress for Notes {
    fn begin(&self, _name: &str, _total: usize) {}
    fn advance(&self, _position: usize, _message: &str) {}
    fn end(&self) {}
    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.into());
    }
}

#[test]
fn a_run_that_began_with_too_much_at_once_can_go_on_with_less() {
    let mut world = World::new();
    let folder = tempfile::tempdir().unwrap();
    world.finish(folder.path(), &training(1));
    world.accept_changes = true;
    let go_on = |steps, rule| {
        let training = TrainingConfig {
            micro_batch: MicroBatch::Rule(rule),
            ..training(steps)
        };
        let notes = Notes::default();
        let run = world.train(folder.path(), &training, &notes, &Interrupt::default());
        assert_eq!(run.unwrap().1, Outcome::Finished);
        let notes = notes.0.into_inner().unwrap();
        notes.iter().any(|note| note.contains("fit at once"))
    };
    assert!(go_on(2, MicroBatchRule::Auto), "asked for, and probed");
    assert!(!go_on(3, MicroBatchRule::Auto), "found, and kept");
    assert!(!go_on(4, MicroBatchRule::Whole));
}

#[test]
fn a_batch_that_ruins_a_step_is_left_out_and_kept_for_a_look() {
    let mut world = World::new();
    world.samples[1].retrieved_preference[0] = f32::NAN;
    let folder = tempfile::tempdir().unwrap();
    let training = TrainingConfig {
        batch_size: 1,
        save_every: 2,
        ..training(6)
    };
    // Three users, two epochs: the bad one comes twice.
    let end = world.finish(folder.path(), &training);
    assert!(
        values(&end)
            .values()
            .all(|v| v.iter::<f32>().all(f32::is_finite)),
        "weights stay numbers"
    );
    assert_eq!(metrics(folder.path()).len(), 4);
    let rollbacks = events(folder.path())
        .iter()
        .filter(|e| *e == "rollback")
        .count();
    assert_eq!(rollbacks, 2);
    let replays: Vec<_> = std::fs::read_dir(folder.path().join("replay"))
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(replays.len(), 2);
    assert!(
        replays
            .iter()
            .all(|text| text.contains("user 1") && text.contains("calibration loss"))
    );
    // Each rollback halves the rate of what follows.
    let last = metrics(folder.path()).pop().unwrap();
    let rate = training
        .schedule
        .rate(last["step"].as_u64().unwrap() as usize, 6);
    let used = last["learning_rate"].as_f64().unwrap();
    assert!((used - rate / 4.0).abs() < 1e-12, "{used} of {rate}");
    // Again, from the same folder: nothing more happens.
    world.finish(folder.path(), &training);
    assert_eq!(metrics(folder.path()).len(), 4);
}

#[test]
fn a_run_that_ruins_itself_again_and_again_names_its_users_and_step() {
    let mut world = World::new();
    world.samples[0].retrieved_preference[0] = f32::NAN;
    world.samples.truncate(1);
    let folder = tempfile::tempdir().unwrap();
    let training = TrainingConfig {
        guards: GuardConfig {
            max_rollbacks: 1,
            ..GuardConfig::default()
        },
        ..training(9)
    };
    let error = world
        .train(folder.path(), &training, &Silent, &Interrupt::default())
        .unwrap_err()
        .to_string();
    for part in [
        "step 1",
        "user 0",
        "after 1 rollbacks",
        "replay",
        "calibration loss is NaN",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn micro_batches_and_segments_give_the_same_gradients() {
    let world = World::new();
    let trained = |training: TrainingConfig| {
        let folder = tempfile::tempdir().unwrap();
        let end = world.finish(folder.path(), &training);
        (values(&end), metrics(folder.path()))
    };
    let base = TrainingConfig {
        batch_size: 3,
        ..training(3)
    };
    let (whole, whole_log) = trained(base.clone());
    for (name, other) in [
        (
            "micro-batches of 1",
            TrainingConfig {
                micro_batch: MicroBatch::Users(1),
                ..base.clone()
            },
        ),
        (
            "micro-batches of 2",
            TrainingConfig {
                micro_batch: MicroBatch::Users(2),
                ..base.clone()
            },
        ),
        (
            "segments of 1 layer",
            TrainingConfig {
                segment_layers: 1,
                ..base.clone()
            },
        ),
        (
            "all of it, found by a probe",
            TrainingConfig {
                micro_batch: MicroBatch::Rule(MicroBatchRule::Auto),
                segment_layers: 1,
                ..base.clone()
            },
        ),
    ] {
        let (found, log) = trained(other);
        for (a, b) in whole_log.iter().zip(&log) {
            for key in ["loss", "rank", "gradient_norm"] {
                let (a, b) = (a[key].as_f64().unwrap(), b[key].as_f64().unwrap());
                assert!(
                    (a - b).abs() < 1e-5 + 1e-3 * a.abs(),
                    "{name}: {key} {a} {b}"
                );
            }
        }
        for (path, expected) in &whole {
            let moved: Vec<f32> = found[path].iter().collect();
            for (a, b) in expected.iter::<f32>().zip(moved) {
                // Adam's first steps are signs of gradients: those near zero may flip.
                assert!((a - b).abs() < 5e-4, "{name}: {path} {a} {b}");
            }
        }
    }
}

/// Scores that rise, then fall, with the learning rate's progress: by step.
struct Scripted(Vec<(usize, f64)>);

impl Validator<TestBackend> for Scripted {
    fn validate(
        &self,
        _model: &PreferenceModel<TestBackend>,
        step: usize,
    ) -> Result<Validation, String> {
        let score = self.0.iter().find(|(at, _)| *at == step);
        Ok(Validation {
            scores: [("rank_change".to_string(), score.ok_or("not asked")?.1)].into(),
            pictures: Vec::new(),
        })
    }
}

fn validated(every: usize, patience: usize) -> TrainingConfig {
    TrainingConfig {
        validation: ValidationConfig {
            every,
            patience,
            ..ValidationConfig::default()
        },
        ..training(6)
    }
}

#[test]
fn the_best_weights_of_validation_come_back() {
    let mut world = World::new();
    let short = tempfile::tempdir().unwrap();
    let until_best = TrainingConfig {
        // The same schedule as six steps have.
        steps: 6,
        ..validated(0, 0)
    };
    let interrupt = Interrupt::default();
    let (at_two, _) = world
        .train(
            short.path(),
            &until_best,
            &StopAfter(2, &interrupt),
            &interrupt,
        )
        .unwrap();

    world.validator = Some(Box::new(Scripted(vec![
        (0, 0.1),
        (2, 0.5),
        (4, 0.3),
        (6, 0.2),
    ])));
    let folder = tempfile::tempdir().unwrap();
    let best = world.finish(folder.path(), &validated(2, 0));
    assert_eq!(values(&best), values(&at_two));
    assert_eq!(metrics(folder.path()).len(), 6);
    let text = std::fs::read_to_string(folder.path().join("validation.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 4, "{text}");
    assert_eq!(events(folder.path()), ["best", "best", "finished"]);
}

#[test]
fn the_validation_of_the_untrained_model_survives_a_start_from_its_checkpoint() {
    let mut world = World::new();
    world.validator = Some(Box::new(Scripted(vec![(0, 0.1), (6, 0.2)])));
    let folder = tempfile::tempdir().unwrap();
    // As if it had been killed in its first step: raised before that is over.
    let interrupt = Interrupt::default();
    interrupt.raise();
    let training = validated(6, 0);
    let (_, outcome) = world
        .train(folder.path(), &training, &Silent, &interrupt)
        .unwrap();
    assert_eq!(outcome, Outcome::Interrupted);
    world.finish(folder.path(), &training);
    let text = std::fs::read_to_string(folder.path().join("validation.jsonl")).unwrap();
    let steps: Vec<u64> = text
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["step"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert_eq!(steps, [0, 6], "{text}");
}

#[test]
fn patience_ends_a_run_and_it_stays_ended() {
    let mut world = World::new();
    world.validator = Some(Box::new(Scripted(vec![(0, 0.5), (1, 0.4), (2, 0.3)])));
    let folder = tempfile::tempdir().unwrap();
    world.finish(folder.path(), &validated(1, 2));
    assert_eq!(metrics(folder.path()).len(), 2);
    world.finish(folder.path(), &validated(1, 2));
    assert_eq!(metrics(folder.path()).len(), 2, "not taken up again");
}

#[test]
fn a_score_that_is_none_is_refused_with_those_there_are() {
    let mut world = World::new();
    world.validator = Some(Box::new(Scripted(vec![(0, 0.5)])));
    let folder = tempfile::tempdir().unwrap();
    let mut training = validated(1, 0);
    training.validation.metric = "rank_chance".into();
    let error = world
        .train(folder.path(), &training, &Silent, &Interrupt::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("rank_chance") && error.contains("rank_change"),
        "{error}"
    );
}

#[test]
fn an_average_is_what_is_saved_and_resumes_to_the_same_numbers() {
    let world = World::new();
    let averaged = TrainingConfig {
        average_decay: 0.5,
        ..training(4)
    };
    let whole = tempfile::tempdir().unwrap();
    let expected = world.finish(whole.path(), &averaged);
    let last = world.finish(tempfile::tempdir().unwrap().path(), &training(4));
    assert_ne!(values(&expected), values(&last));

    let parts = tempfile::tempdir().unwrap();
    let interrupt = Interrupt::default();
    let stop = StopAfter(2, &interrupt);
    world
        .train(parts.path(), &averaged, &stop, &interrupt)
        .unwrap();
    let resumed = world.finish(parts.path(), &averaged);
    assert_eq!(values(&expected), values(&resumed));
}

#[test]
fn noise_of_its_own_changes_what_is_drawn_and_resumes_alike() {
    let mut world = World::new();
    let common = tempfile::tempdir().unwrap();
    world.finish(common.path(), &training(3));
    world.reflection.common_noise = false;
    let own = tempfile::tempdir().unwrap();
    world.finish(own.path(), &training(3));
    let reward = |folder: &Path| metrics(folder)[0]["reward"].as_f64().unwrap();
    assert_ne!(reward(common.path()), reward(own.path()));

    let parts = tempfile::tempdir().unwrap();
    let interrupt = Interrupt::default();
    let stop = StopAfter(1, &interrupt);
    world
        .train(parts.path(), &training(3), &stop, &interrupt)
        .unwrap();
    world.finish(parts.path(), &training(3));
    assert_eq!(metrics(own.path()), metrics(parts.path()));
}

#[test]
fn sigma_and_what_retrieval_adds_train_where_asked() {
    let mut world = World::new();
    world.reflection.learn_sigma = true;
    world.retrieval = true;
    let folder = tempfile::tempdir().unwrap();
    let end = world.finish(folder.path(), &training(4));
    let log = metrics(folder.path());
    let sigma = |line: &serde_json::Value| line["sigma"].as_f64().unwrap();
    assert!((sigma(&log[0]) - 0.1).abs() < 1e-6);
    assert_ne!(sigma(&log[0]), sigma(&log[3]));
    let after = values(&end);
    assert!(after.contains_key("log_sigma"));
    let before = values(&model_with(0, true, &devices().train));
    for name in ["retrieval_projection.weight", "retrieval_shares"] {
        assert_ne!(before[name], after[name], "{name}");
    }
    let share = |line: &serde_json::Value| line["retrieval_share"].as_f64().unwrap();
    assert_eq!(share(&log[0]), 0.0);
    assert_ne!(share(&log[3]), 0.0);
}

#[test]
fn without_exploration_nothing_is_drawn_and_the_rest_still_trains() {
    let mut world = World::new();
    world.reflection.num_noises = 0;
    let folder = tempfile::tempdir().unwrap();
    world.finish(folder.path(), &training(2));
    for line in metrics(folder.path()) {
        assert_eq!(line["rank"], 0.0);
        assert!(line["calibration"].as_f64().unwrap() > 0.0);
    }
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

#[test]
fn the_best_rewarded_drawing_is_kept() {
    let mut asked = sample(0);
    asked.reference_semantic = vec![1.0, 0.0, 0.0];
    let colours: [[f32; 3]; 3] = [[0.5, 0.0, 0.1], [-0.5, 1.0, 0.9], [0.2, 0.1, 0.1]];
    let images = colours.map(|colour| {
        let colour = Tensor::<TestBackend, 1>::from_data(colour, &devices().frozen);
        colour.reshape([1, 3, 1, 1]).expand([1, 3, 2, 2])
    });
    let kept = |order: [usize; 3], likeness| {
        let chooser = RewardChooser {
            visual: &Brightness,
            discriminator: &Brightness,
            likeness,
        };
        let shown = order.iter().chain(&[2, 2, 2]);
        let shown = shown.map(|place| images[*place].clone()).collect();
        chooser.choose(&[&asked, &asked], 3, Tensor::cat(shown, 0))
    };
    assert_eq!(
        kept([0, 1, 2], 0.0),
        [1, 0],
        "the brightest, the first in a tie"
    );
    assert_eq!(kept([1, 0, 2], 0.0), [0, 0]);
    assert_eq!(kept([0, 1, 2], 5.0), [0, 0], "the reddest");
}
