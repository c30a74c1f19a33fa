//! Quantised blocks, dequantised as ggml does it: the same operations in the same order in f32, so
//! that every bit of the result is the same.

use half::f16;
use safetensors::Dtype;

use crate::format::Stored;

/// A tensor type of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockType {
    /// Values as they are.
    Plain(Dtype),
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// Values in a block of the `K` types.
const SUPER: usize = 256;
/// Bytes of the packed scales in a block of `Q4_K` and `Q5_K`.
const PACKED_SCALES: usize = 12;

impl BlockType {
    /// The type of a number in the file; otherwise ggml's name for it, where known.
    pub(super) fn of(number: u32) -> Result<Self, Option<&'static str>> {
        Ok(match number {
            0 => Self::Plain(Dtype::F32),
            1 => Self::Plain(Dtype::F16),
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            24 => Self::Plain(Dtype::I8),
            25 => Self::Plain(Dtype::I16),
            26 => Self::Plain(Dtype::I32),
            27 => Self::Plain(Dtype::I64),
            28 => Self::Plain(Dtype::F64),
            30 => Self::Plain(Dtype::BF16),
            9 => return Err(Some("Q8_1")),
            10 => return Err(Some("Q2_K")),
            11 => return Err(Some("Q3_K")),
            15 => return Err(Some("Q8_K")),
            16..=23 | 29 => return Err(Some("IQ")),
            34 | 35 => return Err(Some("TQ")),
            39 => return Err(Some("MXFP4")),
            _ => return Err(None),
        })
    }

    pub(super) fn stored(self) -> Stored {
        match self {
            Self::Plain(dtype) => Stored::plain(dtype),
            Self::Q4_0 => Stored::blocks("Q4_0"),
            Self::Q4_1 => Stored::blocks("Q4_1"),
            Self::Q5_0 => Stored::blocks("Q5_0"),
            Self::Q5_1 => Stored::blocks("Q5_1"),
            Self::Q8_0 => Stored::blocks("Q8_0"),
            Self::Q4K => Stored::blocks("Q4_K"),
            Self::Q5K => Stored::blocks("Q5_K"),
            Self::Q6K => Stored::blocks("Q6_K"),
        }
    }

    /// Values and bytes of one block.
    pub(super) fn size(self) -> (usize, usize) {
        match self {
            Self::Plain(dtype) => (1, dtype.bitsize() / 8),
            Self::Q4_0 => (32, 2 + 16),
            Self::Q4_1 => (32, 4 + 16),
            Self::Q5_0 => (32, 2 + 4 + 16),
            Self::Q5_1 => (32, 4 + 4 + 16),
            Self::Q8_0 => (32, 2 + 32),
            Self::Q4K => (SUPER, 4 + PACKED_SCALES + SUPER / 2),
            Self::Q5K => (SUPER, 4 + PACKED_SCALES + SUPER / 8 + SUPER / 2),
            Self::Q6K => (SUPER, SUPER / 2 + SUPER / 4 + SUPER / 16 + 2),
        }
    }

    /// Dequantises whole blocks; `values` has room for exactly those.
    pub(super) fn dequantise(self, bytes: &[u8], values: &mut [f32]) {
        let (num_values, num_bytes) = self.size();
        let blocks = bytes.chunks_exact(num_bytes);
        for (block, out) in blocks.zip(values.chunks_exact_mut(num_values)) {
            match self {
                // Plain tensors are never sent here: they stay in their own data type.
                Self::Plain(_) => {}
                Self::Q4_0 => nibbles(&block[2..], out, |q| {
                    f32::from(q as i8 - 8) * half_at(block, 0)
                }),
                Self::Q4_1 => {
                    let (scale, least) = (half_at(block, 0), half_at(block, 2));
                    nibbles(&block[4..], out, |q| scale * f32::from(q) + least);
                }
                Self::Q5_0 => {
                    let scale = half_at(block, 0);
                    five_bits(&block[2..], out, |q| scale * f32::from(q as i8 - 16));
                }
                Self::Q5_1 => {
                    let (scale, least) = (half_at(block, 0), half_at(block, 2));
                    five_bits(&block[4..], out, |q| scale * f32::from(q) + least);
                }
                Self::Q8_0 => {
                    let scale = half_at(block, 0);
                    for (value, q) in out.iter_mut().zip(&block[2..]) {
                        *value = f32::from(*q as i8) * scale;
                    }
                }
                Self::Q4K => q4_k(block, out),
                Self::Q5K => q5_k(block, out),
                Self::Q6K => q6_k(block, out),
            }
        }
    }
}

