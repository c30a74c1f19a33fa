//! What a kind needs to compute its outputs: the recorded inputs on the device, and the checkpoint's folder.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use burn::module::Module;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};

use super::file::GoldenFile;
use crate::app::backend::Backend;
use crate::nn::precision::cast_parameters;

/// One golden file, with where and in what to compute.
pub struct Case<'a> {
    pub golden: &'a GoldenFile,
    pub model: Option<&'a Path>,
    pub adapter: Option<&'a Path>,
    pub dtype: FloatDType,
    pub device: Device<Backend>,
    pub train_device: Device<Backend>,
}

impl Case<'_> {
    /// The checkpoint's folder.
    pub fn folder(&self) -> anyhow::Result<&Path> {
        self.model.with_context(|| {
            format!(
                "{}: this golden file has no weights of its own: name the checkpoint's folder before --golden",
                self.golden.path().display()
            )
        })
    }

    /// A loaded network in the type to compute in.
    pub fn ready<M: Module<Backend>>(&self, network: M) -> M {
        match self.dtype {
            FloatDType::F32 => network,
            dtype => cast_parameters(network, dtype),
        }
    }

    /// Input `name` as numbers in the type to compute in.
    pub fn floats<const D: usize>(&self, name: &str) -> anyhow::Result<Tensor<Backend, D>> {
        let data = self.golden.input(name, D)?.convert_dtype(DType::F32);
        let values = Tensor::<Backend, D>::from_data(data, &self.device);
        Ok(values.cast(self.dtype))
    }

    /// Input `name` as integers.
    pub fn integers<const D: usize>(&self, name: &str) -> anyhow::Result<Tensor<Backend, D, Int>> {
        let data = self.golden.input(name, D)?.convert_dtype(DType::I64);
        Ok(Tensor::from_data(data, &self.device))
    }

    /// Token ids: integers below `vocabulary`.
    pub fn tokens(&self, name: &str, vocabulary: usize) -> anyhow::Result<Tensor<Backend, 2, Int>> {
        for row in self.golden.rows(name)? {
            if let Some(id) = row.iter().find(|id| **id as usize >= vocabulary) {
                anyhow::bail!(
                    "{}: `input.{name}` holds token {id}, the network knows {vocabulary}: was it recorded with another checkpoint?",
                    self.golden.path().display()
                );
            }
        }
        self.integers(name)
    }

    /// Input `attention_mask`, where it was recorded.
    pub fn mask(&self) -> anyhow::Result<Option<Tensor<Backend, 2, Int>>> {
        let there = self.golden.gives("attention_mask");
        there.then(|| self.integers("attention_mask")).transpose()
    }
}

/// Computed outputs by name.
#[derive(Default)]
pub struct Outputs(BTreeMap<String, TensorData>);

impl Outputs {
    /// Output `name`, or none.
    pub fn get(&self, name: &str) -> Option<&TensorData> {
        self.0.get(name)
    }

    /// Adds an output.
    pub fn put<const D: usize>(&mut self, name: &str, values: Tensor<Backend, D>) {
        self.put_data(name, values.into_data().convert_dtype(DType::F32));
    }

    /// Adds an output that is on the host already.
    pub fn put_data(&mut self, name: &str, data: TensorData) {
        self.0.insert(name.into(), data);
    }

    /// Adds rows of token ids of one length.
    pub fn put_rows(&mut self, name: &str, rows: &[Vec<u32>]) {
        let width = rows.first().map_or(0, Vec::len);
        let ids: Vec<i64> = rows.iter().flatten().map(|id| i64::from(*id)).collect();
        self.put_data(name, TensorData::new(ids, [rows.len(), width]));
    }
}

/// `values` with the rows at masked places set to zero, as golden files record them.
pub fn zeroed(
    values: Tensor<Backend, 3>,
    mask: Option<&Tensor<Backend, 2, Int>>,
) -> Tensor<Backend, 3> {
    match mask {
        None => values,
        Some(mask) => {
            let kept = mask.clone().not_equal_elem(0).float().cast(values.dtype());
            values * kept.unsqueeze_dim(2)
        }
    }
}
