//! `ragar export`: a finished training in one folder, to draw with elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::app::assembly::preference;
use crate::app::config::METHOD;
use crate::app::files;
use crate::app::session::{BUNDLE, Session};
use crate::pretrained::hub;

/// `bundle.json`.
#[derive(Debug, Serialize)]
struct Bundle {
    version: &'static str,
    /// The digest of the trained weights.
    checkpoint: String,
    /// Keys of `[models]` whose networks are in the bundle.
    models: Vec<&'static str>,
    /// Every other file of the bundle.
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    bytes: u64,
    sha256: String,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    folder: &'a Path,
    bytes: u64,
    #[serde(flatten)]
    bundle: &'a Bundle,
}

/// Copies what the finished training in `run` left to `out`, and the frozen networks where asked.
pub fn run(session: &Session, run: &Path, out: &Path, with_models: bool) -> anyhow::Result<()> {
    preference::finished(run)?;
    let mut config = session.config_of(run)?;
    let taken = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    anyhow::ensure!(
        !taken,
        "{} is not empty: choose another --out",
        out.display()
    );
    let mut models = Vec::new();
    let mut sources: Vec<(PathBuf, PathBuf)> = Vec::new();
    if with_models {
        let chooses = config.inference.candidates > 1;
        for (key, path) in config.models.drawing(chooses) {
            let source = hub::located(path);
            anyhow::ensure!(
                source.is_dir(),
                "models.{key} = \"{}\" is not there, so it cannot be copied; leave out --with-models, or bring it",
                path.display()
            );
            let inside = Path::new("models").join(key);
            sources.push((source, inside.clone()));
            *path = inside;
            models.push(key);
        }
    }
    let adapter = run.join(preference::ADAPTER);
    if adapter.is_dir() {
        sources.push((adapter, preference::ADAPTER.into()));
    }
    let checkpoint = preference::fingerprint(run)?;
    let mut bundle = Bundle {
        version: env!("CARGO_PKG_VERSION"),
        checkpoint,
        models,
        files: BTreeMap::new(),
    };
    files::write_folder(out, |aside| {
        for (source, inside) in &sources {
            copy_folder(source, &aside.join(inside), session)?;
        }
        for name in [preference::WEIGHTS, preference::CARD] {
            let source = run.join(name);
            if source.is_file() {
                copy(&source, &aside.join(name))?;
            }
        }
        let text = format!(
            "# The resolved configuration of `ragar train`, version {}; networks under models/ are those of this bundle.\n\n{}",
            env!("CARGO_PKG_VERSION"),
            config.to_toml(METHOD)?
        );
        files::write(&aside.join("config.toml"), text.as_bytes())?;
        bundle.files = digests(aside)?;
        files::write_json(&aside.join(BUNDLE), &bundle)
    })?;
    let bytes = bundle.files.values().map(|entry| entry.bytes).sum();
    let report = Report {
        folder: out,
        bytes,
        bundle: &bundle,
    };
    let networks = match with_models {
        true => "with the frozen networks",
        false => "without the frozen networks, which [models] of its config.toml names",
    };
    let text = format!(
        "{0}: {1} files, {2:.1} MB, {networks}\n  ragar generate --run {0} draws from it; --set data.folder=DIR where the data lie elsewhere",
        out.display(),
        bundle.files.len() + 1,
        bytes as f64 / 1e6,
    );
    session.output.result(text, &report)
}

/// Copies the plain files beneath `from`; what links lead to is copied, not the links. Hidden files and checkpoints of a training stay
/// behind.
fn copy_folder(from: &Path, to: &Path, session: &Session) -> anyhow::Result<()> {
    let reading = || format!("cannot read {}", from.display());
    for entry in fs::read_dir(from).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let (source, name) = (entry.path(), entry.file_name());
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let target = to.join(&name);
        if source.is_dir() {
            // The states of a training, in a ranking model's folder.
            if name == "checkpoints" {
                continue;
            }
            copy_folder(&source, &target, session)?;
        } else {
            session.output.note(format!("copying {}", source.display()));
            copy(&source, &target)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copying = || format!("cannot copy {} to {}", from.display(), to.display());
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(copying)?;
    }
    fs::copy(from, to).with_context(copying)?;
    let file = fs::File::open(to).with_context(copying)?;
    file.sync_all().with_context(copying)
}

/// Size and digest of every file beneath `root`, by its path with `/` between the parts.
fn digests(root: &Path) -> anyhow::Result<BTreeMap<String, Entry>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name: Vec<_> = path
                .strip_prefix(root)?
                .components()
                .map(|part| part.as_os_str().to_string_lossy())
                .collect();
            found.insert(name.join("/"), digest(&path)?);
        }
    }
    Ok(found)
}

fn digest(path: &Path) -> anyhow::Result<Entry> {
    let reading = || format!("cannot read {}", path.display());
    let mut file = fs::File::open(path).with_context(reading)?;
    let mut digest = Sha256::new();
    let mut block = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut block).with_context(reading)?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        digest.update(&block[..count]);
    }
    let sha256 = format!("{:x}", digest.finalize());
    Ok(Entry { bytes, sha256 })
}
