//! Modules from checkpoints, and checkpoints from modules.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bool, DType, Element, FloatDType, Int, Tensor, TensorData, backend::Backend};
use burn_store::{ModuleSnapshot, TensorSnapshot, TensorSnapshotError};

use crate::checkpoint::Checkpoint;
use crate::error::ImportError;
use crate::format::Stored;
use crate::format::safetensors::{Planned, write};
use crate::key_map::KeyMap;
use crate::report::{LoadReport, Mismatch, Misshapen};
use crate::transform::{Layout, cast_float, hub_form};

/// Loads a checkpoint into a module, strictly: every parameter from a tensor of its shape, every tensor
/// used or ignored by name. Floats become f32; devices and gradient requirements stay the module's.
/// Parameters that share an id (tied weights) are satisfied by a tensor for one of them.
///
/// # Errors
/// [`ImportError::Mismatch`] lists all that is missing, unused or misshapen; the module is then untouched.
/// [`ImportError::NotFinite`] and damage found while reading leave it partly loaded: drop it.
pub fn load_into<B: Backend, M: ModuleSnapshot<B>>(
    module: &mut M,
    checkpoint: &Checkpoint,
    key_map: &KeyMap,
) -> Result<LoadReport, ImportError> {
    load(module, checkpoint, key_map, true)
}

/// As [`load_into`], but parameters without a tensor stay as they are: adapters, single towers.
/// Tensors without a parameter are still an error.
///
/// # Errors
/// [`ImportError::Mismatch`] lists all that is unused or misshapen; the module is then untouched.
/// [`ImportError::NotFinite`] and damage found while reading leave it partly loaded: drop it.
pub fn load_partial<B: Backend, M: ModuleSnapshot<B>>(
    module: &mut M,
    checkpoint: &Checkpoint,
    key_map: &KeyMap,
) -> Result<LoadReport, ImportError> {
    load(module, checkpoint, key_map, false)
}

/// Data type of saved floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SaveDtype {
    /// Half precision: small files; values beyond 65504 are an error.
    F16,
    /// Brain floats.
    BF16,
    /// Single precision.
    #[default]
    F32,
}

impl SaveDtype {
    pub(crate) fn burn(self) -> DType {
        match self {
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
            Self::F32 => DType::F32,
        }
    }
}

/// What a parameter holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Float,
    Int,
    Bool,
}

/// A parameter of the module, in the hub's terms.
struct Slot {
    /// The module's own path.
    path: String,
    /// The path with the hub's words for the parameter itself: what key maps speak of.
    name: String,
    layout: Layout,
    /// Shape in the hub's layout.
    shape: Vec<usize>,
    kind: Kind,
    id: ParamId,
}

/// Lists a module's parameters without initialising those that are still lazy.
#[derive(Default)]
struct Slots {
    path: Vec<String>,
    types: Vec<String>,
    slots: Vec<Slot>,
}

impl Slots {
    fn push(&mut self, id: ParamId, shape: &[usize], kind: Kind) {
        let path = self.path.join(".");
        let module_type = self
            .types
            .iter()
            .rev()
            .find(|t| t.starts_with("Struct:") || t.starts_with("Enum:"));
        let (name, layout) = hub_form(&path, module_type.map(String::as_str), shape.len());
        self.slots.push(Slot {
            path,
            name,
            layout,
            shape: layout.shape(shape),
            kind,
            id,
        });
    }
}

impl<B: Backend> ModuleVisitor<B> for Slots {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.types.push(container_type.into());
        // The hub knows nothing of enums: their variants are not part of a name.
        if !container_type.starts_with("Enum:") {
            self.path.push(name.into());
        }
    }
    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.types.pop();
        if !container_type.starts_with("Enum:") {
            self.path.pop();
        }
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.push(param.id, param.lazy_shape().as_ref(), Kind::Float);
    }
    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<B, D, Int>>) {
        self.push(param.id, param.lazy_shape().as_ref(), Kind::Int);
    }
    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<B, D, Bool>>) {
        self.push(param.id, param.lazy_shape().as_ref(), Kind::Bool);
    }
}

