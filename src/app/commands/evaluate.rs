//! `ragar eval`: methods against metrics on the test users.

use std::collections::BTreeMap;
use std::path::Path;

use image::RgbImage;

use crate::app::comparison::{
    Comparison, Drawn, Failure, Judges, MethodName, MethodResult, Places, Results, SetScores,
    Shown, panels, write,
};
use crate::app::config::METHOD;
use crate::app::exhibition::{Visitor, charts};
use crate::app::report::{Fact, ReportData, RowKind};
use crate::app::session::Session;
use crate::baselines::Method;
use crate::evaluation::metric::{Scores, mean_scores};
use crate::optimisation::Interrupt;

/// Draws for the test users with `methods`, judges, and writes tables, report and numbers to `out`.
pub fn run(
    session: &Session,
    run: &Path,
    methods: &[MethodName],
    out: Option<&Path>,
) -> anyhow::Result<()> {
    let started = std::time::Instant::now();
    let mut methods = methods.to_vec();
    let mut seen = Vec::new();
    methods.retain(|name| {
        let new = !seen.contains(name);
        seen.push(*name);
        new
    });
    // A comparison without RAGAR needs no run of it.
    let trained = run.join("config.toml").is_file() || methods.contains(&MethodName::Ragar);
    let config = match trained {
        true => session.config_of(run)?,
        false => session.config.clone(),
    };
    let out = out.map_or_else(|| run.join("eval"), Path::to_path_buf);
    let watcher = session.output.watcher();
    let interrupt = Interrupt::install();
    let comparison = Comparison::open(session, config, &methods, &watcher)?;
    let config = &comparison.config;
    config.save(&out, "eval", METHOD)?;
    let visitors = comparison.visitors()?;
    let judges = Judges::new(&comparison, &visitors, &watcher)?;
    let places = Places {
        run,
        out: &out,
        interrupt: &interrupt,
        progress: &watcher,
    };

    let catalogue = &comparison.data.folder().catalogue;
    let mut results = Results {
        users: visitors.iter().map(|v| v.sample.user.clone()).collect(),
        references: visitors
            .iter()
            .map(|v| catalogue[v.sample.reference].id.clone())
            .collect(),
        seeds: comparison.seeds(),
        methods: Vec::new(),
        differences: Vec::new(),
    };
    let judging = Judging {
        comparison: &comparison,
        judges: &judges,
    };
    results.methods.extend(judging.targets(&visitors)?);
    let mut galleries: Vec<(String, Drawn)> = Vec::new();
    comparison.each_method(&methods, &visitors, places, |method, drawn| {
        let judged = judging.method(method, &drawn, &results)?;
        for failure in judged.failures.iter().take(3) {
            let Failure { user, seed, reason } = failure;
            let label = method.label();
            session.output.note(format!(
                "{label} failed for user {user}, seed {seed}: {reason}"
            ));
        }
        results.methods.push(judged);
        if judging.is_shown(method) {
            let first = drawn.into_iter().map(|mut seeds| {
                seeds.truncate(1);
                seeds
            });
            galleries.push((method.label().to_string(), first.collect()));
        }
        Ok(())
    })?;
    results.compare(&config.evaluation.intervals);

    let report = ReportData {
        title: "Methods side by side".into(),
        introduction: "The same users, the same generator, the same latents; users are shown from the best to the worst of the main method.".into(),
        facts: vec![
            Fact::new("Command", session.command_line("eval")),
            Fact::new("Device", &comparison.devices.name),
            Fact::new("Users", visitors.len()),
            Fact::new("Pictures per user", results.seeds.len()),
            Fact::new("Data", config.data.folder.display()),
        ],
        tables: results.tables(&config.evaluation.intervals),
        charts: match methods.contains(&MethodName::Ragar) {
            true => charts(run),
            false => Vec::new(),
        },
        users: panels(&comparison, &visitors, &results, &galleries)?,
        seconds: vec![("Evaluation".into(), started.elapsed().as_secs_f64())],
        configuration: config.to_toml(METHOD)?,
    };
    write(&report, &results, &out)?;
    let page = out.join("report.html");
    let text = format!("{}\nReport: {}", report.tables_as_text(), page.display());
    session.output.result(text, &results)
}

/// Judges one method after the other.
struct Judging<'a> {
    comparison: &'a Comparison,
    judges: &'a Judges<'a>,
}

impl Judging<'_> {
    /// Floors are seen in the history and beside it already.
    fn is_shown(&self, method: &dyn Method) -> bool {
        RowKind::from(method.kind()) == RowKind::Method
    }

    /// The targets' own pictures, where every user has one: the ceiling.
    fn targets(&self, visitors: &[Visitor<'_>]) -> anyhow::Result<Option<MethodResult>> {
        let targets: Option<Vec<usize>> = visitors.iter().map(|v| v.history.target).collect();
        let Some(targets) = targets else {
            return Ok(None);
        };
        let pictures = targets
            .iter()
            .map(|item| Ok(vec![Ok(self.comparison.data.picture(*item)?)]))
            .collect::<anyhow::Result<Drawn>>()?;
        let (scores, sets, num_pictures) = self.judged(&pictures)?;
        Ok(Some(MethodResult {
            name: "target".into(),
            label: "The right answer's own picture".into(),
            kind: RowKind::Ceiling,
            scores,
            num_pictures,
            failures: Vec::new(),
            frechet: sets.clip_fid,
            fid: sets.fid,
        }))
    }

    fn method(
        &self,
        method: &dyn Method,
        drawn: &Drawn,
        results: &Results,
    ) -> anyhow::Result<MethodResult> {
        let (scores, sets, num_pictures) = self.judged(drawn)?;
        let users = results.users.iter().zip(drawn);
        let failures = users.flat_map(|(user, seeds)| {
            let seeds = results.seeds.iter().zip(seeds);
            seeds.filter_map(|(seed, drawn)| {
                Some(Failure {
                    user: user.clone(),
                    seed: *seed,
                    reason: drawn.as_ref().err()?.clone(),
                })
            })
        });
        Ok(MethodResult {
            name: method.name().into(),
            label: method.label().into(),
            kind: method.kind().into(),
            scores,
            num_pictures,
            failures: failures.collect(),
            frechet: sets.clip_fid,
            fid: sets.fid,
        })
    }

    /// A user's mean scores, what is said of all pictures together, and their number.
    fn judged(&self, drawn: &Drawn) -> anyhow::Result<(Vec<Scores>, SetScores, usize)> {
        let each = drawn.iter().enumerate().flat_map(|(user, seeds)| {
            let good = seeds.iter().filter_map(|picture| picture.as_ref().ok());
            good.map(move |picture: &RgbImage| Shown { user, picture })
        });
        let shown: Vec<Shown<'_>> = each.collect();
        let (judged, sets) = self.judges.judge(&shown)?;
        let mut by_user: BTreeMap<usize, Vec<Scores>> = BTreeMap::new();
        for (shown, scores) in shown.iter().zip(judged) {
            by_user.entry(shown.user).or_default().push(scores);
        }
        let scores = (0..drawn.len())
            .map(|user| {
                by_user
                    .get(&user)
                    .map_or_else(Scores::new, |all| mean_scores(all))
            })
            .collect();
        Ok((scores, sets, shown.len()))
    }
}

/// Writes the report and prints its tables.
pub fn show(session: &Session, report: &ReportData, out: &Path) -> anyhow::Result<()> {
    let page = report.write(out)?;
    let text = format!("{}\nReport: {}", report.tables_as_text(), page.display());
    session.output.result(text, report)
}
