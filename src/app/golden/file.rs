//! A golden file: what the reference was given, and what it answered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use burn::tensor::{DType, TensorData};
use model_import::read_tensors_with_metadata;

/// Names of recorded inputs and outputs.
const INPUT: &str = "input.";
const OUTPUT: &str = "output.";

/// Recorded inputs, outputs and options.
#[derive(Debug)]
pub struct GoldenFile {
    path: PathBuf,
    tensors: BTreeMap<String, TensorData>,
    metadata: BTreeMap<String, String>,
}

impl GoldenFile {
    /// Reads the whole file.
    ///
    /// # Errors
    /// When it is no safetensors file, holds nothing to compare with, or values that are not finite.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let (tensors, metadata) = read_tensors_with_metadata(path)?;
        let file = Self {
            path: path.into(),
            tensors,
            metadata,
        };
        anyhow::ensure!(
            file.outputs().next().is_some(),
            "{}: no tensor is called `{OUTPUT}…`: this is no golden file (see docs/golden.md)",
            path.display()
        );
        for (name, data) in &file.tensors {
            let finite = !data.dtype.is_float() || data.iter::<f64>().all(f64::is_finite);
            anyhow::ensure!(
                finite,
                "{}: `{name}` holds values that are not finite, which nothing can be compared with",
                path.display()
            );
        }
        Ok(file)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder in which it lies.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Recorded outputs by name, without `output.`.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, &TensorData)> {
        let tensors = self.tensors.iter();
        tensors.filter_map(|(name, data)| Some((name.strip_prefix(OUTPUT)?, data)))
    }

    /// Was output `name` recorded?
    pub fn asks_for(&self, name: &str) -> bool {
        self.tensors.contains_key(&format!("{OUTPUT}{name}"))
    }

    /// Was input `name` recorded?
    pub fn gives(&self, name: &str) -> bool {
        self.tensors.contains_key(&format!("{INPUT}{name}"))
    }

    /// Input `name`, of `rank` dimensions.
    ///
    /// # Errors
    /// When it is not there or has another rank.
    pub fn input(&self, name: &str, rank: usize) -> anyhow::Result<TensorData> {
        self.tensor(&format!("{INPUT}{name}"), rank)
    }

    /// Tensor `name` under its full name, of `rank` dimensions.
    ///
    /// # Errors
    /// When it is not there or has another rank.
    pub fn tensor(&self, name: &str, rank: usize) -> anyhow::Result<TensorData> {
        let data = self.tensors.get(name).with_context(|| {
            let there: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
            format!(
                "{}: no tensor `{name}`; the file holds {}",
                self.path.display(),
                there.join(", ")
            )
        })?;
        anyhow::ensure!(
            data.shape.len() == rank,
            "{}: `{name}` has shape {:?}, expected {rank} dimensions",
            self.path.display(),
            data.shape.to_vec()
        );
        Ok(data.clone())
    }

    /// Rows of token ids of input `name`.
    ///
    /// # Errors
    /// When it is not there, no matrix, or holds something that is no id.
    pub fn rows(&self, name: &str) -> anyhow::Result<Vec<Vec<u32>>> {
        let data = self.input(name, 2)?;
        let width = data.shape[1];
        anyhow::ensure!(
            !data.dtype.is_float() && !matches!(data.dtype, DType::Bool(_)),
            "{}: `{INPUT}{name}` holds {:?}, expected integers",
            self.path.display(),
            data.dtype
        );
        let ids = data.iter::<i64>().map(u32::try_from);
        let ids: Vec<u32> = ids.collect::<Result<_, _>>().with_context(|| {
            format!(
                "{}: `{INPUT}{name}` holds a negative id",
                self.path.display()
            )
        })?;
        anyhow::ensure!(
            width > 0,
            "{}: `{INPUT}{name}` has no columns",
            self.path.display()
        );
        Ok(ids.chunks(width).map(<[u32]>::to_vec).collect())
    }

    /// A value of the file's metadata.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// A value of the file's metadata that must be there.
    ///
    /// # Errors
    /// When it is not there or cannot be read as a `T`.
    pub fn required<T: FromStr>(&self, key: &str) -> anyhow::Result<T> {
        let text = self
            .option(key)
            .with_context(|| format!("{}: the metadata lack `{key}`", self.path.display()))?;
        text.parse().ok().with_context(|| {
            format!(
                "{}: metadata `{key}` is `{text}`, which is not understood",
                self.path.display()
            )
        })
    }
}
