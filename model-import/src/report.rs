//! What a load did, or why it could not.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// What was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// The file or index that was read.
    pub path: PathBuf,
    /// Parameters that were loaded, by module path.
    pub loaded: Vec<String>,
    /// Parameters that took the tensor of another one they share storage with.
    pub tied: Vec<String>,
    /// Parameters left as they were: only in a partial load.
    pub kept: Vec<String>,
    /// Tensors of the file that the key map ignores.
    pub ignored: Vec<String>,
    /// Number of loaded tensors by their data type in the file.
    pub dtypes: BTreeMap<String, usize>,
    /// Number of values loaded.
    pub num_values: usize,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtypes: Vec<String> = self
            .dtypes
            .iter()
            .map(|(dtype, count)| format!("{count} {dtype}"))
            .collect();
        write!(
            f,
            "{}: {} tensors ({}), {} values; {} ignored, {} tied, {} kept",
            self.path.display(),
            self.loaded.len(),
            dtypes.join(", "),
            self.num_values,
            self.ignored.len(),
            self.tied.len(),
            self.kept.len()
        )
    }
}

/// A tensor whose shape is not the parameter's. Both shapes in the hub's layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshapen {
    /// Name in the file.
    pub name: String,
    /// Shape that the module needs.
    pub expected: Vec<usize>,
    /// Shape in the file.
    pub found: Vec<usize>,
}

/// Every difference between a checkpoint and a module, by name in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// The file or index that was read.
    pub path: PathBuf,
    /// Parameters without a tensor.
    pub missing: Vec<String>,
    /// Tensors without a parameter.
    pub unused: Vec<String>,
    /// Tensors of another shape.
    pub misshapen: Vec<Misshapen>,
    /// Tensors of a data type that the parameter cannot take: name and reason.
    pub mistyped: Vec<(String, String)>,
}

impl Mismatch {
    pub(crate) fn is_empty(&self) -> bool {
        self.missing.is_empty()
            && self.unused.is_empty()
            && self.misshapen.is_empty()
            && self.mistyped.is_empty()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: the checkpoint does not fit the module",
            self.path.display()
        )?;
        for (title, names) in [
            ("missing from the file", &self.missing),
            ("unused by the module", &self.unused),
        ] {
            if !names.is_empty() {
                write!(f, "\n  {title} ({}):", names.len())?;
                for name in names {
                    write!(f, "\n    {name}")?;
                }
            }
        }
        if !self.misshapen.is_empty() {
            write!(f, "\n  of another shape ({}):", self.misshapen.len())?;
            for Misshapen {
                name,
                expected,
                found,
            } in &self.misshapen
            {
                write!(f, "\n    {name}: expected {expected:?}, found {found:?}")?;
                if expected.len() == 2 && expected.iter().rev().eq(found) {
                    write!(f, " (transposed?)")?;
                }
            }
        }
        if !self.mistyped.is_empty() {
            write!(f, "\n  of another data type ({}):", self.mistyped.len())?;
            for (name, reason) in &self.mistyped {
                write!(f, "\n    {name}: {reason}")?;
            }
        }
        write!(
            f,
            "\n  Nothing was loaded. Check that the configuration beside the weights is the one the module was built from."
        )
    }
}
