//! A comparison on disk: the report, tables in four forms, and every number behind them.

use std::fmt::Write as _;
use std::path::Path;

use super::results::Results;
use crate::app::files;
use crate::app::report::ReportData;

/// Writes `report.html`, `report.json`, `table.md`, `table.csv`, `table.tex`, `scores.json`, `scores.csv` and
/// `paired.csv` into `folder`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(report: &ReportData, results: &Results, folder: &Path) -> anyhow::Result<()> {
    report.write(folder)?;
    let text = |name: &str, text: String| files::write(&folder.join(name), text.as_bytes());
    text("table.md", report.tables_as_markdown())?;
    text("table.csv", report.tables_as_csv())?;
    text("table.tex", report.tables_as_latex())?;
    text("scores.csv", scores(results))?;
    text("paired.csv", paired(results))?;
    files::write_json(&folder.join("scores.json"), results)
}

/// A line per method, user and metric.
fn scores(results: &Results) -> String {
    let mut text = String::from("method,user,reference,metric,value\n");
    for method in &results.methods {
        let users = results.users.iter().zip(&results.references);
        for ((user, reference), scores) in users.zip(&method.scores) {
            for (metric, value) in scores {
                let _ = writeln!(
                    text,
                    "{},{},{},{},{value}",
                    method.name,
                    field(user),
                    field(reference),
                    metric.key()
                );
            }
        }
    }
    text
}

/// A line per comparison.
fn paired(results: &Results) -> String {
    let mut text =
        String::from("first,second,metric,difference,low,high,p_value,above,below,users\n");
    for difference in &results.differences {
        let compared = &difference.compared;
        let interval = &compared.difference;
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{},{},{}",
            field(&difference.first),
            field(&difference.second),
            difference.metric.key(),
            interval.mean,
            interval.low,
            interval.high,
            compared.p_value,
            compared.above,
            compared.below,
            interval.count
        );
    }
    text
}

/// Quoted where a reader of CSV needs it.
fn field(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_string(),
    }
}
