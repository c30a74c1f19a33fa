//! The one file that names backends. Everything else is generic over `B: Backend`.
//!
//! [`open`] turns what the user typed after `--device` into [`Devices`], and looks whether the driver
//! is there before Burn touches it: Burn's GPU backends panic where a driver is missing.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::str::FromStr;

use burn::DispatchDevice;
use burn::tensor::{Device, Tensor, TensorData};
use serde::Serialize;

use super::{failure, tuning};

/// The application's backend: it picks the device at run time among those compiled in.
pub type Backend = burn::Dispatch;

/// Where trained and frozen tensors live: one device, with and without a graph.
#[derive(Debug, Clone)]
pub struct Devices {
    /// Tensors that record a graph.
    pub train: Device<Backend>,
    /// Tensors that do not.
    pub frozen: Device<Backend>,
    /// What the user called it, written into reports.
    pub name: String,
    /// Said once to who waits: this device's kernels have not been tuned yet.
    pub untuned: Option<String>,
}

/// A backend by the name that users type, compiled in or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendName {
    /// Pure Rust on the CPU.
    Flex,
    /// Any GPU through wgpu, shaders in WGSL.
    Wgpu,
    /// Any GPU with a Vulkan driver, shaders in SPIR-V.
    Vulkan,
    /// NVIDIA GPUs.
    Cuda,
    /// LibTorch on the CPU.
    Tch,
}

impl BackendName {
    /// All backends, in the order in which a default is looked for.
    pub const ALL: [BackendName; 5] = [Self::Flex, Self::Tch, Self::Cuda, Self::Vulkan, Self::Wgpu];

    /// The word after `--device`; also the Cargo feature that compiles it in.
    pub fn word(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Cuda => "cuda",
            Self::Tch => "tch",
        }
    }

    /// Is it in this program? `vulkan` takes the place of `wgpu` when both features are on.
    pub fn is_compiled(self) -> bool {
        match self {
            Self::Flex => cfg!(feature = "flex"),
            Self::Wgpu => cfg!(all(feature = "wgpu", not(feature = "vulkan"))),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Tch => cfg!(feature = "tch"),
        }
    }
}

/// What stands after `--device`: a backend and which of its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceName {
    /// The backend.
    pub backend: BackendName,
    /// Which device of it; `None` for the backend's own choice.
    pub index: Option<usize>,
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.backend.word())?;
        match self.index {
            Some(index) => write!(f, ":{index}"),
            None => Ok(()),
        }
    }
}

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown(text.to_string());
        let (word, index) = match text.split_once(':') {
            Some((word, index)) => (word, Some(index.parse().map_err(|_| unknown())?)),
            None => (text, None),
        };
        let backend = BackendName::ALL
            .into_iter()
            .find(|backend| backend.word() == word)
            .ok_or_else(unknown)?;
        if index.is_some() && matches!(backend, BackendName::Flex | BackendName::Tch) {
            return Err(DeviceError::NoIndex {
                word: backend.word(),
            });
        }
        Ok(Self { backend, index })
    }
}

/// A device that cannot be used, and the way out.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The backend is known but was not compiled in.
    #[error(
        "device `{name}` is not compiled into this program (it has {}): rebuild with `cargo build --release --features {feature}`",
        compiled()
    )]
    NotCompiled { name: String, feature: &'static str },
    /// Both wgpu features are on, and `vulkan` has taken the place of `wgpu`.
    #[error(
        "this program was built with the feature `vulkan`, which takes the place of `wgpu`: use `--device vulkan`"
    )]
    VulkanInstead,
    /// No such device name.
    #[error("there is no device `{0}`: use flex, wgpu, vulkan, cuda, cuda:N or tch")]
    Unknown(String),
    /// A number after a backend that has only one device.
    #[error("`{word}` has one device only: write `--device {word}` without a number")]
    NoIndex { word: &'static str },
    /// The driver's library was not found.
    #[error("device `{name}` needs {library}, which was not found: install {install}")]
    NoDriver {
        name: String,
        library: &'static str,
        install: &'static str,
    },
    /// The driver is there but refuses.
    #[error("device `{name}` cannot be used: the driver says {reason}")]
    Driver { name: String, reason: String },
    /// The driver is there but has no such device.
    #[error("there is no device `{name}`: {found}")]
    NoDevice { name: String, found: String },
    /// The backend itself failed when asked for a first computation.
    #[error("device `{name}` was found but does not compute: {reason}")]
    Broken { name: String, reason: String },
}

