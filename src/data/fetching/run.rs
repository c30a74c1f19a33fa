//! A whole run: what is missing, workers that bring it, one thread that keeps the books.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use csv::StringRecord;
use serde::Serialize;

use super::hosts::{Hosts, Turn};
use super::ledger::{Entry, Ledger};
use super::request::agent;
use super::task::{Failure, Task, WhatNext};
use super::worker::{ASIDE, Workshop, lock};
use super::{FetchError, FetchOptions};
use crate::data::folder::{ITEMS_FILE, inside};
use crate::data::image::ImageLimits;
use crate::data::loading::LoadError;
use crate::data::loading::addresses;
use crate::data::loading::error::Place;
use crate::data::loading::output::URL_COLUMN;
use crate::data::loading::rows::{Columns, Delimited, Dialect, Rows as _};
use crate::data::loading::text_file::Encoding;
use crate::optimisation::{Interrupt, Progress};

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FetchReport {
    /// Pictures with an address.
    pub num_pictures: usize,
    pub num_there_before: usize,
    pub num_fetched: usize,
    pub num_bytes: u64,
    /// In the ledger, of this run and of earlier ones.
    pub num_failed: usize,
    /// Failed for good before and not tried again.
    pub num_not_tried: usize,
    /// Reasons and how often; digits are left out so that like is counted with like.
    pub reasons: BTreeMap<String, usize>,
    /// Whether the run was stopped before its end.
    pub interrupted: bool,
}

impl std::fmt::Display for FetchReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (reason, count) in &self.reasons {
            writeln!(f, "{count} failed: {reason}")?;
        }
        if self.num_failed > 0 {
            writeln!(
                f,
                "{} lists all; the other commands leave those items out with --skip-bad",
                super::ledger::LEDGER_FILE
            )?;
        }
        write!(
            f,
            "pictures {}, there before {}, fetched {} ({:.1} MB), failed {}",
            self.num_pictures,
            self.num_there_before,
            self.num_fetched,
            self.num_bytes as f64 / 1e6,
            self.num_failed
        )?;
        if self.num_not_tried > 0 {
            write!(
                f,
                " ({} before, not tried again: --retry-failed)",
                self.num_not_tried
            )?;
        }
        Ok(())
    }
}

/// How often the ledger is written while it changes.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// How long a stopped run waits for workers that wait for a host.
const GRACE: Duration = Duration::from_secs(2);

