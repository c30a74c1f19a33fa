//! The device under test and golden files.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};

use ragar::optimisation::{Interrupt, Progress};

pub type TestBackend = ragar::app::backend::Backend;

/// The device named by `RAGAR_TEST_DEVICE` (default `flex`), without a graph.
pub fn device() -> Device<TestBackend> {
    devices().frozen
}

fn device_name() -> String {
    std::env::var("RAGAR_TEST_DEVICE").unwrap_or_else(|_| "flex".into())
}

/// Whether results may be asked for to the last bit.
pub fn on_flex() -> bool {
    device_name() == "flex"
}

/// The same device, with and without a graph.
pub fn devices() -> ragar::app::backend::Devices {
    ragar::app::backend::open(&device_name()).expect("the test device must be usable")
}

/// `tests/golden/<case>`.
pub fn golden_dir(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(case)
}

/// Recorded inputs and outputs of the reference implementation.
pub struct Golden {
    bytes: Vec<u8>,
    path: PathBuf,
}

impl Golden {
    /// Opens `tests/golden/<case>/golden.safetensors`.
    pub fn open(case: &str) -> Self {
        let path = golden_dir(case).join("golden.safetensors");
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { bytes, path }
    }

    /// The metadata value stored under `key`.
    pub fn metadata(&self, key: &str) -> Option<String> {
        let (_, header) =
            safetensors::SafeTensors::read_metadata(&self.bytes).expect("a golden header");
        header.metadata().as_ref().and_then(|m| m.get(key).cloned())
    }

    /// The tensor called `name` as host data (f32 or i64), with its shape.
    pub fn data(&self, name: &str) -> TensorData {
        let file = safetensors::SafeTensors::deserialize(&self.bytes).expect("a golden file");
        let view = file
            .tensor(name)
            .unwrap_or_else(|_| panic!("{}: no tensor {name}", self.path.display()));
        let shape = view.shape().to_vec();
        match view.dtype() {
            safetensors::Dtype::F32 => {
                let values: Vec<f32> = view
                    .data()
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")))
                    .collect();
                TensorData::new(values, shape)
            }
            safetensors::Dtype::I64 => {
                let values: Vec<i64> = view
                    .data()
                    .chunks_exact(8)
                    .map(|b| i64::from_le_bytes(b.try_into().expect("eight bytes")))
                    .collect();
                TensorData::new(values, shape)
            }
            other => panic!("{}: {name} has dtype {other:?}", self.path.display()),
        }
    }

    /// A float input on the test device.
    pub fn float<const D: usize>(&self, name: &str) -> Tensor<TestBackend, D> {
        Tensor::from_data(self.data(name), &device())
    }

    /// An integer input on the test device.
    pub fn int<const D: usize>(&self, name: &str) -> Tensor<TestBackend, D, burn::tensor::Int> {
        Tensor::from_data(self.data(name), &device())
    }

    /// Compares `actual` with the recorded tensor: 1e-5 absolute + 1e-4 of its largest value.
    pub fn check<const D: usize>(&self, name: &str, actual: Tensor<TestBackend, D>) {
        compare(name, &self.data(name), &actual.into_data(), 1e-5, 1e-4);
    }
}

/// How much wider than on the processor differences may be: `RAGAR_TEST_TOLERANCE`, for GPUs that round products to TF32.
fn widening() -> f32 {
    let asked = std::env::var("RAGAR_TEST_TOLERANCE").ok();
    asked.map_or(1.0, |factor| {
        factor.parse().expect("RAGAR_TEST_TOLERANCE is a number")
    })
}

/// Panics with the place and size of the worst difference beyond `absolute + relative · max|expected|`.
pub fn compare(
    name: &str,
    expected: &TensorData,
    actual: &TensorData,
    absolute: f32,
    relative: f32,
) {
    assert_eq!(
        expected.shape.to_vec(),
        actual.shape.to_vec(),
        "{name}: shape"
    );
    let expected: Vec<f32> = expected.iter::<f32>().collect();
    let actual: Vec<f32> = actual.iter::<f32>().collect();
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    let bound = (absolute + relative * largest) * widening();
    let (place, worst) = expected
        .iter()
        .zip(&actual)
        .map(|(e, a)| (e - a).abs())
        .enumerate()
        .fold((0, 0f32), |best, (i, d)| {
            if d > best.1 || d.is_nan() {
                (i, d)
            } else {
                best
            }
        });
    assert!(
        worst <= bound,
        "{name}: differs by {worst:e} at {place} (expected {}, got {}), bound {bound:e}",
        expected[place],
        actual[place]
    );
}

/// Whether [`compare`] would see a difference at the usual bounds: what a wrong network must show.
pub fn differs(expected: &TensorData, actual: &TensorData) -> bool {
    let comparison = std::panic::AssertUnwindSafe(|| compare("", expected, actual, 1e-5, 1e-4));
    std::panic::catch_unwind(comparison).is_err()
}

/// Raises an interrupt when a step is reached.
pub struct StopAfter<'a>(pub usize, pub &'a Interrupt);

impl Progress for StopAfter<'_> {
    fn begin(&self, _name: &str, _total: usize) {}
    fn advance(&self, position: usize, _message: &str) {
        if position == self.0 {
            self.1.raise();
        }
    }
    fn end(&self) {}
    fn note(&self, _text: &str) {}
}
