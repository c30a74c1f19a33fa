//! From a TOML file and `--set` to a typed configuration; every complaint names the place and the way out.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file, counted from 1.
    File { path: PathBuf, line: Option<usize> },
    /// An argument of `--set`.
    Argument(String),
    /// The built-in defaults, or how values of several places fit together.
    Combined,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Argument(text) => write!(f, "--set {text}"),
            Self::Combined => f.write_str("configuration"),
        }
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read this configuration: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    /// Not TOML at all.
    #[error("{origin}: not valid TOML: {message}")]
    Syntax { origin: Origin, message: String },
    /// A value outside every section.
    #[error(
        "{origin}: `{key}` stands outside every section: write it beneath a heading such as `{hint}`"
    )]
    TopLevel {
        origin: Origin,
        key: String,
        hint: String,
    },
    /// A key that no section has.
    #[error("{origin}: there is no key `{key}`{}", nearest(nearest_key, known))]
    Unknown {
        origin: Origin,
        key: String,
        nearest_key: Option<String>,
        known: Vec<String>,
    },
    /// A value of the wrong type, or not among those allowed.
    #[error("{origin}: `{key}`: {message}")]
    Type {
        origin: Origin,
        key: String,
        message: String,
    },
    /// Well typed, but out of range or in conflict with another value.
    #[error("{origin}: {message}")]
    Value { origin: Origin, message: String },
    /// `--set` without `section.key=value`.
    #[error("--set {0}: write it as section.key=value, for example --set reflection.margin=0.2")]
    Argument(String),
}

fn nearest(nearest_key: &Option<String>, known: &[String]) -> String {
    match nearest_key {
        Some(key) => format!("; did you mean `{key}`?"),
        None => format!("; known here: {}", known.join(", ")),
    }
}

/// A parsed file that still knows on which line each key stands.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn origin(&self, key: &str) -> Origin {
        let span = DeTable::parse(self.text)
            .ok()
            .and_then(|table| span_of(table.get_ref(), key));
        Origin::File {
            path: self.path.to_path_buf(),
            line: span.map(|span| line_of(self.text, span.start)),
        }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

/// The span of the longest part of the dotted `key` that the file has.
fn span_of(table: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    let (head, rest) = match key.split_once('.') {
        Some((head, rest)) => (head, Some(rest)),
        None => (key, None),
    };
    let (name, value) = table.iter().find(|(name, _)| name.get_ref() == head)?;
    let inner = match (rest, value.get_ref()) {
        (Some(rest), DeValue::Table(inner)) => span_of(inner, rest),
        _ => None,
    };
    Some(inner.unwrap_or_else(|| name.span()))
}

/// Reads `file`, lays `arguments` (`section.key=value`) over it, both over `defaults`, and types the result.
///
/// `defaults` is the whole tree of known keys, also for hints. Where a section's own defaults depend on who holds it
/// (each network's trainer has other intervals), naming one key leaves the others as the holder has them.
///
/// # Errors
/// Names the file and line, or the argument, the key, what was found and what is known.
pub fn read<T: DeserializeOwned>(
    file: Option<&Path>,
    arguments: &[String],
    defaults: &Table,
) -> Result<T, ConfigError> {
    let text = match file {
        Some(path) => std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_path_buf(),
            source,
        })?,
        None => String::new(),
    };
    let source = Source {
        path: file.unwrap_or(Path::new("")),
        text: &text,
    };
    let mut table: Table = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
        origin: Origin::File {
            path: source.path.to_path_buf(),
            line: error.span().map(|span| line_of(&text, span.start)),
        },
        message: error.message().to_string(),
    })?;
    for (key, value) in &table {
        if !value.is_table() {
            return Err(top_level(source.origin(key), key, defaults));
        }
    }
    let mut set = Vec::new();
    for argument in arguments {
        let (key, value) = parse_argument(argument, defaults)?;
        insert(&mut table, &key, value)
            .map_err(|()| ConfigError::Argument(argument.to_string()))?;
        set.push((key, argument));
    }
    let origin = |key: &str| {
        let last = set.iter().rev().find(|(known, _)| {
            key == known
                || key.starts_with(&format!("{known}."))
                || known.starts_with(&format!("{key}."))
        });
        match last {
            Some((_, argument)) => Origin::Argument((*argument).clone()),
            None if file.is_some() => source.origin(key),
            None => Origin::Combined,
        }
    };
    complete(&mut table, defaults);
    serde_path_to_error::deserialize(Value::Table(table))
        .map_err(|error| explain(&error, defaults, origin))
}