/// One line of `ragar devices`.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceReport {
    /// What to write after `--device`.
    pub device: String,
    /// Is the backend in this program?
    pub compiled: bool,
    /// Can it be used now?
    pub usable: bool,
    /// The hardware's own name, or why the device cannot be used.
    pub detail: String,
}

/// Names of the compiled backends, separated by commas; for `--version`.
pub fn compiled() -> String {
    let words: Vec<_> = BackendName::ALL
        .into_iter()
        .filter(|backend| backend.is_compiled())
        .map(BackendName::word)
        .collect();
    words.join(", ")
}

/// The device used when none is named: the first usable CPU backend, else the first GPU.
pub fn default_device() -> String {
    BackendName::ALL
        .into_iter()
        .find(|backend| backend.is_compiled())
        .map_or("flex", BackendName::word)
        .to_string()
}

/// The device called `name`: `flex`, `wgpu[:N]`, `vulkan[:N]`, `cuda[:N]` or `tch`.
///
/// # Errors
/// When there is no such name, the backend is not compiled in, or its driver or device is missing.
pub fn open(name: &str) -> Result<Devices, DeviceError> {
    let asked: DeviceName = name.parse()?;
    if !asked.backend.is_compiled() {
        return Err(match asked.backend {
            BackendName::Wgpu if BackendName::Vulkan.is_compiled() => DeviceError::VulkanInstead,
            backend => DeviceError::NotCompiled {
                name: name.to_string(),
                feature: backend.word(),
            },
        });
    }
    let device = device_of(asked)?;
    // Looked up before the first computation, which may already tune something.
    let untuned = kernel_choices(asked.backend)
        .and_then(|folder| tuning::untuned(&folder, |device| is_of(asked.backend, device)));
    if !matches!(asked.backend, BackendName::Flex | BackendName::Tch) {
        first_computation(asked, &device)?;
    }
    Ok(Devices {
        train: DispatchDevice::autodiff(device.clone()),
        frozen: device,
        name: name.to_string(),
        untuned,
    })
}

/// Where the backend keeps which of its kernels were the fastest for which shapes, a folder per device; `None` for one
/// that does not time its kernels.
fn kernel_choices(backend: BackendName) -> Option<PathBuf> {
    match backend {
        #[cfg(any(feature = "wgpu", feature = "cuda"))]
        BackendName::Wgpu | BackendName::Vulkan | BackendName::Cuda => {
            use cubecl_runtime::config::{CubeClRuntimeConfig, RuntimeConfig as _};

            Some(
                CubeClRuntimeConfig::get()
                    .autotune
                    .cache
                    .root()
                    .join("autotune"),
            )
        }
        _ => None,
    }
}

/// Is a device's folder of [`kernel_choices`] one of this backend's? They are called `device-0-0-wgpu_wgsl_` and such.
fn is_of(backend: BackendName, device: &str) -> bool {
    match backend {
        BackendName::Wgpu => device.contains("wgpu") && !device.contains("spirv"),
        BackendName::Vulkan => device.contains("spirv"),
        BackendName::Cuda => device.contains("cuda"),
        BackendName::Flex | BackendName::Tch => false,
    }
}

/// Adds one and one on `device`: a driver that is there may still fail, and Burn's GPU backends say so by panicking. On
/// macOS also multiplies two matrices: Burn 0.21 gets large ones wrong on some Apple GPUs (tracel-ai/burn#4966).
fn first_computation(asked: DeviceName, device: &DispatchDevice) -> Result<(), DeviceError> {
    let computing = AssertUnwindSafe(|| {
        let ones = Tensor::<Backend, 1>::ones([2], device);
        let sum = (ones.clone() + ones).into_data().iter::<f32>().sum::<f32>();
        let off = match cfg!(target_os = "macos") {
            true => product_error(device),
            false => 0.0,
        };
        (sum, off)
    });
    let broken = |reason| DeviceError::Broken {
        name: asked.to_string(),
        reason,
    };
    match failure::quietly(|| catch_unwind(computing)) {
        Ok((4.0, off)) if off < 1e-3 => Ok(()),
        Ok((4.0, off)) => Err(broken(format!(
            "a product of matrices is off by {off}, a known fault of Burn 0.21 on Apple GPUs; --device flex computes without the GPU"
        ))),
        Ok((sum, _)) => Err(broken(format!("1 + 1, twice, gave {sum} in all"))),
        Err(payload) => Err(broken(failure::panic_text(payload.as_ref()))),
    }
}

