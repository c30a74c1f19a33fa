//! `ragar model fetch`: a repository of the hub, into the shared cache.

use std::cell::RefCell;
use std::path::PathBuf;

use indicatif::ProgressBar;
use serde::Serialize;

use crate::app::output::Output;
use crate::app::session::Session;
use crate::pretrained::hub::{FetchProgress, fetch as fetch_repository};

#[derive(Debug, Serialize)]
struct Report {
    repository: String,
    revision: String,
    commit: String,
    folder: PathBuf,
    files: Vec<String>,
    new_files: usize,
}

/// Fetches `repository` and says where it is.
pub fn fetch(
    session: &Session,
    repository: &str,
    revision: &str,
    variant: Option<&str>,
) -> anyhow::Result<()> {
    let bars = Bars {
        output: session.output,
        bar: RefCell::new(None),
    };
    let fetched = fetch_repository(repository, revision, variant, &bars)?;
    if let Some(bar) = bars.bar.take() {
        bar.finish_and_clear();
    }
    let text = format!(
        "{}\n{} files, {} of them new; in a configuration write \"{repository}\" or the folder",
        fetched.folder.display(),
        fetched.files.len(),
        fetched.num_new
    );
    let report = Report {
        repository: repository.into(),
        revision: revision.into(),
        commit: fetched.commit,
        folder: fetched.folder,
        files: fetched.files,
        new_files: fetched.num_new,
    };
    session.output.result(text, &report)
}

/// A bar for each file.
struct Bars {
    output: Output,
    bar: RefCell<Option<ProgressBar>>,
}

impl FetchProgress for Bars {
    fn begin(&self, name: &str, index: usize, count: usize, size: u64) {
        let bar = self
            .output
            .byte_bar(size, &format!("{}/{count}", index + 1));
        bar.set_message(name.to_string());
        if let Some(old) = self.bar.replace(Some(bar)) {
            old.finish_and_clear();
        }
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = self.bar.borrow().as_ref() {
            bar.set_position(bytes);
        }
    }
}
