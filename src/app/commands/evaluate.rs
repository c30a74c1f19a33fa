//! `ragar eval`: methods against metrics on the test users.

use std::collections::BTreeMap;
use std::path::Path;

use image::RgbImage;

use crate::app::comparison::{
    Comparison, Drawn, Failure, Judges, MethodName, MethodResult, Places, Results, Shown, Tally,
    panels, write,
};
use crate::app::config::METHOD;
use crate::app::exhibition::{Visitor, charts};
use crate::app::output::Output;
use crate::app::report::{Fact, ReportData, RowKind};
use crate::app::session::Session;
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
        groups: comparison.groups(&visitors),
        named_by: judges.named_by(),
        seeds: comparison.seeds(),
        methods: Vec::new(),
        differences: Vec::new(),
    };
    let judging = Judging {
        comparison: &comparison,
        judges: &judges,
    };
    results.methods.extend(judging.targets(&visitors)?);
    let mut open: Option<Judged> = None;
    let kept = comparison.each_method(&methods, &visitors, places, |batch| {
        let method = batch.method;
        if open
            .as_ref()
            .is_none_or(|judged| judged.result.name != method.name())
        {
            results
                .methods
                .extend(open.take().map(|judged| judging.closed(judged)));
            let kind = RowKind::from(method.kind());
            open = Some(judging.opened(method.name(), method.label(), kind));
        }
        if let Some(judged) = &mut open {
            judging.take(judged, batch.first, &batch.drawn, &results, session.output)?;
        }
        Ok(())
    })?;
    results
        .methods
        .extend(open.take().map(|judged| judging.closed(judged)));
    results.compare(&config.evaluation.intervals);

    let report = ReportData {
        title: "Methods side by side".into(),
        introduction: "The same users, the same generator, the same latents; users are shown from the best to the worst of the main method.".into(),
        facts: vec![
            Fact::new("Command", session.command_line("eval")),
            Fact::new("Device", &comparison.devices.name),
            Fact::new("Users", visitors.len()),
            Fact::new("Pictures per user", results.seeds.len()),
            Fact::new("Drawings, one kept", config.inference.candidates),
            Fact::new("Data", config.data.folder.display()),
        ],
        tables: results.tables(&config.evaluation.intervals),
        charts: match methods.contains(&MethodName::Ragar) {
            true => charts(run),
            false => Vec::new(),
        },
        users: panels(&comparison, &visitors, &results, &kept)?,
        seconds: vec![("Evaluation".into(), started.elapsed().as_secs_f64())],
        configuration: config.to_toml(METHOD)?,
        ..ReportData::default()
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

/// A method whose pictures are being judged.
struct Judged {
    result: MethodResult,
    tally: Tally,
}

impl Judging<'_> {
    /// Nothing judged yet.
    fn opened(&self, name: &str, label: &str, kind: RowKind) -> Judged {
        Judged {
            result: MethodResult {
                name: name.into(),
                label: label.into(),
                kind,
                scores: Vec::new(),
                num_pictures: 0,
                failures: Vec::new(),
                frechet: None,
                fid: None,
            },
            tally: self.judges.tally(),
        }
    }

    /// With what is said of all pictures together.
    fn closed(&self, judged: Judged) -> MethodResult {
        let sets = self.judges.sets(&judged.tally);
        MethodResult {
            frechet: sets.clip_fid,
            fid: sets.fid,
            ..judged.result
        }
    }

    /// Judges the pictures of the users from `first` on: a user's scores are means, and failures are listed.
    fn take(
        &self,
        judged: &mut Judged,
        first: usize,
        drawn: &Drawn,
        results: &Results,
        output: Output,
    ) -> anyhow::Result<()> {
        let users = drawn.iter().enumerate();
        let shown: Vec<Shown<'_>> = users
            .flat_map(|(place, seeds)| {
                let good = seeds.iter().filter_map(|picture| picture.as_ref().ok());
                good.map(move |picture: &RgbImage| Shown {
                    user: first + place,
                    picture,
                })
            })
            .collect();
        let scores = self.judges.judge(&shown, &mut judged.tally)?;
        let mut by_user: BTreeMap<usize, Vec<Scores>> = BTreeMap::new();
        for (shown, scores) in shown.iter().zip(scores) {
            by_user.entry(shown.user).or_default().push(scores);
        }
        let result = &mut judged.result;
        result.num_pictures += shown.len();
        for (place, seeds) in drawn.iter().enumerate() {
            let user = first + place;
            let own = by_user.get(&user);
            result
                .scores
                .push(own.map_or_else(Scores::new, |all| mean_scores(all)));
            for (seed, drawn) in results.seeds.iter().zip(seeds) {
                let Err(reason) = drawn else { continue };
                let name = &results.users[user];
                let label = &result.label;
                output.note(format!(
                    "{label} failed for user {name}, seed {seed}: {reason}"
                ));
                result.failures.push(Failure {
                    user: name.clone(),
                    seed: *seed,
                    reason: reason.clone(),
                });
            }
        }
        Ok(())
    }

    /// The targets' own pictures, where every user has one: the ceiling.
    fn targets(&self, visitors: &[Visitor<'_>]) -> anyhow::Result<Option<MethodResult>> {
        let targets: Option<Vec<usize>> = visitors.iter().map(|v| v.history.target).collect();
        let Some(targets) = targets else {
            return Ok(None);
        };
        let label = "The right answer's own picture";
        let mut judged = self.opened("target", label, RowKind::Ceiling);
        let at_once = self.comparison.config.inference.images_per_batch;
        for (number, targets) in targets.chunks(at_once).enumerate() {
            let pictures: Vec<RgbImage> = targets
                .iter()
                .map(|item| self.comparison.data.picture(*item))
                .collect::<Result<_, _>>()?;
            let shown: Vec<Shown<'_>> = pictures
                .iter()
                .enumerate()
                .map(|(place, picture)| Shown {
                    user: number * at_once + place,
                    picture,
                })
                .collect();
            let scores = self.judges.judge(&shown, &mut judged.tally)?;
            judged.result.scores.extend(scores);
            judged.result.num_pictures += shown.len();
        }
        Ok(Some(self.closed(judged)))
    }
}

/// Writes the report and prints its tables.
pub fn show(session: &Session, report: &ReportData, out: &Path) -> anyhow::Result<()> {
    let page = report.write(out)?;
    let text = format!("{}\nReport: {}", report.tables_as_text(), page.display());
    session.output.result(text, report)
}
