//! The one file that names backends. Everything else is generic over `B: Backend`.

use burn::DispatchDevice;
use burn::tensor::Device;

/// The application's backend: it picks the device at run time among those compiled in.
pub type Backend = burn::Dispatch;

/// Where trained and frozen tensors live: one device, with and without a graph.
#[derive(Debug, Clone)]
pub struct Devices {
    /// Tensors that record a graph.
    pub train: Device<Backend>,
    /// Tensors that do not.
    pub frozen: Device<Backend>,
}

impl Devices {
    fn new(device: DispatchDevice) -> Self {
        Self {
            train: DispatchDevice::autodiff(device.clone()),
            frozen: device,
        }
    }
}

/// A device that cannot be used, and the way out.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The backend is known but was not compiled in.
    #[error("device `{name}` is not compiled in: rebuild with `--features {feature}`")]
    NotCompiled { name: String, feature: &'static str },
    /// No such device name.
    #[error("unknown device `{0}`: use flex, wgpu, vulkan, cuda:N or tch")]
    Unknown(String),
}

/// The device called `name`: `flex`, `wgpu`, `vulkan`, `cuda:N` or `tch`.
///
/// # Errors
/// When the backend is not compiled in, or its driver is missing.
pub fn open(name: &str) -> Result<Devices, DeviceError> {
    match name.split(':').next().unwrap_or(name) {
        #[cfg(feature = "flex")]
        "flex" => Ok(Devices::new(DispatchDevice::Flex(Default::default()))),
        #[cfg(feature = "tch")]
        "tch" => Ok(Devices::new(DispatchDevice::LibTorch(
            burn::backend::libtorch::LibTorchDevice::Cpu,
        ))),
        _ => Err(DeviceError::Unknown(name.to_string())),
    }
}
