//! The calls that PyTorch writes into a file of tensors, done by name.

use safetensors::Dtype;

use super::pickle::{Id, Objects, PickleError, Value, broken};
use crate::format::Stored;

/// PyTorch's own limit of dimensions.
const LARGEST_RANK: usize = 64;
/// Keys of storages are small numbers; they are copied where they are mentioned.
const LONGEST_KEY: usize = 64;

type Result<T> = std::result::Result<T, PickleError>;

/// A run of values of one data type, stored under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    /// `None` where the storage is untyped and the tensor says what it holds.
    pub(super) dtype: Option<Dtype>,
    pub(super) key: String,
    /// Number of values; of bytes where the storage is untyped.
    pub(super) num_values: u64,
}

impl Storage {
    /// Bytes of one value.
    pub(super) fn value_bytes(&self) -> u64 {
        self.dtype.map_or(1, |dtype| dtype.bitsize() as u64 / 8)
    }
}

/// A tensor as a view into a storage: value `i, j, …` at `offset + i · stride[0] + j · stride[1] + …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) dtype: Stored,
    pub(super) storage_key: String,
    pub(super) storage_bytes: u64,
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<u64>,
}

/// What a call gives.
pub(super) enum Rebuilt {
    New(Value),
    /// One of its arguments.
    Same(Id),
}

/// The storage of a persistent identifier: `("storage", class, key, location, number, view)`.
pub(super) fn storage(objects: &Objects, id: Id) -> Result<Storage> {
    let wrong = || broken("a storage is not described as PyTorch does");
    let parts = objects.tuple(id).ok_or_else(wrong)?;
    let (Some(kind), Some(class), Some(key), Some(number)) =
        (parts.first(), parts.get(1), parts.get(2), parts.get(4))
    else {
        return Err(wrong());
    };
    match objects.text(*kind) {
        Some("storage") => {}
        Some("module") => {
            return Err(broken(
                "it is a whole model with its program, not a state_dict; save `model.state_dict()` instead",
            ));
        }
        _ => return Err(wrong()),
    }
    if parts
        .get(5)
        .is_some_and(|view| !matches!(objects.get(*view), Value::None))
    {
        return Err(broken(
            "a storage is a view of another one, as only the oldest files have it; load and save the file with a current PyTorch",
        ));
    }
    let class = objects.global(*class).ok_or_else(wrong)?;
    let dtype = match class {
        "torch.storage.UntypedStorage" | "torch.UntypedStorage" => None,
        _ => Some(storage_dtype(class).ok_or_else(|| {
            broken(format!(
                "a storage of class `{class}` is not supported; save the weights in f32, f16 or bf16"
            ))
        })?),
    };
    let key = match objects.get(*key) {
        Value::Text(key) if key.len() <= LONGEST_KEY => key.to_string(),
        Value::Int(key) => key.to_string(),
        _ => return Err(wrong()),
    };
    let num_values = objects
        .int(*number)
        .and_then(|n| u64::try_from(n).ok())
        .ok_or_else(wrong)?;
    Ok(Storage {
        dtype,
        key,
        num_values,
    })
}

fn storage_dtype(class: &str) -> Option<Dtype> {
    Some(match class.strip_prefix("torch.")? {
        "FloatStorage" => Dtype::F32,
        "DoubleStorage" => Dtype::F64,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        _ => return None,
    })
}

fn named_dtype(global: &str) -> Option<Dtype> {
    Some(match global.strip_prefix("torch.")? {
        "float32" => Dtype::F32,
        "float64" => Dtype::F64,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "int64" => Dtype::I64,
        "int32" => Dtype::I32,
        "int16" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint8" => Dtype::U8,
        "uint16" => Dtype::U16,
        "uint32" => Dtype::U32,
        "uint64" => Dtype::U64,
        "bool" => Dtype::BOOL,
        _ => return None,
    })
}

/// `callable(*arguments)`, if it is one of those that tensors need.
pub(super) fn call(objects: &Objects, callable: Id, arguments: Id) -> Result<Rebuilt> {
    let Some(mut name) = objects.global(callable) else {
        return Err(PickleError::Forbidden("something without a name".into()));
    };
    let mut arguments = parts(objects, arguments)?;
    // A subclass of tensor: (function, class, its arguments, attributes). Real files do not nest it.
    if name == "torch._tensor._rebuild_from_type_v2" {
        let [function, _class, inner, ..] = arguments else {
            return Err(broken("a tensor's subclass lacks its arguments"));
        };
        name = objects
            .global(*function)
            .ok_or_else(|| PickleError::Forbidden("something without a name".into()))?;
        arguments = parts(objects, *inner)?;
    }
    match name {
        "collections.OrderedDict" => Ok(Rebuilt::New(Value::Dict(pairs(objects, arguments)?))),
        "torch._utils._rebuild_tensor"
        | "torch._utils._rebuild_tensor_v2"
        | "torch._utils._rebuild_tensor_v3" => {
            let view = tensor(objects, arguments, name.ends_with("_v3"))?;
            Ok(Rebuilt::New(Value::Tensor(Box::new(view))))
        }
        "torch._utils._rebuild_parameter"
        | "torch._utils._rebuild_parameter_with_state"
        | "torch.Size" => match arguments.first() {
            Some(first) => Ok(Rebuilt::Same(*first)),
            None => Err(broken("a parameter lacks its tensor")),
        },
        "torch.device" => Ok(Rebuilt::New(Value::Other)),
        other => Err(PickleError::Forbidden(other.into())),
    }
}

