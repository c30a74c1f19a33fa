//! File formats: bytes on disk to named tensors. Nothing here knows about modules.

pub(crate) mod safetensors;
