//! This program's side of `benches/compare/reflection.py`: a whole reflection training step, once per line that arrives.
//!
//! `<folder> <device> <threads> [key=value ...]`: opens the demo's networks and data under the typed settings, lets the ranking
//! model learn for one epoch (how well it judges changes no time), leaves in the folder what another implementation cannot
//! know by itself, takes [`CHECKED`] steps and leaves their rewards, losses and weights, says `ready <seconds of loading>`;
//! then answers every line of input with the seconds that one more step took, and at its end with the largest resident memory
//! of the steps in MiB.

mod exchange;

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::backend::Backend as _;
use ragar::app::assembly::{
    DataSet, Eyes, Generation, Language, Ranking, features, preference, samples,
};
use ragar::app::backend::{self, Backend, Devices};
use ragar::app::commands::DEMO_BUDGET;
use ragar::app::config::RunConfig;
use ragar::app::output::Output;
use ragar::app::pool::in_pool;
use ragar::data::history::Split;
use ragar::generation::conditioning::RememberingTextEncoder;
use ragar::generation::preference::PreferenceModel;
use ragar::generation::sample::Sample;
use ragar::optimisation::parameters::{Selection, collect};
use ragar::optimisation::{AdamW, Interrupt};
use ragar::reflection::memory::Memory;
use ragar::reflection::rollout::Frozen;
use ragar::reflection::step::{Settings, Step, step};

use exchange::{CheckedStep, Exchange};

/// Steps whose results must agree. The first learns from an output projection of zeros: only later ones show what came back
/// through the whole preference model.
const CHECKED: usize = 3;

/// What is opened once and stays as it is.
struct Opened {
    eyes: Eyes,
    generation: Generation,
    language: Language,
    ranking: Ranking,
    batch: Vec<Sample>,
}

/// What reads pictures' captions, data folder and items has done its work when this returns, and is let go of.
fn open(config: &RunConfig, devices: &Devices) -> anyhow::Result<Opened> {
    let output = Output {
        json: false,
        quiet: true,
    };
    let watcher = output.watcher();
    let frozen = &devices.frozen;
    let data = DataSet::open(&config.data, output)?;
    let eyes = Eyes::open(&config.models, frozen)?;
    let generation = Generation::open(&config.models, frozen)?;
    let language = Language::open(&config.models, frozen)?;
    let folder = tempfile::tempdir()?;
    let interrupt = Interrupt::default();
    let rank = folder.path().join("rank");
    let ranking = Ranking::train(config, &data, &eyes, &rank, devices, &watcher, &interrupt)?;
    let size = config.training.batch_size;
    // Some have a reference that the ranking model does not know.
    let users = data.users(Split::Train, 2 * size);
    let words = samples::items_of(&users);
    let items = features::prepare(config, &data, &eyes, &language, &words, frozen, &watcher)?;
    let row = |user: &str| ranking.user(user);
    let found = samples::samples(config, &data, &language, &items, row, &users, output)?;
    let batch: Vec<Sample> = found
        .into_iter()
        .map(|(_, sample)| sample)
        .filter(|sample| ranking.discriminator.covers(sample.reference))
        .take(size)
        .collect();
    anyhow::ensure!(batch.len() == size, "fewer users than one batch");
    Ok(Opened {
        eyes,
        generation,
        language,
        ranking,
        batch,
    })
}

/// A training in progress.
struct Training<'a> {
    config: &'a RunConfig,
    frozen: Frozen<'a, Backend>,
    batch: Vec<&'a Sample>,
    model: Option<PreferenceModel<Backend>>,
    optimizer: AdamW<Backend>,
    memory: Memory,
    number: usize,
}

impl Training<'_> {
    /// One step as `ragar train` takes it; with `record`, what came of it.
    fn step(&mut self, record: bool) -> anyhow::Result<Option<CheckedStep>> {
        let settings = Settings {
            reflection: &self.config.reflection,
            pool: self.config.preference.calibrator.pool,
            seed: self.config.training.seed,
            micro_batch: 0,
            segment_layers: self.config.training.segment_layers,
        };
        let model = self.model.take().expect("put back after every step");
        let Step {
            gradients,
            parts,
            rewards,
            ..
        } = step(
            &model,
            &self.frozen,
            None,
            &mut self.memory,
            &self.batch,
            settings,
            self.number,
        )?;
        let rate = self.config.training.schedule.learning_rate;
        let (model, norm) = self.optimizer.apply(model, gradients, rate);
        self.model = Some(model);
        self.number += 1;
        Ok(record.then(|| CheckedStep {
            losses: [parts.loss, parts.rank, parts.calibration, parts.semantic],
            gradient_norm: norm.into_data().iter::<f32>().next().unwrap_or(f32::NAN),
            rewards,
        }))
    }
}

/// The largest resident memory of this process since the last call of [`forget_peak`], in MiB.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

/// What was needed to get ready is no part of a step. A kernel that refuses leaves the larger number.
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn run(folder: &Path, device: &str, typed: &[String]) -> anyhow::Result<()> {
    let fixed = ["ranking.training.max_epochs=1".to_string()];
    let values = DEMO_BUDGET.iter().map(ToString::to_string);
    let values: Vec<String> = values.chain(fixed).chain(typed.to_vec()).collect();
    let config = RunConfig::load(None, &values)?;
    exchange::check(&config)?;

    let devices = backend::open(device)?;
    let started = Instant::now();
    let opened = open(&config, &devices)?;
    let (generation, ranking) = (&opened.generation, &opened.ranking);
    let tracked = opened.language.tracked();
    let model = preference::fresh(&config, &tracked, generation, &devices.train)?;
    let exchange = Exchange {
        folder,
        config: &config,
        device: &devices.frozen,
    };
    exchange.write(&model, ranking, &opened.batch, generation.latent_shape)?;

    let text = generation.text(&opened.eyes);
    let text = RememberingTextEncoder::new(&text, config.training.remembered_prompts);
    let visual = opened.eyes.encoder();
    let mut training = Training {
        config: &config,
        frozen: Frozen {
            text: &text,
            generator: &generation.generator,
            visual: &visual,
            discriminator: &ranking.discriminator,
            references: None,
            latent_shape: generation.latent_shape,
            device: devices.frozen.clone(),
        },
        batch: opened.batch.iter().collect(),
        model: Some(model),
        optimizer: AdamW::new(config.training.optimizer.clone()),
        memory: Memory::default(),
        number: 0,
    };
    Backend::sync(&devices.frozen).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let loading = started.elapsed().as_secs_f64();

    let mut checked = Vec::new();
    for _ in 0..CHECKED {
        checked.extend(training.step(true)?);
    }
    let model = training.model.as_ref().expect("put back after every step");
    exchange.leave(
        &checked,
        &collect::<Backend, _>(model, Selection::Trainable),
    )?;
    forget_peak();
    println!("ready {loading:.4}");
    for line in std::io::stdin().lock().lines() {
        line?;
        let started = Instant::now();
        training.step(false)?;
        Backend::sync(&devices.frozen).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        println!("{:.6}", started.elapsed().as_secs_f64());
    }
    println!("{:.1}", peak_memory());
    Ok(())
}

fn main() -> anyhow::Result<()> {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let [folder, device, threads, typed @ ..] = arguments.as_slice() else {
        println!("run by benches/compare/reflection.py");
        return Ok(());
    };
    in_pool(Some(threads.parse()?), || {
        run(&PathBuf::from(folder), device, typed)
    })
}
