//! Model cards of the tiny family.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::Ground;

/// What a card says beside its numbers.
pub struct Card<'a> {
    /// The heading.
    pub title: &'a str,
    /// What the network is, in one paragraph.
    pub what: String,
    /// How it was trained, in one paragraph.
    pub training: String,
}

impl Card<'_> {
    /// The card as Markdown.
    pub fn write(&self, ground: &Ground<'_>, report: &impl Serialize) -> String {
        let count = |held_out| ground.side(held_out).count();
        format!(
            "# {}\n\n{}\n\n## Data\n\n\
             The {} training pairs (a glyph in a style) of `{}`; {} held-out pairs were never trained on. Licences and \
             attribution of the pictures stand in that folder's `LICENSES.md`.\n\n\
             ## Training\n\n{}\n\nCommand: `{}`\n\nHardware: {}\n\n## Measured\n\n{}",
            self.title,
            self.what,
            count(false),
            ground.config.data.folder.display(),
            count(true),
            self.training,
            ground.command,
            ground.hardware(),
            table(report)
        )
    }
}

/// A report's values as a Markdown table, nested keys joined by dots.
pub fn table(report: &impl Serialize) -> String {
    let mut text = String::from("| | |\n|---|---|\n");
    if let Ok(value) = serde_json::to_value(report) {
        rows("", &value, &mut text);
    }
    text
}

fn rows(path: &str, value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                let key = key.replace('_', " ");
                let path = match path {
                    "" => key,
                    outer => format!("{outer}: {key}"),
                };
                rows(&path, inner, text);
            }
        }
        Value::Number(number) if number.is_f64() => {
            let _ = writeln!(text, "| {path} | {:.4} |", number.as_f64().unwrap_or(0.0));
        }
        Value::Bool(flag) => {
            let word = if *flag { "yes" } else { "no" };
            let _ = writeln!(text, "| {path} | {word} |");
        }
        Value::String(inner) => {
            let _ = writeln!(text, "| {path} | {inner} |");
        }
        other => {
            let _ = writeln!(text, "| {path} | {other} |");
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn nested_values_become_rows() {
        let report = serde_json::json!({"held_out": {"style": 0.5, "count": 3}, "from_clip": true});
        assert_eq!(
            super::table(&report),
            "| | |\n|---|---|\n| held out: style | 0.5000 |\n| held out: count | 3 |\n| from clip | yes |\n"
        );
    }
}
