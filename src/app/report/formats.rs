//! Tables for other programs: Markdown, CSV, LaTeX.

use std::fmt::Write as _;

use super::{Metric, ReportData, RowKind, ScoreRow, ScoreTable};

impl ReportData {
    /// All tables as Markdown.
    pub fn tables_as_markdown(&self) -> String {
        self.tables
            .iter()
            .map(markdown)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// All tables as one CSV: a line per table, row and metric.
    pub fn tables_as_csv(&self) -> String {
        let mut text = String::from("table,row,kind,metric,mean,low,high,count\n");
        for table in &self.tables {
            for row in &table.rows {
                for metric in &table.metrics {
                    let Some(score) = row.scores.get(&metric.key) else {
                        continue;
                    };
                    let kind = match row.kind {
                        RowKind::Ceiling => "ceiling",
                        RowKind::Method => "method",
                        RowKind::Floor => "floor",
                    };
                    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
                    let _ = writeln!(
                        text,
                        "{},{},{kind},{},{},{},{},{}",
                        quoted(&table.title),
                        quoted(&row.name),
                        quoted(&metric.key),
                        score.mean,
                        score.low,
                        score.high,
                        score.count
                    );
                }
            }
        }
        text
    }

    /// All tables as LaTeX, for the packages `booktabs` and, where a name needs it, a Unicode engine.
    pub fn tables_as_latex(&self) -> String {
        self.tables.iter().map(latex).collect::<Vec<_>>().join("\n")
    }
}

fn arrow(metric: &Metric) -> char {
    match metric.higher_is_better {
        true => '↑',
        false => '↓',
    }
}

fn cell(row: &ScoreRow, metric: &Metric) -> String {
    let digits = metric.digits;
    match row.scores.get(&metric.key) {
        None => "–".into(),
        Some(score) if score.low == score.high => format!("{:.digits$}", score.mean),
        Some(score) => format!(
            "{:.digits$} ({:.digits$} … {:.digits$})",
            score.mean, score.low, score.high
        ),
    }
}

fn name(row: &ScoreRow) -> String {
    match row.kind {
        RowKind::Ceiling => format!("{} (ceiling)", row.name),
        RowKind::Floor => format!("{} (floor)", row.name),
        RowKind::Method => row.name.clone(),
    }
}

fn markdown(table: &ScoreTable) -> String {
    let safe = |text: &str| text.replace('|', "\\|");
    let mut text = format!("## {}\n\n{}\n\n|", table.title, table.note);
    for metric in &table.metrics {
        let _ = write!(text, " | {} {}", safe(&metric.label), arrow(metric));
    }
    text += " |\n|---";
    text += &"|---:".repeat(table.metrics.len());
    text += "|\n";
    for row in &table.rows {
        let _ = write!(text, "| {}", safe(&name(row)));
        for metric in &table.metrics {
            let _ = write!(text, " | {}", cell(row, metric));
        }
        text += " |\n";
    }
    text
}

fn latex(table: &ScoreTable) -> String {
    let columns = "r".repeat(table.metrics.len());
    let mut text = format!(
        "% {}\n\\begin{{tabular}}{{l{columns}}}\n\\toprule\n",
        table.title
    );
    for metric in &table.metrics {
        let _ = write!(
            text,
            " & {}",
            escaped(&format!("{} {}", metric.label, arrow(metric)))
        );
    }
    text += " \\\\\n\\midrule\n";
    for row in &table.rows {
        text += &escaped(&name(row));
        for metric in &table.metrics {
            let _ = write!(text, " & {}", escaped(&cell(row, metric)));
        }
        text += " \\\\\n";
    }
    text + "\\bottomrule\n\\end{tabular}\n"
}

/// Text that LaTeX prints as it is.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                safe.push('\\');
                safe.push(c);
            }
            '\\' => safe += "\\textbackslash{}",
            '~' => safe += "\\textasciitilde{}",
            '^' => safe += "\\textasciicircum{}",
            '↑' => safe += "$\\uparrow$",
            '↓' => safe += "$\\downarrow$",
            'Δ' => safe += "$\\Delta$",
            '−' => safe += "$-$",
            '–' => safe += "--",
            '…' => safe += "\\dots{}",
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::report::Score;

    fn data() -> ReportData {
        let score = Score {
            mean: 0.5,
            low: 0.25,
            high: 0.75,
            count: 4,
        };
        ReportData {
            tables: vec![ScoreTable {
                title: "A, \"b\"".into(),
                note: "Note.".into(),
                metrics: vec![Metric::higher("ΔR"), Metric::lower("a_b|c")],
                rows: vec![ScoreRow {
                    name: "50% & more".into(),
                    kind: RowKind::Floor,
                    scores: [("ΔR".to_string(), score)].into(),
                }],
            }],
            ..Default::default()
        }
    }

    #[test]
    fn each_form_quotes_what_it_must() {
        let data = data();
        let markdown = data.tables_as_markdown();
        assert!(
            markdown.contains("| | ΔR ↑ | a_b\\|c ↓ |\n|---|---:|---:|\n| 50% & more (floor) | 0.50 (0.25 … 0.75) | – |"),
            "{markdown}"
        );
        assert_eq!(
            data.tables_as_csv(),
            "table,row,kind,metric,mean,low,high,count\n\"A, \"\"b\"\"\",\"50% & more\",floor,\"ΔR\",0.5,0.25,0.75,4\n"
        );
        let latex = data.tables_as_latex();
        assert!(
            latex.contains("$\\Delta$R $\\uparrow$ & a\\_b|c $\\downarrow$ \\\\"),
            "{latex}"
        );
        assert!(
            latex.contains("50\\% \\& more (floor) & 0.50 (0.25 \\dots{} 0.75) & --"),
            "{latex}"
        );
    }
}