/// The largest error of a product of 535 rows with 1,024 columns, all of whose numbers are below 30.
fn product_error(device: &DispatchDevice) -> f32 {
    const ROWS: usize = 535;
    const INNER: usize = 1024;
    const COLUMNS: usize = 1024;
    let row = |at: usize| (at % 7) as f32;
    let column = |at: usize| (at % 5) as f32;
    let left = (0..ROWS * INNER).map(|at| row(at / INNER)).collect();
    let right = (0..INNER * COLUMNS).map(|at| column(at % COLUMNS) / INNER as f32);
    let left = TensorData::new::<f32, _>(left, [ROWS, INNER]);
    let right = TensorData::new::<f32, _>(right.collect(), [INNER, COLUMNS]);
    let of = |data| Tensor::<Backend, 2>::from_data(data, device);
    let product = of(left).matmul(of(right)).into_data();
    let off = |(at, got): (usize, f32)| (got - row(at / COLUMNS) * column(at % COLUMNS)).abs();
    let worst = product.iter::<f32>().enumerate().map(off);
    // What is no number stays the worst.
    worst.fold(0.0, |most, off| {
        if off > most || off.is_nan() {
            off
        } else {
            most
        }
    })
}

/// Which of the compiled backends have a usable device, and why the others have none.
pub fn survey() -> Vec<DeviceReport> {
    let mut lines = Vec::new();
    for backend in BackendName::ALL {
        let word = backend.word();
        if !backend.is_compiled() {
            let detail = if backend == BackendName::Wgpu && BackendName::Vulkan.is_compiled() {
                "replaced by vulkan in this program".to_string()
            } else {
                format!("not compiled in: rebuild with --features {word}")
            };
            lines.push(DeviceReport {
                device: word.to_string(),
                compiled: false,
                usable: false,
                detail,
            });
            continue;
        }
        let asked = DeviceName {
            backend,
            index: None,
        };
        match hardware(asked) {
            Ok(found) => lines.extend(found.into_iter().map(|(device, detail)| DeviceReport {
                device,
                compiled: true,
                usable: true,
                detail,
            })),
            Err(error) => lines.push(DeviceReport {
                device: word.to_string(),
                compiled: true,
                usable: false,
                detail: error.to_string(),
            }),
        }
    }
    lines
}

/// The backend's own device value; asks the driver first.
fn device_of(asked: DeviceName) -> Result<DispatchDevice, DeviceError> {
    match asked.backend {
        #[cfg(feature = "flex")]
        BackendName::Flex => Ok(DispatchDevice::Flex(Default::default())),
        #[cfg(feature = "tch")]
        BackendName::Tch => Ok(DispatchDevice::LibTorch(
            burn::backend::libtorch::LibTorchDevice::Cpu,
        )),
        #[cfg(feature = "cuda")]
        BackendName::Cuda => {
            cuda::check(asked)?;
            Ok(DispatchDevice::Cuda(burn::backend::cuda::CudaDevice::new(
                asked.index.unwrap_or(0),
            )))
        }
        #[cfg(feature = "vulkan")]
        BackendName::Vulkan => Ok(DispatchDevice::Vulkan(webgpu::find(asked)?)),
        #[cfg(all(feature = "wgpu", not(feature = "vulkan")))]
        BackendName::Wgpu => Ok(DispatchDevice::Wgpu(webgpu::find(asked)?)),
        #[allow(unreachable_patterns)]
        backend => Err(DeviceError::NotCompiled {
            name: asked.to_string(),
            feature: backend.word(),
        }),
    }
}

/// Devices of one compiled backend: (what to type, what it is).
fn hardware(asked: DeviceName) -> Result<Vec<(String, String)>, DeviceError> {
    match asked.backend {
        #[cfg(feature = "cuda")]
        BackendName::Cuda => cuda::list(asked),
        #[cfg(feature = "wgpu")]
        BackendName::Wgpu | BackendName::Vulkan => webgpu::list(asked),
        BackendName::Tch => Ok(vec![("tch".into(), "LibTorch on the CPU".into())]),
        _ => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            Ok(vec![(
                asked.to_string(),
                format!("pure Rust on the CPU, {cores} cores"),
            )])
        }
    }
}

/// What burn-cuda would panic about, asked beforehand.
#[cfg(feature = "cuda")]
mod cuda {
    use super::{DeviceError, DeviceName};
    use cudarc::driver::result;

