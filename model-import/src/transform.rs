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
    let source = data.as_bytes();
    let bytes = match data.dtype.size() {
        1 => transposed::<1>(source, rows, columns),
        2 => transposed::<2>(source, rows, columns),
        4 => transposed::<4>(source, rows, columns),
        8 => transposed::<8>(source, rows, columns),
        other => unreachable!("no plain value has {other} bytes"),
    };
    TensorData::from_bytes_vec(bytes, vec![columns, rows], data.dtype)
}

/// Square by square, because along a column every value lies in another cache line.
fn transposed<const SIZE: usize>(source: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    const SIDE: usize = 16;
    let mut bytes = vec![0u8; source.len()];
    let (source, _) = source.as_chunks::<SIZE>();
    let (target, _) = bytes.as_chunks_mut::<SIZE>();
    for top in (0..rows).step_by(SIDE) {
        let bottom = rows.min(top + SIDE);
        for left in (0..columns).step_by(SIDE) {
            for column in left..columns.min(left + SIDE) {
                let place = column * rows;
                for (row, value) in (top..).zip(&mut target[place + top..place + bottom]) {
                    *value = source[row * columns + column];
                }
            }
        }
    }
    bytes
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
    fn transposition_reaches_every_value_of_every_size() {
        let (rows, columns) = (37, 53);
        for size in [1, 2, 4, 8] {
            let source: Vec<u8> = (0..rows * columns * size)
                .map(|place| (place * 7 % 251) as u8)
                .collect();
            let got = match size {
                1 => transposed::<1>(&source, rows, columns),
                2 => transposed::<2>(&source, rows, columns),
                4 => transposed::<4>(&source, rows, columns),
                _ => transposed::<8>(&source, rows, columns),
            };
            for row in 0..rows {
                for column in 0..columns {
                    let from = (row * columns + column) * size;
                    let to = (column * rows + row) * size;
                    assert_eq!(got[to..to + size], source[from..from + size]);
                }
            }
        }
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
