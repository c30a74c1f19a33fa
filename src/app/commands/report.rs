//! `ragar report`: a training as one page.

use std::path::Path;

use crate::app::files;
use crate::app::report::of_run;
use crate::app::session::Session;

/// Writes the page about the training in `run` to `out`, or beside it.
pub fn run(session: &Session, run: &Path, out: Option<&Path>) -> anyhow::Result<()> {
    let data = of_run(run)?;
    let page = out.map_or_else(|| run.join("report.html"), Path::to_path_buf);
    files::write(&page, data.to_html().as_bytes())?;
    let facts: Vec<String> = data
        .facts
        .iter()
        .map(|fact| format!("  {}: {}", fact.label, fact.value))
        .collect();
    let text = format!(
        "{}: {} {} charts, {} users with pictures, {} events\n{}",
        page.display(),
        data.introduction,
        data.charts.len(),
        data.rows.len(),
        data.events.len(),
        facts.join("\n")
    );
    session.output.result(text, &data)
}
