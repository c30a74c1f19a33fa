//! Differences of layout between the hub (PyTorch) and Burn, and casts.
//!
//! Burn's `Linear` keeps `[in, out]`, PyTorch `[out, in]`. Burn's norms call their gain `gamma` and
//! their shift `beta`, PyTorch `weight` and `bias`. Everything else is equal: embeddings,
//! convolutions, and parameters that a module holds itself (`Param<Tensor<…>>`) are taken as they are.

use burn::tensor::{DType, TensorData};

const NORMS: [&str; 5] = [
    "LayerNorm",
    "GroupNorm",
    "InstanceNorm",
    "RmsNorm",
    "BatchNorm",
];

/// Which module a parameter belongs to, as far as its layout depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// As on the hub.
    Plain,
    /// `[in, out]` here, `[out, in]` on the hub.
    Transposed,
}

/// The hub's word for a parameter's own name, and its layout. `module_type` is Burn's, such as `Struct:Linear`.
pub(crate) fn hub_form(path: &str, module_type: Option<&str>, rank: usize) -> (String, Layout) {
    let kind = module_type
        .and_then(|t| t.strip_prefix("Struct:"))
        .unwrap_or_default();
    let (parent, field) = path.rsplit_once('.').unwrap_or(("", path));
    let renamed = match field {
        "gamma" if NORMS.contains(&kind) => "weight",
        "beta" if NORMS.contains(&kind) => "bias",
        other => other,
    };
    let name = if parent.is_empty() {
        renamed.to_string()
    } else {
        format!("{parent}.{renamed}")
    };
    let layout = if kind == "Linear" && field == "weight" && rank == 2 {
        Layout::Transposed
    } else {
        Layout::Plain
    };
    (name, layout)
}

impl Layout {
    /// A shape of the one side in the form of the other.
    pub(crate) fn shape(self, shape: &[usize]) -> Vec<usize> {
        match self {
            Self::Plain => shape.to_vec(),
            Self::Transposed => shape.iter().rev().copied().collect(),
        }
    }

    /// Values of the one side in the form of the other.
    pub(crate) fn data(self, data: TensorData) -> TensorData {
        match self {
            Self::Plain => data,
            Self::Transposed => transpose(data),
        }
    }
}

/// Swaps the two dimensions, whatever the data type.
fn transpose(data: TensorData) -> TensorData {
    let (rows, columns) = (data.shape[0], data.shape[1]);
    let size = data.dtype.size();
    let source = data.as_bytes();
    let mut bytes = vec![0u8; source.len()];
    for row in 0..rows {
        for column in 0..columns {
            let from = (row * columns + column) * size;
            let to = (column * rows + row) * size;
            bytes[to..to + size].copy_from_slice(&source[from..from + size]);
        }
    }
    TensorData::from_bytes_vec(bytes, vec![columns, rows], data.dtype)
}

/// Casts floats; integers and booleans stay as they are.
pub(crate) fn cast_float(data: TensorData, dtype: DType) -> TensorData {
    if data.dtype.is_float() {
        data.convert_dtype(dtype)
    } else {
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposition_swaps_rows_and_columns() {
        let data = TensorData::new(vec![1f32, 2., 3., 4., 5., 6.], [2, 3]);
        let swapped = transpose(data.clone());
        assert_eq!(swapped.shape.to_vec(), [3, 2]);
        assert_eq!(
            swapped.to_vec::<f32>().expect("floats"),
            [1., 4., 2., 5., 3., 6.]
        );
        assert_eq!(transpose(swapped), data);
    }

    #[test]
    fn only_burns_own_modules_are_translated() {
        let form = |path, kind| hub_form(path, Some(kind), 2);
        assert_eq!(
            form("a.fc.weight", "Struct:Linear"),
            ("a.fc.weight".into(), Layout::Transposed)
        );
        assert_eq!(form("norm.gamma", "Struct:RmsNorm").0, "norm.weight");
        assert_eq!(form("beta", "Struct:LayerNorm").0, "bias");
        assert_eq!(
            form("x.gamma", "Struct:Mine"),
            ("x.gamma".into(), Layout::Plain)
        );
        assert_eq!(form("e.weight", "Struct:Embedding").1, Layout::Plain);
    }
}
