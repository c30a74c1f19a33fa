//! `ragar demo`: the whole method on the shipped stickers and networks, in minutes.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;

use super::evaluate::show;
use super::train::{Parts, trainable};
use crate::app::assembly::{DataSet, Eyes, Generation, Language, Ranking, Workshop};
use crate::app::config::METHOD;
use crate::app::exhibition::{Exhibition, Visitor};
use crate::app::output::Output;
use crate::app::report::Fact;
use crate::app::session::Session;
use crate::data::history::Split;
use crate::optimisation::Interrupt;

/// What the demo changes in the defaults, so that it ends within ten minutes on two cores: `configs/tiny.toml` at a smaller
/// budget.
pub const BUDGET: &[&str] = &[
    "data.train_users=200",
    "keywords.pool.num_kept=2",
    "keywords.prompt=retrieved",
    "keywords.retrieved.num_kept=1",
    "preparation.reference_parts=1",
    "preference.retrieval_shift=true",
    "preference.mapper.d_model=128",
    "preference.mapper.num_encoder_layers=2",
    "preference.mapper.num_decoder_layers=2",
    "preference.mapper.dim_feedforward=512",
    "preference.calibrator.num_heads=4",
    "ranking.model.l2_weight=0.001",
    "ranking.model.contrastive_items=256",
    "ranking.training.learning_rate=0.005",
    "ranking.training.max_epochs=40",
    "ranking.training.evaluation_interval=8",
    "training.steps=40",
    "training.batch_size=8",
    "training.schedule.learning_rate=0.0003",
    "reflection.num_steps=6",
    "reflection.exploration=retrieved",
    "reflection.sigma=0.3",
    "reflection.common_noise=false",
    "reflection.rank_weight=20",
    "reflection.semantic_reward=0.1",
    "evaluation.users=100",
    "evaluation.shown=12",
    "inference.num_steps=16",
    "inference.candidates=4",
];

/// The same in seconds.
pub const QUICK: &[&str] = &[
    "data.train_users=8",
    "keywords.pool.num_kept=2",
    "keywords.prompt=retrieved",
    "keywords.retrieved.num_kept=1",
    "preparation.reference_parts=1",
    "preference.mapper.d_model=128",
    "preference.mapper.num_encoder_layers=1",
    "preference.mapper.num_decoder_layers=1",
    "preference.mapper.dim_feedforward=256",
    "preference.calibrator.num_heads=4",
    "ranking.training.learning_rate=0.005",
    "ranking.training.max_epochs=4",
    "ranking.training.evaluation_interval=4",
    "training.steps=4",
    "training.batch_size=2",
    "training.save_every=4",
    "reflection.num_steps=3",
    "evaluation.users=6",
    "evaluation.shown=6",
    "evaluation.intervals.num_resamples=200",
    "inference.num_steps=8",
    "inference.candidates=2",
];

/// Trains the ranking model, prepares, trains RAGAR, draws for test users, reports.
pub fn run(session: &Session, quick: bool, out: &Path) -> anyhow::Result<()> {
    let budget = if quick { QUICK } else { BUDGET };
    let mut config = session.config_over(budget)?;
    config.models.ranking = out.join("rank");
    let config = &config;
    let output = session.output;
    let devices = session.devices()?;
    let data = DataSet::open(&config.data, output)?;
    let watcher = output.watcher();
    let interrupt = Interrupt::install();
    fresh(out)?;
    let command = if quick { "demo --quick" } else { "demo" };
    config.save(out, command, METHOD)?;
    let mut clock = Clock::start(output);

    let frozen = &devices.frozen;
    let eyes = Eyes::open(&config.models, frozen)?;
    let generation = Generation::open(&config.models, frozen)?;
    let language = Language::open(&config.models, frozen)?;
    clock.lap("Loading");

    let rank = &config.models.ranking;
    let ranking = Ranking::train(config, &data, &eyes, rank, &devices, &watcher, &interrupt)?;
    clock.lap("Ranking model");

    let workshop = Workshop {
        devices,
        data,
        eyes,
        generation,
        language,
        ranking,
    };
    let data = &workshop.data;
    let learners = data.users(Split::Train, config.data.train_users);
    let testers = data.users(Split::Test, config.evaluation.users);
    let everyone = learners.iter().chain(&testers).copied();
    let items = workshop.prepare(config, everyone, &watcher)?;
    clock.lap("Captions and keywords");

    let learning = trainable(&workshop, config, &items, &learners, output)?;
    let visitors = Visitor::all(&workshop, config, &items, &testers, output)?;
    let train = out.join("train");
    config.save(&train, "train", METHOD)?;
    let parts = Parts {
        config,
        workshop: &workshop,
        held_out: None,
        accept_changes: false,
    };
    let model = parts.train(&learning, &train, &interrupt, &watcher)?;
    clock.lap("Training");

    let exhibition = Exhibition {
        config,
        workshop: &workshop,
        items: &items,
    };
    let works = exhibition.draw(&visitors, &model, &watcher)?;
    clock.lap("Drawing");
    let mut report = exhibition.report(&visitors, &works, Some(&train), &watcher)?;
    report.title = "RAGAR: stickers re-drawn to their users' tastes".into();
    report
        .facts
        .insert(0, Fact::new("Command", session.command_line(command)));
    clock.lap("Judging");
    report.seconds = clock.laps;
    show(session, &report, out)
}

/// The seconds of each part.
struct Clock {
    output: Output,
    since: Instant,
    laps: Vec<(String, f64)>,
}

impl Clock {
    fn start(output: Output) -> Self {
        Self {
            output,
            since: Instant::now(),
            laps: Vec::new(),
        }
    }

    fn lap(&mut self, part: &str) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.output.note(format!("{part}: {seconds:.1} s"));
        self.laps.push((part.to_string(), seconds));
        self.since = Instant::now();
    }
}

/// Clears what an earlier demo left in `out`; touches nothing else.
fn fresh(out: &Path) -> anyhow::Result<()> {
    let ours = std::fs::read_to_string(out.join("config.toml"))
        .is_ok_and(|text| text.starts_with("# The resolved configuration of `ragar demo"));
    for folder in ["rank", "train"].map(|name| out.join(name)) {
        if !folder.exists() {
            continue;
        }
        anyhow::ensure!(
            ours,
            "{} is there and no demo's: choose another --out",
            folder.display()
        );
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    Ok(())
}