fn half_at(block: &[u8], place: usize) -> f32 {
    f16::from_le_bytes([block[place], block[place + 1]]).to_f32()
}

/// 16 bytes are 32 values: first all low halves, then all high halves.
fn nibbles(packed: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    for (i, byte) in packed.iter().enumerate() {
        out[i] = value(byte & 0x0f);
        out[i + 16] = value(byte >> 4);
    }
}

/// As [`nibbles`], with the fifth bits of all 32 values in the four bytes before.
fn five_bits(packed: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let high = u32::from_le_bytes([packed[0], packed[1], packed[2], packed[3]]);
    let fifth = |i: usize| ((high >> i & 1) << 4) as u8;
    for (i, byte) in packed[4..].iter().enumerate() {
        out[i] = value(byte & 0x0f | fifth(i));
        out[i + 16] = value(byte >> 4 | fifth(i + 16));
    }
}

/// Scale and minimum, six bits each, of one of the eight groups of a `Q4_K` or `Q5_K` block.
fn scale_and_minimum(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, minimum) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let both = packed[group + 4];
        (
            both & 0x0f | packed[group - 4] >> 6 << 4,
            both >> 4 | packed[group] >> 6 << 4,
        )
    };
    (f32::from(scale), f32::from(minimum))
}

/// Eight groups of 32; two neighbouring groups share 32 bytes, low halves first.
fn q4_k(block: &[u8], out: &mut [f32]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    let packed_scales = &block[4..4 + PACKED_SCALES];
    let packed = &block[4 + PACKED_SCALES..];
    for (group, values) in out.chunks_exact_mut(32).enumerate() {
        let (s, m) = scale_and_minimum(packed_scales, group);
        let (s, m) = (scale * s, least * m);
        let bytes = &packed[group / 2 * 32..][..32];
        for (value, byte) in values.iter_mut().zip(bytes) {
            let q = byte >> (group % 2 * 4) & 0x0f;
            *value = s * f32::from(q) - m;
        }
    }
}

/// As [`q4_k`], with bit `group` of 32 further bytes as the fifth.
fn q5_k(block: &[u8], out: &mut [f32]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    let packed_scales = &block[4..4 + PACKED_SCALES];
    let (fifths, packed) = block[4 + PACKED_SCALES..].split_at(SUPER / 8);
    for (group, values) in out.chunks_exact_mut(32).enumerate() {
        let (s, m) = scale_and_minimum(packed_scales, group);
        let (s, m) = (scale * s, least * m);
        let bytes = &packed[group / 2 * 32..][..32];
        for (i, value) in values.iter_mut().enumerate() {
            let q = bytes[i] >> (group % 2 * 4) & 0x0f | (fifths[i] >> group & 1) << 4;
            *value = s * f32::from(q) - m;
        }
    }
}

/// Two halves of 128: four runs of 32 share 64 bytes of low bits and 32 bytes of high bits; a scale for every 16.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, rest) = block.split_at(SUPER / 2);
    let (high, rest) = rest.split_at(SUPER / 4);
    let (scales, _) = rest.split_at(SUPER / 16);
    let scale = half_at(rest, SUPER / 16);
    for (i, value) in out.iter_mut().enumerate() {
        let (half, run, place) = (i / 128, i % 128 / 32, i % 32);
        let four = low[half * 64 + run % 2 * 32 + place] >> (run / 2 * 4) & 0x0f;
        let two = high[half * 32 + place] >> (run * 2) & 3;
        let q = (four | two << 4) as i8 - 32;
        *value = scale * f32::from(scales[i / 16] as i8) * f32::from(q);
    }
}