    const NVRTC: &str = "the CUDA runtime compiler (libnvrtc)";
    const TOOLKIT: &str = "the CUDA toolkit of the driver's version (on Debian and Ubuntu: `cuda-nvrtc` and `cuda-cudart-dev` from NVIDIA) and set CUDA_PATH to its folder";

    fn library_is_there(names: &[&str]) -> bool {
        // SAFETY: these are the vendor's libraries, which burn is going to load anyway; their
        // initialisers have no preconditions.
        names
            .iter()
            .any(|name| unsafe { libloading::Library::new(*name) }.is_ok())
    }

    fn count(asked: DeviceName) -> Result<usize, DeviceError> {
        let missing = |library, install| DeviceError::NoDriver {
            name: asked.to_string(),
            library,
            install,
        };
        if !library_is_there(&["libcuda.so.1", "libcuda.so", "nvcuda.dll"]) {
            return Err(missing(
                "NVIDIA's driver (libcuda)",
                "NVIDIA's driver, or use `--device flex`",
            ));
        }
        let refused = |error: cudarc::driver::DriverError| DeviceError::Driver {
            name: asked.to_string(),
            reason: format!("{error:?}"),
        };
        result::init().map_err(refused)?;
        let count = result::device::get_count().map_err(refused)?;
        usize::try_from(count).map_err(|_| DeviceError::NoDevice {
            name: asked.to_string(),
            found: "the driver counts no device".into(),
        })
    }

    /// Driver, device number, runtime compiler and headers.
    pub fn check(asked: DeviceName) -> Result<(), DeviceError> {
        let count = count(asked)?;
        let index = asked.index.unwrap_or(0);
        if index >= count {
            return Err(DeviceError::NoDevice {
                name: asked.to_string(),
                found: match count {
                    0 => "the driver finds no NVIDIA GPU (is it hidden by CUDA_VISIBLE_DEVICES?)"
                        .into(),
                    n => format!("the driver finds {n}, numbered 0 to {}", n - 1),
                },
            });
        }
        let missing = |library| DeviceError::NoDriver {
            name: asked.to_string(),
            library,
            install: TOOLKIT,
        };
        let compilers = [
            "libnvrtc.so",
            "libnvrtc.so.13",
            "libnvrtc.so.12",
            "libnvrtc.so.11.2",
            "nvrtc.dll",
            "nvrtc64_130_0.dll",
            "nvrtc64_120_0.dll",
        ];
        if !library_is_there(&compilers) {
            return Err(missing(NVRTC));
        }
        if !headers_are_there() {
            return Err(missing("the CUDA headers (cuda_fp16.h)"));
        }
        Ok(())
    }

    /// Where burn looks for the headers that its kernels include.
    fn headers_are_there() -> bool {
        let named = std::env::var_os("CUDA_PATH").map(std::path::PathBuf::from);
        let usual = ["/usr/local/cuda", "/opt/cuda", "/usr"].map(std::path::PathBuf::from);
        match named {
            Some(path) => path.join("include/cuda_fp16.h").exists() || cfg!(windows),
            None => usual
                .iter()
                .any(|path| path.join("include/cuda_fp16.h").exists()),
        }
    }

    /// Every GPU the driver counts.
    pub fn list(asked: DeviceName) -> Result<Vec<(String, String)>, DeviceError> {
        check(asked)?;
        let mut found = Vec::new();
        for index in 0..count(asked)? {
            let ordinal = i32::try_from(index).unwrap_or(i32::MAX);
            let name = result::device::get(ordinal)
                .and_then(result::device::get_name)
                .unwrap_or_else(|error| format!("{error:?}"));
            found.push((format!("cuda:{index}"), name));
        }
        Ok(found)
    }
}

/// Adapters, asked from wgpu itself.
#[cfg(feature = "wgpu")]
mod webgpu {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use burn::backend::wgpu::WgpuDevice;
    use burn::backend::wgpu::graphics::{AutoGraphicsApi, GraphicsApi};

    use super::{DeviceError, DeviceName, failure};

    /// A GPU, and what of it a configuration may have to keep to.
    struct Adapter {
        info: wgpu::AdapterInfo,
        /// The largest tensor, in bytes.
        largest: u64,
        /// Has it `f16`? No shader has `bf16`.
        half: bool,
    }

