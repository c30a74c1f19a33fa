//! Where the time of one reflection step goes, by the step's own clock: `cargo bench --bench training_step`.
//!
//! The demo's networks, data and budget, and over it what is typed: `-- training.batch_size=8 reflection.num_noises=5`. The device
//! is `RAGAR_BENCH_DEVICE`, by default `flex`. The ranking model learns for one epoch, in a folder that is removed: how well
//! it judges changes no time. Two batches take turns; printed are the median and the middle half over the steps after the first
//! two, which draw the keyword images and fill caches.

use std::time::Instant;

use burn::tensor::backend::Backend as _;
use ragar::app::assembly::{
    DataSet, Eyes, Generation, Language, Ranking, features, preference, samples,
};
use ragar::app::backend::{self, Backend};
use ragar::app::commands::DEMO_BUDGET;
use ragar::app::config::RunConfig;
use ragar::app::output::Output;
use ragar::app::pool::in_pool;
use ragar::data::history::Split;
use ragar::generation::conditioning::RememberingTextEncoder;
use ragar::generation::sample::Sample;
use ragar::optimisation::{AdamW, Interrupt};
use ragar::reflection::clock::{Clock, Seconds};
use ragar::reflection::memory::Memory;
use ragar::reflection::rollout::Frozen;
use ragar::reflection::step::{Settings, Step, step};

const WARM: usize = 2;
const STEPS: usize = 12;

/// Lower quartile, median, upper quartile.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    [at(0.25), at(0.5), at(0.75)]
}

fn main() -> anyhow::Result<()> {
    in_pool(None, measure)
}

fn measure() -> anyhow::Result<()> {
    // Cargo adds `--bench`.
    let typed = std::env::args().skip(1).filter(|word| word != "--bench");
    let fixed = ["ranking.training.max_epochs=1".to_string()];
    let values = DEMO_BUDGET.iter().map(ToString::to_string);
    let values: Vec<String> = values.chain(fixed).chain(typed).collect();
    let config = RunConfig::load(None, &values)?;

    let name = std::env::var("RAGAR_BENCH_DEVICE").unwrap_or_else(|_| "flex".into());
    let devices = backend::open(&name)?;
    let output = Output {
        json: false,
        quiet: true,
    };
    let watcher = output.watcher();
    let folder = tempfile::tempdir()?;
    let data = DataSet::open(&config.data, output)?;
    let eyes = Eyes::open(&config.models, &devices.frozen)?;
    let generation = Generation::open(&config.models, &devices.frozen)?;
    let language = Language::open(&config.models, &devices.frozen)?;
    let rank = folder.path().join("rank");
    let interrupt = Interrupt::install();
    let ranking = Ranking::train(&config, &data, &eyes, &rank, &devices, &watcher, &interrupt)?;
    let batch_size = config.training.batch_size;
    let users = data.users(Split::Train, batch_size * WARM);
    let words = samples::items_of(&users);
    let frozen = &devices.frozen;
    let items = features::prepare(&config, &data, &eyes, &language, &words, frozen, &watcher)?;
    let row = |user: &str| ranking.user(user);
    let samples = samples::samples(&config, &data, &language, &items, row, &users, output)?;
    let samples: Vec<&Sample> = samples
        .iter()
        .map(|(_, sample)| sample)
        .filter(|sample| ranking.discriminator.covers(sample.reference))
        .collect();
    anyhow::ensure!(samples.len() >= batch_size, "fewer users than one batch");

    let tracked = language.tracked();
    let mut model = preference::fresh(&config, &tracked, &generation, &devices.train)?;
    let text = generation.text(&eyes);
    let text = RememberingTextEncoder::new(&text, config.training.remembered_prompts);
    let visual = eyes.encoder();
    let frozen = Frozen {
        text: &text,
        generator: &generation.generator,
        visual: &visual,
        discriminator: &ranking.discriminator,
        references: None,
        latent_shape: generation.latent_shape,
        device: devices.frozen.clone(),
    };
    let settings = Settings {
        reflection: &config.reflection,
        pool: config.preference.calibrator.pool,
        seed: config.training.seed,
        micro_batch: 0,
        segment_layers: config.training.segment_layers,
    };
    let mut optimizer = AdamW::<Backend>::new(config.training.optimizer.clone());
    let mut memory = Memory::default();
    let mut taken: Vec<(f64, Seconds)> = Vec::new();
    for number in 0..WARM + STEPS {
        let places = (0..batch_size).map(|place| (number * batch_size + place) % samples.len());
        let batch: Vec<&Sample> = places.map(|place| samples[place]).collect();
        let started = Instant::now();
        let Step {
            gradients,
            mut seconds,
            ..
        } = step(&model, &frozen, None, &mut memory, &batch, settings, number)?;
        let mut clock = Clock::<Backend>::start(&devices.frozen);
        (model, _) = optimizer.apply(model, gradients, 1e-4);
        seconds.update = clock.lap();
        Backend::sync(&devices.frozen).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        taken.push((started.elapsed().as_secs_f64(), seconds));
    }
    let taken = &taken[WARM..];

    let [low, whole, high] = quartiles(taken.iter().map(|(whole, _)| *whole).collect());
    println!(
        "A step of {batch_size} samples, {} noises, {} denoising steps on {name}, {STEPS} steps: {whole:.3} s ({low:.3} … {high:.3})\n",
        config.reflection.num_noises, config.reflection.num_steps
    );
    println!("| part | seconds (half of the steps) | share |\n|---|---|---|");
    for (place, (part, _)) in Seconds::default().parts().iter().enumerate() {
        let [low, median, high] =
            quartiles(taken.iter().map(|(_, s)| s.parts()[place].1).collect());
        let share = quartiles(
            taken
                .iter()
                .map(|(whole, s)| s.parts()[place].1 / whole)
                .collect(),
        );
        println!(
            "| {part} | {median:.4} ({low:.4} … {high:.4}) | {:.0} % |",
            100.0 * share[1]
        );
    }
    let outside = taken.iter().map(|(whole, s)| 1.0 - s.total() / whole);
    println!(
        "| outside the clock | | {:.1} % |",
        100.0 * quartiles(outside.collect())[1]
    );
    Ok(())
}
