//! Metrics as JSON lines, one object a step.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

/// A `metrics.jsonl` that a resumed run continues without a doubled line.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: BufWriter<File>,
}

impl MetricsLog {
    /// Opens `path`, dropping lines of step `from_step` and later, which a resumed run writes again.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(path: &Path, from_step: usize) -> std::io::Result<Self> {
        let kept: Vec<String> = match File::open(path) {
            Err(_) => Vec::new(),
            Ok(file) => BufReader::new(file)
                .lines()
                .map_while(Result::ok)
                .filter(|line| step_of(line).is_some_and(|step| step < from_step))
                .collect(),
        };
        let mut file = BufWriter::new(
            OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .open(path)?,
        );
        for line in kept {
            writeln!(file, "{line}")?;
        }
        file.flush()?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
        })
    }

    /// Appends the fields of `metrics`, an object, under `step`.
    ///
    /// # Errors
    /// When the line cannot be written (a full disk).
    pub fn write(&mut self, step: usize, metrics: &impl Serialize) -> std::io::Result<()> {
        let mut line = Map::new();
        line.insert("step".into(), step.into());
        if let Value::Object(fields) = serde_json::to_value(metrics)? {
            line.extend(fields);
        }
        writeln!(self.file, "{}", Value::Object(line))?;
        self.file.flush()
    }

    /// Where the lines go.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What happened to a run, as JSON lines in the order in which it happened: nothing is ever taken back.
#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// A journal at `path`, which need not be there yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
        }
    }

    /// Appends an event of `step`: its kind in a word, and a sentence.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn write(&self, step: usize, kind: &str, text: &str) -> std::io::Result<()> {
        let line = serde_json::json!({"step": step, "kind": kind, "text": text});
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)?;
        file.write_all(format!("{line}\n").as_bytes())
    }

    /// Where the lines go.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn step_of(line: &str) -> Option<usize> {
    let value: Value = serde_json::from_str(line).ok()?;
    value.get("step")?.as_u64().map(|step| step as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_log_holds_each_step_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path, 0).unwrap();
        for step in 0..4 {
            log.write(step, &serde_json::json!({"loss": step})).unwrap();
        }
        drop(log);
        let mut log = MetricsLog::open(&path, 2).unwrap();
        log.write(2, &serde_json::json!({"loss": 9})).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "{\"step\":0,\"loss\":0}\n{\"step\":1,\"loss\":1}\n{\"step\":2,\"loss\":9}\n"
        );
    }
}