fn parts(objects: &Objects, arguments: Id) -> Result<&[Id]> {
    objects
        .tuple(arguments)
        .ok_or_else(|| broken("a call lacks its arguments"))
}

/// The pairs that an ordered dictionary is made from, if any.
fn pairs(objects: &Objects, arguments: &[Id]) -> Result<Vec<(Id, Id)>> {
    let Some(list) = arguments.first() else {
        return Ok(Vec::new());
    };
    let pair = |id: &Id| match objects.tuple(*id) {
        Some([key, value]) => Ok((*key, *value)),
        _ => Err(broken("a dictionary is made from what are no pairs")),
    };
    parts(objects, *list)?.iter().map(pair).collect()
}

/// `(storage, offset, shape, stride, requires_grad, hooks[, dtype])`; the third version has the data type.
fn tensor(objects: &Objects, arguments: &[Id], typed: bool) -> Result<View> {
    let wrong = || broken("a tensor is not described as PyTorch does");
    let [storage, offset, shape, stride, ..] = arguments else {
        return Err(wrong());
    };
    let Value::Storage(storage) = objects.get(*storage) else {
        return Err(wrong());
    };
    let dtype = if typed {
        let global = arguments.get(6).and_then(|id| objects.global(*id));
        named_dtype(global.ok_or_else(wrong)?)
    } else {
        storage.dtype
    };
    let dtype = dtype.ok_or_else(|| {
        broken("a tensor is of a data type that is not supported; save the weights in f32, f16 or bf16")
    })?;
    let numbers = |id: Id| -> Result<Vec<u64>> {
        let parts = objects
            .tuple(id)
            .filter(|parts| parts.len() <= LARGEST_RANK);
        let parts = parts.ok_or_else(wrong)?;
        let number = |id: &Id| objects.int(*id).and_then(|n| u64::try_from(n).ok());
        parts
            .iter()
            .map(|id| number(id).ok_or_else(wrong))
            .collect()
    };
    let offset = objects.int(*offset).and_then(|n| u64::try_from(n).ok());
    let shape = numbers(*shape)?;
    let stride = numbers(*stride)?;
    if shape.len() != stride.len() {
        return Err(wrong());
    }
    let value_bytes = storage.value_bytes();
    Ok(View {
        dtype: Stored::plain(dtype),
        storage_key: storage.key.clone(),
        storage_bytes: storage
            .num_values
            .checked_mul(value_bytes)
            .ok_or_else(wrong)?,
        offset: offset.ok_or_else(wrong)?,
        shape: shape
            .into_iter()
            .map(|d| usize::try_from(d).map_err(|_| wrong()))
            .collect::<Result<_>>()?,
        stride,
    })
}

impl View {
    /// The first value and one past the last that the view touches, if it fits its storage and does not
    /// repeat values: then no tensor is larger than what the file holds.
    pub(super) fn span(&self) -> std::result::Result<(u64, u64), String> {
        let beyond = || {
            format!(
                "shape {:?} with strides {:?} from value {} on goes beyond its storage of {} bytes; download the file again",
                self.shape, self.stride, self.offset, self.storage_bytes
            )
        };
        let num_bytes = self.dtype.num_bytes(&self.shape).ok_or_else(beyond)?;
        if num_bytes == 0 {
            return Ok((0, 0));
        }
        let mut last = self.offset;
        for (size, stride) in self.shape.iter().zip(&self.stride) {
            let step = (*size as u64 - 1).checked_mul(*stride);
            last = step.and_then(|s| last.checked_add(s)).ok_or_else(beyond)?;
        }
        let value_bytes = self.dtype.bits() as u64 / 8;
        let end = last.checked_add(1).ok_or_else(beyond)?;
        if end
            .checked_mul(value_bytes)
            .is_none_or(|e| e > self.storage_bytes)
        {
            return Err(beyond());
        }
        if num_bytes as u64 > self.storage_bytes {
            return Err(format!(
                "shape {:?} repeats the values of a smaller storage; save it with `.contiguous().clone()`",
                self.shape
            ));
        }
        Ok((self.offset, end))
    }

    /// Whether the values stand in the file in the order of the shape.
    pub(super) fn is_contiguous(&self) -> bool {
        let mut expected = 1u64;
        for (size, stride) in self.shape.iter().zip(&self.stride).rev() {
            if *size != 1 && *stride != expected {
                return false;
            }
            expected = expected.saturating_mul(*size as u64);
        }
        true
    }

    /// Values of the span in the order of the shape.
    pub(super) fn gather(&self, span: &[u8]) -> Vec<u8> {
        let width = self.dtype.bits() / 8;
        let count = self.shape.iter().product::<usize>();
        let mut gathered = Vec::with_capacity(count * width);
        let mut index = vec![0usize; self.shape.len()];
        for _ in 0..count {
            let place: u64 = index
                .iter()
                .zip(&self.stride)
                .map(|(i, s)| *i as u64 * s)
                .sum();
            let start = place as usize * width;
            gathered.extend_from_slice(&span[start..start + width]);
            for dimension in (0..index.len()).rev() {
                index[dimension] += 1;
                if index[dimension] < self.shape[dimension] {
                    break;
                }
                index[dimension] = 0;
            }
        }
        gathered
    }
}