/// Brings the pictures of `root` that have an address in `items.csv` and are not there.
///
/// # Errors
/// A folder that is none, a row of `items.csv` that cannot be read, options out of range, a full disk. A picture that
/// does not come is no error: it stands in the ledger.
pub fn fetch(
    root: &Path,
    options: &FetchOptions,
    limits: &ImageLimits,
    interrupt: &Interrupt,
    progress: &dyn Progress,
) -> Result<FetchReport, FetchError> {
    validate(options)?;
    let real_root = root.canonicalize().map_err(LoadError::io(root))?;
    let mut ledger = Ledger::open(&real_root);
    let mut report = FetchReport::default();
    let tasks = missing(root, &real_root, &mut ledger, options, &mut report)?;
    let aside = real_root.join(ASIDE);
    if !tasks.is_empty() {
        std::fs::create_dir_all(&aside).map_err(LoadError::io(&aside))?;
    }
    let num_workers = options.parallel.min(tasks.len());
    let now = Instant::now();
    let mut hosts = Hosts::new(Duration::from_secs_f64(1.0 / options.per_second));
    let num_tasks = tasks.len();
    for task in tasks {
        hosts.add(task, now);
    }
    let workshop = Arc::new(Workshop {
        options: options.clone(),
        limits: *limits,
        agent: agent(options),
        hosts: Mutex::new(hosts),
        interrupt: interrupt.clone(),
        real_root: real_root.clone(),
    });
    let (sender, results) = mpsc::channel();
    // Not scoped: a run that is stopped does not wait for a host that keeps silent.
    for _ in 0..num_workers {
        let (workshop, sender) = (workshop.clone(), sender.clone());
        std::thread::spawn(move || work(&workshop, &sender));
    }
    drop(sender);
    progress.begin("pictures", num_tasks);
    let mut stopped_at = None;
    let mut saved_at = Instant::now();
    let mut num_ended = 0;
    loop {
        match results.recv_timeout(Duration::from_millis(100)) {
            Ok(Ended { task, result }) => {
                num_ended += 1;
                enter(task, result, &mut ledger, &mut report);
                let failed = num_ended - report.num_fetched;
                progress.advance(num_ended, &format!("{failed} failed"));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if saved_at.elapsed() > SAVE_EVERY {
            ledger.save(&real_root)?;
            saved_at = Instant::now();
        }
        if interrupt.is_raised() {
            let since = *stopped_at.get_or_insert_with(Instant::now);
            if since.elapsed() > GRACE {
                break;
            }
        }
    }
    progress.end();
    report.interrupted = interrupt.is_raised();
    report.num_failed = ledger.entries.len();
    for entry in ledger.entries.values() {
        let plain: String = entry
            .reason
            .chars()
            .filter(|c| !c.is_ascii_digit())
            .collect();
        // Reasons with names in them would fill the screen.
        *report
            .reasons
            .entry(plain.chars().take(80).collect())
            .or_default() += 1;
    }
    ledger.save(&real_root)?;
    // Removed only if nothing unfinished lies there.
    let _ = std::fs::remove_dir(&aside);
    Ok(report)
}

fn validate(options: &FetchOptions) -> Result<(), FetchError> {
    let refuse = |option, found: String, expected| {
        Err(FetchError::Option {
            option,
            found,
            expected,
        })
    };
    if !(1..=64).contains(&options.parallel) {
        return refuse("--parallel", options.parallel.to_string(), "1 to 64");
    }
    if !(0.01..=1_000.0).contains(&options.per_second) {
        return refuse(
            "--per-second",
            options.per_second.to_string(),
            "0.01 to 1000",
        );
    }
    if options.timeout.is_zero() {
        return refuse("--timeout", "0".into(), "at least 1 second");
    }
    Ok(())
}

/// The pictures of `items.csv` that have an address and are not there.
fn missing(
    root: &Path,
    real_root: &Path,
    ledger: &mut Ledger,
    options: &FetchOptions,
    report: &mut FetchReport,
) -> Result<Vec<Task>, LoadError> {
    let path = root.join(ITEMS_FILE);
    let mut rows = Delimited::open(&path, Dialect::comma(Encoding::Utf8))?;
    let columns = Columns::of(&rows);
    let (id, image) = (columns.named("item_id")?, columns.named("image")?);
    // A folder whose pictures are all there has none.
    let url = columns.named(URL_COLUMN)?;
    let mut tasks = Vec::new();
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut row = StringRecord::new();
    while let Some(number) = rows.read(&mut row)? {
        let place = Place {
            path: &path,
            row: number,
        };
        let full = addresses::complete(&row[url])
            .map_err(|reason| place.fault(Some(URL_COLUMN), reason))?;
        let Some(full) = full else { continue };
        let image = &row[image];
        inside(image).map_err(|problem| place.fault(Some("image"), problem))?;
        match seen.insert(image.to_string(), full.clone()) {
            None => {}
            Some(other) if other == full => continue,
            Some(other) => {
                let reason = format!("{image:?} is to come from {full} and from {other}");
                return Err(place.fault(Some("image"), reason));
            }
        }
        report.num_pictures += 1;
        let target = real_root.join(image);
        if target.is_file() {
            report.num_there_before += 1;
            ledger.entries.remove(image);
            continue;
        }
        if let Some(entry) = ledger.entries.get(image) {
            if entry.url == full && !entry.may_pass && !options.retry_failed {
                report.num_not_tried += 1;
                continue;
            }
            ledger.entries.remove(image);
        }
        let url =
            addresses::parse(&full).map_err(|reason| place.fault(Some(URL_COLUMN), reason))?;
        tasks.push(Task {
            item: row[id].to_string(),
            image: image.to_string(),
            target,
            url,
            num_tries: 0,
        });
    }
    // What the table does not name any more is nobody's failure.
    let named: BTreeSet<&String> = seen.keys().collect();
    ledger.entries.retain(|image, _| named.contains(image));
    Ok(tasks)
}

struct Ended {
    task: Task,
    result: Result<u64, Failure>,
}

/// Takes tasks until there are none.
fn work(workshop: &Workshop, sender: &Sender<Ended>) {
    loop {
        if workshop.interrupt.is_raised() {
            return;
        }
        let turn = lock(&workshop.hosts).take(Instant::now());
        let mut task = match turn {
            Turn::Done => return,
            Turn::Wait(until) => {
                // Shortly: what others bring back may be due before.
                let soon = Instant::now() + Duration::from_millis(50);
                if workshop.sleep_until(until.min(soon)).is_err() {
                    return;
                }
                continue;
            }
            Turn::Task(task) => task,
        };
        task.num_tries += 1;
        let result = workshop.bring(&task);
        if let Err(failure) = &result
            && let Some(wait) = wait_before_next(failure, &task, &workshop.options)
        {
            tracing::debug!("{}: {}; again in {wait:?}", task.url, failure.reason);
            let now = Instant::now();
            lock(&workshop.hosts).give_back(task, now + wait, now);
            continue;
        }
        lock(&workshop.hosts).end();
        // Nobody listens any more once the run is stopped.
        if sender.send(Ended { task, result }).is_err() {
            return;
        }
    }
}

/// How long a picture waits before it is tried again; None when it is not.
fn wait_before_next(failure: &Failure, task: &Task, options: &FetchOptions) -> Option<Duration> {
    if task.num_tries > options.retries {
        return None;
    }
    // Doubling, and not all at the same moment.
    let doubled =
        options.first_wait.as_secs_f64() * f64::from(1u32 << (task.num_tries - 1).min(16));
    let spread = 0.75 + 0.5 * rand::random::<f64>();
    let own = Duration::from_secs_f64(doubled * spread).min(options.longest_wait);
    match failure.what_next {
        WhatNext::GiveUp | WhatNext::Stop => None,
        WhatNext::TryAgain => Some(own),
        WhatNext::LeaveHost(None) => Some(own),
        WhatNext::LeaveHost(Some(asked)) if asked <= options.longest_wait => Some(asked),
        WhatNext::LeaveHost(Some(_)) => None,
    }
}

fn enter(task: Task, result: Result<u64, Failure>, ledger: &mut Ledger, report: &mut FetchReport) {
    match result {
        Ok(num_bytes) => {
            report.num_fetched += 1;
            report.num_bytes += num_bytes;
        }
        Err(failure) if failure.what_next == WhatNext::Stop => {}
        Err(failure) => {
            let entry = Entry {
                item: task.item,
                image: task.image.clone(),
                url: task.url.to_string(),
                reason: failure.reason,
                may_pass: failure.what_next != WhatNext::GiveUp,
            };
            ledger.entries.insert(task.image, entry);
        }
    }
}