    fn adapters(asked: DeviceName) -> Result<Vec<Adapter>, DeviceError> {
        // A broken driver may panic inside wgpu; the hook stays quiet for what is caught here.
        let asking = AssertUnwindSafe(|| {
            let graphics = AutoGraphicsApi::backend();
            let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
                backends: graphics.into(),
                ..wgpu::InstanceDescriptor::new_without_display_handle()
            });
            let found = burn::tensor::read_sync(instance.enumerate_adapters(graphics.into()));
            found
                .iter()
                .map(|adapter| Adapter {
                    info: adapter.get_info(),
                    largest: adapter.limits().max_storage_buffer_binding_size,
                    half: adapter.features().contains(wgpu::Features::SHADER_F16),
                })
                .collect::<Vec<_>>()
        });
        let found = failure::quietly(|| catch_unwind(asking)).map_err(|_| DeviceError::Driver {
            name: asked.to_string(),
            reason: "nothing that wgpu understands".into(),
        })?;
        if found.is_empty() {
            return Err(DeviceError::NoDriver {
                name: asked.to_string(),
                library: "a graphics driver (Vulkan, on macOS Metal)",
                install: "the GPU's driver, or on Debian and Ubuntu `mesa-vulkan-drivers`, which also runs on the CPU",
            });
        }
        Ok(found)
    }

    /// The adapter's place in burn's naming: its kind, and its number among that kind.
    fn name_of(adapters: &[Adapter], index: usize) -> WgpuDevice {
        let kind = adapters[index].info.device_type;
        let place = adapters[..index]
            .iter()
            .filter(|other| other.info.device_type == kind)
            .count();
        match kind {
            wgpu::DeviceType::DiscreteGpu => WgpuDevice::DiscreteGpu(place),
            wgpu::DeviceType::IntegratedGpu => WgpuDevice::IntegratedGpu(place),
            wgpu::DeviceType::VirtualGpu => WgpuDevice::VirtualGpu(place),
            wgpu::DeviceType::Cpu => WgpuDevice::Cpu,
            wgpu::DeviceType::Other => WgpuDevice::DefaultDevice,
        }
    }

    /// The adapter asked for; without a number, the one wgpu prefers.
    pub fn find(asked: DeviceName) -> Result<WgpuDevice, DeviceError> {
        let adapters = adapters(asked)?;
        match asked.index {
            None => Ok(WgpuDevice::DefaultDevice),
            Some(index) if index < adapters.len() => Ok(name_of(&adapters, index)),
            Some(_) => Err(DeviceError::NoDevice {
                name: asked.to_string(),
                found: format!(
                    "there are {} adapters, numbered from 0: see `ragar devices`",
                    adapters.len()
                ),
            }),
        }
    }

    /// Every adapter, with its driver.
    pub fn list(asked: DeviceName) -> Result<Vec<(String, String)>, DeviceError> {
        let word = asked.backend.word();
        let lines = adapters(asked)?
            .into_iter()
            .enumerate()
            .map(|(index, adapter)| {
                let info = adapter.info;
                let types = if adapter.half {
                    "f32 and f16"
                } else {
                    "f32 only"
                };
                let detail = format!(
                    "{} ({:?}, {}); {types}, tensors of up to {} MiB",
                    info.name,
                    info.device_type,
                    info.driver,
                    adapter.largest >> 20
                );
                (format!("{word}:{index}"), detail)
            })
            .collect();
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_as_written() {
        for name in ["flex", "wgpu", "vulkan:1", "cuda:0", "cuda", "tch"] {
            assert_eq!(name.parse::<DeviceName>().unwrap().to_string(), name);
        }
        for name in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "flex:0", "Flex"] {
            assert!(name.parse::<DeviceName>().is_err(), "{name}");
        }
    }

    #[cfg(feature = "flex")]
    #[test]
    fn a_product_of_matrices_tells_a_device_that_computes() {
        let devices = open("flex").unwrap();
        assert!(product_error(&devices.frozen) < 1e-4);
    }

    #[test]
    fn what_is_not_compiled_in_names_its_feature() {
        for backend in BackendName::ALL {
            if backend.is_compiled() {
                continue;
            }
            let message = open(backend.word()).unwrap_err().to_string();
            assert!(
                message.contains(&format!("--features {}", backend.word()))
                    || message.contains("--device vulkan"),
                "{message}"
            );
        }
    }

    #[test]
    fn every_backend_stands_in_the_survey() {
        let survey = survey();
        for backend in BackendName::ALL {
            assert!(
                survey
                    .iter()
                    .any(|line| line.device.starts_with(backend.word()))
            );
        }
    }
}
