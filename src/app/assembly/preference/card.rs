//! The model card of a finished run, with the front matter that the hub reads.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value};

use super::{ADAPTER, WEIGHTS};
use crate::app::assembly::Language;
use crate::app::config::RunConfig;
use crate::nn::lora::LoraConfig;

/// The card of the run in `folder`, from its configuration and logs.
///
/// # Errors
/// When the folder's own `config.toml` cannot be read.
pub fn card(folder: &Path, language: &Language, lora: &LoraConfig) -> anyhow::Result<String> {
    let saved = folder.join("config.toml");
    let config = match saved.is_file() {
        true => Some(RunConfig::load(Some(&saved), &[])?),
        false => None,
    };
    let base = language.named.display().to_string();
    let mut text = format!(
        "---\nlibrary_name: ragar\npipeline_tag: text-to-image\nbase_model: {}\n",
        quoted(&base)
    );
    if let Some(config) = &config {
        let data = config.data.folder.display().to_string();
        let _ = write!(text, "datasets:\n- {}\n", quoted(&data));
    }
    text += "license: other\nlicense_name: see-data-and-base-models\n\
             tags:\n- personalization\n- recommendation\n- lora\n- arxiv:2505.01657\n---\n\
             # A preference model for personalised image generation\n\n\
             Trained by `ragar train` (RAGAR, arXiv 2505.01657): it re-draws an item to a user's taste, judged by a ranking \
             model while it learned.\n\n## Files\n\n";
    let _ = write!(
        text,
        "- `{ADAPTER}/`: LoRA of rank {} (alpha {}) on {} of the language model, in PEFT's form\n\
         - `{WEIGHTS}`: the `[IMG]` rows, the mapper, the text projection and the fusion, in f32\n\
         - `config.toml`: the resolved configuration\n\n## Networks\n\n- language model: `{base}` (digest {})\n",
        lora.r,
        lora.alpha,
        lora.target_modules.join(", "),
        language.fingerprint,
    );
    if let Some(config) = &config {
        let models = &config.models;
        for (what, path) in [
            ("generator", &models.generator),
            ("CLIP", &models.clip),
            ("captioner", &models.captioner),
            ("ranking model", &models.ranking),
        ] {
            let _ = writeln!(text, "- {what}: `{}`", path.display());
        }
        let training = &config.training;
        let _ = write!(
            text,
            "\nThey are not part of this folder, and their licences hold for what is drawn.\n\n## Data\n\n`{}`. {}\n\n\
             ## Training\n\n- command: `{}`\n- seed: {}\n- steps: {} of {} users each\n\
             - explored images per user: {}, in {} denoising steps at guidance {}\n",
            config.data.folder.display(),
            licences(&config.data.folder),
            command(&saved),
            training.seed,
            training.steps,
            training.batch_size,
            config.reflection.num_noises,
            config.reflection.num_steps,
            config.reflection.guidance_scale,
        );
    }
    for (title, file) in [
        ("Last training step", "metrics.jsonl"),
        ("Last validation", "validation.jsonl"),
    ] {
        if let Some(values) = last_line(&folder.join(file)) {
            let _ = write!(text, "\n## {title}\n\n{}", table(&values));
        }
    }
    Ok(text)
}

/// A string as YAML takes it whatever it holds: JSON's strings are YAML's.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Which files of the data folder speak of licences.
fn licences(data: &Path) -> String {
    let entries = std::fs::read_dir(data).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| {
            let upper = name.to_uppercase();
            upper.starts_with("LICEN") || upper.starts_with("NOTICE")
        })
        .map(|name| format!("`{name}`"))
        .collect();
    names.sort();
    match names.is_empty() {
        true => "The folder says nothing of licences: ask whoever it came from.".into(),
        false => format!(
            "Licences and attribution stand there in {}.",
            names.join(" and ")
        ),
    }
}

/// The command that repeats the run, as its configuration's header gives it.
fn command(config: &Path) -> String {
    let text = std::fs::read_to_string(config).unwrap_or_default();
    let again = text.lines().find_map(|line| line.strip_prefix("# Again: "));
    again.map_or_else(|| "ragar train --config config.toml".into(), String::from)
}

/// The last whole line of a log, an object.
fn last_line(path: &Path) -> Option<Map<String, Value>> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut lines = text.lines().rev();
    lines.find_map(|line| serde_json::from_str(line).ok())
}

fn table(values: &Map<String, Value>) -> String {
    let mut text = String::from("| | |\n|---|---|\n");
    for (key, value) in values {
        let name = key.replace('_', " ");
        let _ = match value {
            Value::Number(number) if number.is_f64() => {
                let number = number.as_f64().unwrap_or(f64::NAN);
                writeln!(text, "| {name} | {number:.4} |")
            }
            Value::Number(number) => writeln!(text, "| {name} | {number} |"),
            // Lists and sentences belong to the logs.
            _ => Ok(()),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_line_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        assert_eq!(last_line(&path), None);
        let log = "{\"step\":0,\"loss\":2.0}\n{\"step\":1,\"loss\":0.5,\"users\":[\"a\"]}\n{\"step\":2,\"lo";
        std::fs::write(&path, log).unwrap();
        let last = last_line(&path).unwrap();
        let rows = "| | |\n|---|---|\n| step | 1 |\n| loss | 0.5000 |\n";
        assert_eq!(table(&last), rows);
    }

    #[test]
    fn licences_are_found_or_missed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(licences(folder.path()).contains("says nothing"));
        std::fs::write(folder.path().join("LICENSES.md"), "").unwrap();
        assert!(licences(folder.path()).contains("`LICENSES.md`"));
    }
}
