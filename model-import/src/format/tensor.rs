//! What is known of a stored tensor before it is read.

use burn::tensor::{BoolStore, DType};
use safetensors::Dtype;

/// A tensor as its file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Data type in the file.
    pub dtype: Stored,
    /// Shape, in the order of the hub's own files whatever the format's order is.
    pub shape: Vec<usize>,
}

/// Data type of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain(Dtype),
    /// Quantised blocks under their own name, read as f32.
    Blocks(&'static str),
}

impl Stored {
    /// Values as they are.
    pub(crate) const fn plain(dtype: Dtype) -> Self {
        Self(Kind::Plain(dtype))
    }

    /// Quantised blocks, such as `Q4_K`.
    pub(crate) const fn blocks(name: &'static str) -> Self {
        Self(Kind::Blocks(name))
    }

    /// The data type in which the tensor is read, where Burn has one: f32 for quantised blocks.
    pub fn burn(self) -> Option<DType> {
        let Kind::Plain(dtype) = self.0 else {
            return Some(DType::F32);
        };
        Some(match dtype {
            Dtype::BOOL => DType::Bool(BoolStore::Native),
            Dtype::U8 => DType::U8,
            Dtype::I8 => DType::I8,
            Dtype::U16 => DType::U16,
            Dtype::I16 => DType::I16,
            Dtype::U32 => DType::U32,
            Dtype::I32 => DType::I32,
            Dtype::U64 => DType::U64,
            Dtype::I64 => DType::I64,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            _ => return None,
        })
    }

    /// The stored form of a Burn data type.
    pub(crate) fn of(dtype: DType) -> Option<Self> {
        Some(Self::plain(match dtype {
            DType::Bool(BoolStore::Native | BoolStore::U8) => Dtype::BOOL,
            DType::U8 => Dtype::U8,
            DType::I8 => Dtype::I8,
            DType::U16 => Dtype::U16,
            DType::I16 => Dtype::I16,
            DType::U32 => Dtype::U32,
            DType::I32 => Dtype::I32,
            DType::U64 => Dtype::U64,
            DType::I64 => Dtype::I64,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            DType::F32 | DType::Flex32 => Dtype::F32,
            DType::F64 => Dtype::F64,
            _ => return None,
        }))
    }

    /// Bits of one value; nothing for quantised blocks, which hold many.
    pub(crate) fn bits(self) -> usize {
        match self.0 {
            Kind::Plain(dtype) => dtype.bitsize(),
            Kind::Blocks(_) => 0,
        }
    }

    /// Bytes of a tensor of plain values; `None` where the shape is not possible.
    pub(crate) fn num_bytes(self, shape: &[usize]) -> Option<usize> {
        let bits = shape
            .iter()
            .try_fold(1usize, |n, d| n.checked_mul(*d))?
            .checked_mul(self.bits())?;
        (bits % 8 == 0).then_some(bits / 8)
    }
}

impl std::fmt::Display for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Kind::Plain(dtype) => write!(f, "{dtype}"),
            Kind::Blocks(name) => f.write_str(name),
        }
    }
}