/// Names and shapes of a module's parameters as the hub's file holds them; tied ones once. Parameters that are still
/// lazy stay so: an architecture of any size is described without its weights.
pub fn hub_shapes<B: Backend, M: Module<B>>(
    module: &M,
    key_map: &KeyMap,
) -> BTreeMap<String, Vec<usize>> {
    let mut slots = Slots::default();
    module.visit(&mut slots);
    let mut seen = BTreeSet::new();
    let once = slots
        .slots
        .into_iter()
        .filter(|slot| seen.insert(slot.id.val()));
    once.map(|slot| {
        let name = key_map.to_hub(&slot.name);
        let shape = match key_map.is_scalar(&name) {
            true => Vec::new(),
            false => slot.shape,
        };
        (name, shape)
    })
    .collect()
}

fn load<B: Backend, M: ModuleSnapshot<B>>(
    module: &mut M,
    checkpoint: &Checkpoint,
    key_map: &KeyMap,
    strict: bool,
) -> Result<LoadReport, ImportError> {
    let mut slots = Slots::default();
    module.visit(&mut slots);
    let slots = slots.slots;
    let mut report = LoadReport {
        path: checkpoint.path().into(),
        ..LoadReport::default()
    };
    let mut mismatch = Mismatch {
        path: checkpoint.path().into(),
        ..Mismatch::default()
    };

    let by_parameter = names_by_parameter(checkpoint, key_map, &mut report)?;
    let known: BTreeSet<&str> = slots.iter().map(|slot| slot.name.as_str()).collect();
    mismatch.unused = by_parameter
        .iter()
        .filter(|(ours, _)| !known.contains(ours.as_str()))
        .map(|(_, hub)| hub.clone())
        .collect();
    // Tied parameters: a tensor for one of them serves all.
    let by_id: BTreeMap<u64, &String> = slots
        .iter()
        .rev()
        .filter_map(|slot| Some((slot.id.val(), by_parameter.get(&slot.name)?)))
        .collect();

    let troubles = Rc::new(Troubles::default());
    let mut snapshots = Vec::with_capacity(slots.len());
    for slot in &slots {
        let own = by_parameter.get(&slot.name);
        let Some(hub) = own.or_else(|| by_id.get(&slot.id.val()).copied()) else {
            if strict {
                mismatch.missing.push(key_map.to_hub(&slot.name));
            } else {
                report.kept.push(slot.path.clone());
            }
            continue;
        };
        let Some(info) = checkpoint.info(hub) else {
            continue;
        };
        let scalar = info.shape.is_empty() && slot.shape == [1];
        if info.shape != slot.shape && !scalar {
            mismatch.misshapen.push(Misshapen {
                name: hub.clone(),
                expected: slot.shape.clone(),
                found: info.shape.clone(),
            });
            continue;
        }
        let dtype = match target_dtype::<B>(info.dtype, slot.kind, checkpoint.float_dtype()) {
            Ok(dtype) => dtype,
            Err(reason) => {
                mismatch.mistyped.push((hub.clone(), reason));
                continue;
            }
        };
        if own.is_some() {
            report.loaded.push(slot.path.clone());
            *report.dtypes.entry(info.dtype.to_string()).or_default() += 1;
            report.num_values += info.shape.iter().product::<usize>();
        } else {
            report.tied.push(slot.path.clone());
        }
        snapshots.push(snapshot(checkpoint, hub, slot, dtype, &troubles));
    }
    if !mismatch.is_empty() {
        return Err(ImportError::Mismatch(Box::new(mismatch)));
    }

    let result = module.apply(snapshots, None, None, true);
    if let Some(error) = troubles.failure.take() {
        return Err(error);
    }
    let not_finite = troubles.not_finite.take();
    if !not_finite.is_empty() {
        return Err(ImportError::NotFinite {
            path: checkpoint.path().into(),
            tensors: not_finite,
        });
    }
    match result.errors.first() {
        None => Ok(report),
        Some(error) => Err(ImportError::BadTensor {
            path: checkpoint.path().into(),
            name: "(while loading)".into(),
            reason: error.to_string(),
        }),
    }
}

