//! The stage that all loaders share: what was found is selected, written and counted.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::LoadError;
use super::gathering::Gathering;
use super::output::{PictureCounts, Staged, refuse_foreign};
use super::selection::{LeftOut, SelectionOptions, select};

/// What a loader made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadReport {
    pub output: PathBuf,
    pub num_items: usize,
    pub num_users: usize,
    pub num_interactions: usize,
    pub num_histories: usize,
    pub pictures: PictureCounts,
    /// They stay; only their picture speaks for them.
    pub num_items_without_text: usize,
    pub left_out: LeftOut,
    /// Rows that were skipped as asked.
    pub num_bad_rows: usize,
    /// The first of them, word for word.
    pub bad_rows: Vec<String>,
}

impl std::fmt::Display for LoadReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for row in &self.bad_rows {
            writeln!(f, "skipped: {row}")?;
        }
        let left_out = &self.left_out;
        let remarks = [
            (self.num_bad_rows, "bad rows skipped"),
            (
                left_out.items_without_picture,
                "items without a picture left out",
            ),
            (
                left_out.interactions_of_those_items,
                "interactions with those items left out",
            ),
            (
                left_out.repeated_interactions,
                "repeated interactions left out",
            ),
            (
                left_out.users_by_selection,
                "users left out by --min-user, --min-item or --users",
            ),
            (left_out.items_by_selection, "items left out by --min-item"),
            (
                left_out.users_without_history,
                "users with too few interactions for a history",
            ),
            (self.num_items_without_text, "items without a text"),
            (self.pictures.blank, "items with a blank picture"),
            (self.pictures.kept, "pictures kept from before"),
        ];
        for (count, remark) in remarks {
            if count > 0 {
                writeln!(f, "{count} {remark}")?;
            }
        }
        if self.pictures.to_fetch > 0 {
            writeln!(
                f,
                "{} pictures are still to be fetched: ragar data pictures {}",
                self.pictures.to_fetch,
                self.output.display()
            )?;
        }
        write!(
            f,
            "{}: items {}, users {}, interactions {}, histories {}",
            self.output.display(),
            self.num_items,
            self.num_users,
            self.num_interactions,
            self.num_histories
        )
    }
}

/// What one run of a loader is asked for.
#[derive(Debug)]
pub struct Assembly<'a, O> {
    /// The word on the command line.
    pub loader: &'static str,
    /// Files and folders read.
    pub sources: &'a [&'a Path],
    pub output: &'a Path,
    /// The loader's own options, for the manifest.
    pub options: &'a O,
    pub selection: &'a SelectionOptions,
}

impl<O: Serialize> Assembly<'_, O> {
    /// Gathers, selects and writes. The output is looked at first, so that nobody waits for a refusal.
    ///
    /// # Errors
    /// The loader's, an output that is not ours to replace, nothing left, or a file that cannot be written.
    pub fn run(
        &self,
        gather: impl FnOnce() -> Result<Gathering, LoadError>,
    ) -> Result<LoadReport, LoadError> {
        self.selection.validate()?;
        refuse_foreign(self.output, self.loader, self.sources)?;
        let found = gather()?;
        let selected = select(&found, self.selection)?;
        let staged = Staged::new(self.output)?;
        let pictures = staged.write_folder(&found, &selected)?;
        let without_text = selected
            .items
            .iter()
            .filter(|&&item| found.items[item as usize].text.is_empty());
        let report = LoadReport {
            output: self.output.to_path_buf(),
            num_items: selected.items.len(),
            num_users: selected.num_users,
            num_interactions: selected.interactions.len(),
            num_histories: selected.histories.len(),
            pictures,
            num_items_without_text: without_text.count(),
            left_out: selected.left_out,
            num_bad_rows: found.faults.count,
            bad_rows: found.faults.first,
        };
        staged.finish(self.loader, self.options, &report)?;
        Ok(report)
    }
}
