//! Tables for the terminal.

use std::fmt::Write as _;

use super::{ReportData, RowKind, ScoreTable};

impl ReportData {
    /// All tables, aligned.
    pub fn tables_as_text(&self) -> String {
        self.tables.iter().map(table).collect::<Vec<_>>().join("\n")
    }
}

fn table(table: &ScoreTable) -> String {
    let name = |row: &super::ScoreRow| match row.kind {
        RowKind::Ceiling => format!("{} (ceiling)", row.name),
        RowKind::Floor => format!("{} (floor)", row.name),
        RowKind::Method => row.name.clone(),
    };
    let width = table
        .rows
        .iter()
        .map(|row| name(row).chars().count())
        .max()
        .unwrap_or(0);
    let mut text = format!("{}\n  {:width$}", table.title, "");
    for metric in &table.metrics {
        let _ = write!(text, "  {:>20}", metric.label);
    }
    text.push('\n');
    for row in &table.rows {
        let _ = write!(text, "  {:width$}", name(row));
        for metric in &table.metrics {
            let digits = metric.digits;
            let cell = match row.scores.get(&metric.key) {
                None => "–".to_string(),
                Some(score) if score.low == score.high => format!("{:.digits$}", score.mean),
                Some(score) => format!(
                    "{:.digits$} ({:.digits$} … {:.digits$})",
                    score.mean, score.low, score.high
                ),
            };
            let _ = write!(text, "  {cell:>20}");
        }
        text.push('\n');
    }
    text
}
