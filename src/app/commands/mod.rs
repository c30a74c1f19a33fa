//! One file per subcommand. Each reads the session, calls the rooms below and reports.

mod budget;
mod data;
mod demo;
mod devices;
mod evaluate;
mod export;
mod generate;
mod model;
mod prepare;
mod pretrain;
mod rank;
mod report;
mod study;
mod train;

pub use demo::{BUDGET as DEMO_BUDGET, QUICK as DEMO_QUICK};

use super::cli::{Command, DataCommand, ModelCommand, RankCommand, StudyCommand};
use super::session::Session;

/// Does what was asked.
///
/// # Errors
/// Whatever the command met, with the file or key concerned.
pub fn run(command: &Command, session: &Session) -> anyhow::Result<()> {
    match command {
        Command::Data(DataCommand::Stickers { packages, out }) => {
            data::stickers(session, packages, out)
        }
        Command::Data(DataCommand::Check { dir }) => data::check(session, dir),
        Command::Data(DataCommand::Load(command)) => data::load(session, command),
        Command::Data(DataCommand::Pictures(arguments)) => data::pictures(session, arguments),
        Command::Demo { quick, out } => demo::run(session, *quick, out),
        Command::Prepare => prepare::run(session),
        Command::Rank(RankCommand::Train { out }) => rank::train(session, out.as_deref()),
        Command::Rank(RankCommand::Eval { model }) => rank::evaluate(session, model.as_deref()),
        Command::Rank(RankCommand::Score {
            model,
            user,
            reference,
            images,
        }) => rank::score(
            session,
            model.as_deref(),
            user,
            reference.as_deref(),
            images,
        ),
        Command::Study(StudyCommand::Assumptions { out, seeds }) => {
            study::assumptions(session, out, *seeds)
        }
        Command::Study(StudyCommand::Ablation { out, seeds, only }) => {
            study::ablation(session, out, *seeds, only)
        }
        Command::Study(StudyCommand::Gradient {
            out,
            samples,
            repeats,
        }) => study::gradient(session, out, *samples, *repeats),
        Command::Study(StudyCommand::Judge { models, users }) => {
            study::judge(session, models, *users)
        }
        Command::Study(StudyCommand::Augmentation {
            run,
            methods,
            drawn,
            out,
            seeds,
        }) => study::augmentation(session, run, methods, drawn.as_deref(), out, *seeds),
        Command::Train {
            out,
            accept_changes,
        } => train::run(session, out, *accept_changes),
        Command::Generate {
            run,
            user,
            reference,
            out,
        } => generate::run(session, run, user.as_deref(), reference.as_deref(), out),
        Command::Budget => budget::run(session),
        Command::Report { run, out } => report::run(session, run, out.as_deref()),
        Command::Export {
            run,
            out,
            with_models,
        } => export::run(session, run, out, *with_models),
        Command::Eval { run, methods, out } => evaluate::run(session, run, methods, out.as_deref()),
        Command::Pretrain {
            network,
            out,
            extra,
            init,
        } => pretrain::run(
            session,
            *network,
            out.as_deref(),
            extra.as_deref(),
            init.as_deref(),
        ),
        Command::Devices => devices::run(session),
        Command::Model(ModelCommand::Inspect { path, tensors }) => {
            model::inspect(session, path, *tensors)
        }
        Command::Model(ModelCommand::Fetch {
            repository,
            revision,
            variant,
        }) => model::fetch(session, repository, revision, variant.as_deref()),
        Command::Model(ModelCommand::Check {
            dir,
            golden,
            adapter,
            dtype,
            atol,
            rtol,
        }) => model::check(
            session,
            &model::CheckOptions {
                model: dir.as_deref(),
                golden,
                adapter: adapter.as_deref(),
                dtype: *dtype,
                atol: *atol,
                rtol: *rtol,
            },
        ),
        Command::Model(ModelCommand::Convert { from, out, dtype }) => {
            model::convert(session, from, out, *dtype)
        }
    }
}