/// Parameter name to hub name, without the ignored ones.
fn names_by_parameter(
    checkpoint: &Checkpoint,
    key_map: &KeyMap,
    report: &mut LoadReport,
) -> Result<BTreeMap<String, String>, ImportError> {
    let mut by_parameter: BTreeMap<String, String> = BTreeMap::new();
    for hub in checkpoint.names() {
        let Some(ours) = key_map.to_ours(hub) else {
            report.ignored.push(hub.into());
            continue;
        };
        if let Some(first) = by_parameter.insert(ours.clone(), hub.into()) {
            return Err(ImportError::Clash {
                path: checkpoint.path().into(),
                parameter: ours,
                first,
                second: hub.into(),
            });
        }
    }
    Ok(by_parameter)
}

/// The data type a stored tensor takes in the module.
fn target_dtype<B: Backend>(
    stored: Stored,
    kind: Kind,
    floats: FloatDType,
) -> Result<DType, String> {
    let dtype = stored
        .burn()
        .ok_or_else(|| format!("{stored} is not supported; use f16, bf16 or f32 weights"))?;
    let is_bool = matches!(dtype, DType::Bool(_));
    match kind {
        Kind::Float if dtype.is_float() => Ok(floats.into()),
        Kind::Int if !dtype.is_float() && !is_bool => Ok(<B::IntElem as Element>::dtype()),
        Kind::Bool if is_bool => Ok(dtype),
        Kind::Float => Err(format!("expected floats, found {stored}")),
        Kind::Int => Err(format!("expected integers, found {stored}")),
        Kind::Bool => Err(format!("expected booleans, found {stored}")),
    }
}

/// What turned up while tensors were read: snapshots carry text only.
#[derive(Default)]
struct Troubles {
    /// The first tensor that could not be read.
    failure: RefCell<Option<ImportError>>,
    /// Tensors with values that are not finite, and how many.
    not_finite: RefCell<Vec<(String, usize)>>,
}

/// A tensor that is read, cast and transposed when the module asks for it, one at a time.
fn snapshot(
    checkpoint: &Checkpoint,
    hub: &str,
    slot: &Slot,
    dtype: DType,
    troubles: &Rc<Troubles>,
) -> TensorSnapshot {
    let layout = slot.layout;
    let source = checkpoint.clone();
    let hub = hub.to_string();
    let troubles = troubles.clone();
    let read = move || -> Result<TensorData, TensorSnapshotError> {
        let data = source.tensor(&hub).map_err(|error| {
            let text = error.to_string();
            troubles.failure.borrow_mut().get_or_insert(error);
            TensorSnapshotError::IoError(text)
        })?;
        let count = count_not_finite(&data);
        if count > 0 {
            troubles.not_finite.borrow_mut().push((hub.clone(), count));
        }
        if dtype == DType::F16 && overflows(&data) {
            let error = ImportError::Overflow {
                name: hub.clone(),
                dtype: "f16",
            };
            let text = error.to_string();
            troubles.failure.borrow_mut().get_or_insert(error);
            return Err(TensorSnapshotError::IoError(text));
        }
        let mut data = data.convert_dtype(dtype);
        if data.shape.is_empty() {
            data.shape = [1].into();
        }
        Ok(layout.data(data))
    };
    TensorSnapshot::from_closure(
        Rc::new(read),
        dtype,
        layout.shape(&slot.shape).into(),
        slot.path.split('.').map(String::from).collect(),
        Vec::new(),
        slot.id,
    )
}