/// Adds to `table`, at any depth, what only `defaults` has.
fn complete(table: &mut Table, defaults: &Table) {
    for (key, default) in defaults {
        match (table.get_mut(key), default) {
            (None, default) => {
                table.insert(key.clone(), default.clone());
            }
            (Some(Value::Table(inner)), Value::Table(defaults)) => complete(inner, defaults),
            (Some(_), _) => {}
        }
    }
}

fn top_level(origin: Origin, key: &str, defaults: &Table) -> ConfigError {
    let home = homes(key, defaults).into_iter().next();
    let section = home
        .as_deref()
        .and_then(|home| home.rsplit_once('.'))
        .map_or("data", |(section, _)| section);
    ConfigError::TopLevel {
        origin,
        key: key.to_string(),
        hint: format!("[{section}]"),
    }
}

/// `section.key=value`; the value is TOML, or else text that needs no quotes.
fn parse_argument(argument: &str, defaults: &Table) -> Result<(String, Value), ConfigError> {
    let wrong = || ConfigError::Argument(argument.to_string());
    let (key, value) = argument.split_once('=').ok_or_else(wrong)?;
    let (key, value) = (key.trim(), value.trim());
    if key.is_empty() || key.split('.').any(str::is_empty) {
        return Err(wrong());
    }
    if !key.contains('.') {
        let origin = Origin::Argument(argument.to_string());
        return Err(match homes(key, defaults).into_iter().next() {
            Some(home) => ConfigError::Unknown {
                origin,
                key: key.to_string(),
                nearest_key: Some(home),
                known: Vec::new(),
            },
            None => wrong(),
        });
    }
    let typed = toml::from_str::<Table>(&format!("value = {value}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(value.to_string()));
    Ok((key.to_string(), typed))
}

fn insert(table: &mut Table, key: &str, value: Value) -> Result<(), ()> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_string(), value);
            Ok(())
        }
        Some((head, rest)) => {
            let inner = table
                .entry(head.to_string())
                .or_insert_with(|| Value::Table(Table::new()));
            insert(inner.as_table_mut().ok_or(())?, rest, value)
        }
    }
}

/// Full names of all known keys that end in `name`.
fn homes(name: &str, defaults: &Table) -> Vec<String> {
    let mut found: Vec<String> = leaves(defaults)
        .into_iter()
        .filter(|key| key.rsplit('.').next() == Some(name))
        .collect();
    found.sort_by_key(String::len);
    found
}

/// Full names of all keys of `table`.
fn leaves(table: &Table) -> Vec<String> {
    let mut names = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                names.extend(
                    leaves(inner)
                        .into_iter()
                        .map(|rest| format!("{key}.{rest}")),
                );
            }
            _ => names.push(key.clone()),
        }
    }
    names
}

/// Serde's complaint in our words.
fn explain(
    error: &serde_path_to_error::Error<toml::de::Error>,
    defaults: &Table,
    origin: impl Fn(&str) -> Origin,
) -> ConfigError {
    let path = error.path().to_string();
    let path = if path == "." { String::new() } else { path };
    let message = error.inner().message().trim().to_string();
    let Some((unknown, known)) = unknown_field(&message) else {
        return ConfigError::Type {
            origin: origin(&path),
            key: path,
            message,
        };
    };
    // The path may or may not end in the unknown key itself.
    let section = match path.strip_suffix(unknown.as_str()) {
        Some(section) => section.trim_end_matches('.').to_string(),
        None => path,
    };
    let within = |name: &str| match section.as_str() {
        "" => name.to_string(),
        section => format!("{section}.{name}"),
    };
    let key = within(&unknown);
    let here = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&unknown, name), name))
        .filter(|(distance, _)| *distance <= 2.max(unknown.len() / 3))
        .min();
    // A key that is right in another section is nearer than one spelt alike in this one.
    let nearest_key = homes(&unknown, defaults)
        .into_iter()
        .next()
        .or_else(|| here.map(|(_, name)| within(name)));
    ConfigError::Unknown {
        origin: origin(&key),
        key,
        nearest_key,
        known,
    }
}

/// The unknown key and the known ones, from "unknown field `a`, expected one of `b`, `c`".
fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (unknown, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).map(String::from);
    Some((unknown.to_string(), known.collect()))
}