/// Number of floats that are infinite or none at all: those whose exponent is all ones.
fn count_not_finite(data: &TensorData) -> usize {
    let bytes = data.as_bytes();
    let halves = |exponent: u16| {
        let values = bytes.chunks_exact(2);
        values
            .filter(|b| u16::from_le_bytes([b[0], b[1]]) & exponent == exponent)
            .count()
    };
    match data.dtype {
        DType::F16 => halves(0x7c00),
        DType::BF16 => halves(0x7f80),
        DType::F32 | DType::Flex32 => {
            let values = bytes.as_chunks().0.iter();
            values
                .filter(|b| u32::from_le_bytes(**b) & 0x7f80_0000 == 0x7f80_0000)
                .count()
        }
        DType::F64 => {
            let values = bytes.as_chunks().0.iter();
            values
                .filter(|b| !f64::from_le_bytes(**b).is_finite())
                .count()
        }
        _ => 0,
    }
}

/// Saves a module under the hub's names and in the hub's layout, with the metadata `format = pt` that
/// the hub's libraries ask for, and the given metadata. Parameters that share an id are written once.
/// The file appears whole or not at all; equal modules give equal files.
///
/// # Errors
/// A key map without a way back, a value too large for f16, a full disk. An older file stays then.
pub fn save_from<B: Backend, M: ModuleSnapshot<B>>(
    module: &M,
    path: &Path,
    key_map: &KeyMap,
    dtype: SaveDtype,
    metadata: &BTreeMap<String, String>,
) -> Result<(), ImportError> {
    let mut ids = BTreeSet::new();
    let mut plan = Vec::new();
    let mut sources = Vec::new();
    for snapshot in module.collect(None, None, true) {
        if let Some(id) = snapshot.tensor_id
            && !ids.insert(id.val())
        {
            continue;
        }
        let path_here = snapshot.full_path();
        let module_type = snapshot.module_type();
        let (name, layout) = hub_form(
            &path_here,
            module_type.as_deref(),
            snapshot.shape.num_dims(),
        );
        let hub = reversible_name(key_map, name)?;
        let stored = if snapshot.dtype.is_float() {
            dtype.burn()
        } else {
            snapshot.dtype
        };
        let shape = if key_map.is_scalar(&hub) && snapshot.shape.num_elements() == 1 {
            Vec::new()
        } else {
            layout.shape(snapshot.shape.as_ref())
        };
        plan.push(Planned {
            name: hub,
            dtype: Stored::of(stored).ok_or_else(|| ImportError::Parameter {
                name: path_here,
                reason: format!("safetensors has no data type for {stored:?}"),
            })?,
            shape,
        });
        sources.push((snapshot, layout));
    }
    let mut all = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    all.extend(metadata.clone());
    write(path, &plan, &all, |index| {
        let (snapshot, layout) = &sources[index];
        let name = &plan[index].name;
        let data = snapshot.to_data().map_err(|e| ImportError::Parameter {
            name: name.clone(),
            reason: e.to_string(),
        })?;
        if dtype == SaveDtype::F16 && overflows(&data) {
            return Err(ImportError::Overflow {
                name: name.clone(),
                dtype: "f16",
            });
        }
        Ok(layout.data(cast_float(data, dtype.burn())))
    })
}

/// The hub name of a parameter, if it leads back to it.
fn reversible_name(key_map: &KeyMap, parameter: String) -> Result<String, ImportError> {
    let hub = key_map.to_hub(&parameter);
    match key_map.to_ours(&hub) {
        Some(back) if back == parameter => Ok(hub),
        other => Err(ImportError::NotReversible {
            parameter,
            hub,
            back: other.map_or("is ignored".into(), |o| format!("leads to `{o}`")),
        }),
    }
}

/// Whether a finite value would become infinite in f16.
pub(crate) fn overflows(data: &TensorData) -> bool {
    data.dtype.is_float()
        && data
            .iter::<f32>()
            .any(|v| v.is_finite() && half::f16::from_f32(v).is_infinite())
}
