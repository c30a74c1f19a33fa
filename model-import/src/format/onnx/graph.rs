//! An open ONNX file and the places of its tensors.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use burn::tensor::TensorData;
use bytes::Bytes;
use onnx_ir::{GraphProto, ModelProto, TensorProto};
use protobuf::{CodedInputStream, Message};
use safetensors::Dtype;

use super::trace::{Form, Node, trace};
use crate::error::ImportError;
use crate::format::{DiskFile, Source, Stored, TensorInfo, plain};
use crate::transform::Layout;

const FORMAT: &str = "ONNX";
/// Metadata under which tensors are named that could not be traced to a parameter.
const NAMELESS: &str = "nameless tensors";
/// Where the newer exporter lists the modules around a node.
const SCOPES: &str = "pkg.torch.onnx.name_scopes";

/// An open graph: its tensors' places in memory, their values on disk.
#[derive(Debug)]
pub(crate) struct OnnxFile {
    path: PathBuf,
    tensors: BTreeMap<String, TensorInfo>,
    /// By hub name: the stored tensor and how it becomes the parameter.
    sources: BTreeMap<String, (Arc<StoredTensor>, Form)>,
    metadata: BTreeMap<String, String>,
}

/// A tensor as the graph holds it.
#[derive(Debug)]
struct StoredTensor {
    info: TensorInfo,
    values: Values,
}

#[derive(Debug)]
enum Values {
    /// In the mapped file; copied when read.
    Here(Bytes),
    /// In a file beside it.
    External { file: Arc<DiskFile>, offset: u64 },
}

impl OnnxFile {
    /// Parses the graph without copying its tensors, and finds their names.
    pub(crate) fn open(file: &DiskFile) -> Result<Self, ImportError> {
        let path = file.path();
        let bad = |reason: String| ImportError::BadFile {
            path: path.into(),
            format: FORMAT,
            reason,
        };
        let bytes = map(path)?;
        let model = parse(&bytes)
            .map_err(|e| bad(format!("it cannot be parsed ({e}); download it again")))?;
        let graph = model
            .graph
            .into_option()
            .ok_or_else(|| bad("it has no graph; download or export it again".into()))?;
        let nodes = nodes(&graph);
        let mut external = External::new(path);
        let mut stored = BTreeMap::new();
        for tensor in graph.initializer {
            let name = tensor.name.clone();
            let tensor = Arc::new(external.stored(tensor)?);
            if stored.insert(name.clone(), tensor).is_some() {
                return Err(ImportError::DuplicateTensor {
                    path: path.into(),
                    name,
                    other: None,
                });
            }
        }
        let shapes = stored
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.info.shape.clone()))
            .collect();
        let trace = trace(&shapes, &nodes);
        if trace.parameters.is_empty() {
            return Err(bad(
                "no weight of it could be traced to a module: it was exported without names; export it again with `torch.onnx.export`, or use the safetensors file".into(),
            ));
        }
        let mut opened = Self {
            path: path.into(),
            tensors: BTreeMap::new(),
            sources: BTreeMap::new(),
            metadata: BTreeMap::new(),
        };
        if !model.producer_name.is_empty() {
            let producer = format!("{} {}", model.producer_name, model.producer_version);
            opened
                .metadata
                .insert("producer".into(), producer.trim().into());
        }
        if !trace.nameless.is_empty() {
            opened
                .metadata
                .insert(NAMELESS.into(), trace.nameless.join(", "));
        }
        for (name, (source, form)) in trace.parameters {
            let Some(tensor) = stored.get(&source) else {
                continue;
            };
            let mut info = tensor.info.clone();
            match form {
                Form::Same => {}
                Form::Transposed => info.shape.reverse(),
                Form::Squeezed => info.shape.truncate(1),
            }
            opened.tensors.insert(name.clone(), info);
            opened.sources.insert(name, (tensor.clone(), form));
        }
        Ok(opened)
    }
}

impl Source for OnnxFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn read(&self, name: &str) -> Result<TensorData, ImportError> {
        let Some((tensor, form)) = self.sources.get(name) else {
            return Err(ImportError::no_tensor(&self.path, name));
        };
        let mut data = match &tensor.values {
            Values::Here(bytes) => plain(
                &self.path,
                name,
                &tensor.info,
                burn::tensor::Bytes::from_bytes_vec(bytes.to_vec()),
            )?,
            Values::External { file, offset } => file.tensor(name, &tensor.info, *offset)?,
        };
        match form {
            Form::Same => {}
            Form::Transposed => data = Layout::Transposed.data(data),
            Form::Squeezed => data.shape = tensor.info.shape[..1].to_vec().into(),
        }
        Ok(data)
    }
}

/// The file in memory by demand of its pages: a graph may hold two gigabytes of weights.
fn map(path: &Path) -> Result<Bytes, ImportError> {
    let io = |e| ImportError::io(path, e);
    let file = File::open(path).map_err(io)?;
    // SAFETY: the map is only read. As with every mapped file, whoever cuts the file short while it is
    // open ends the program; nothing else comes of it.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
    Ok(Bytes::from_owner(map))
}

fn parse(bytes: &Bytes) -> protobuf::Result<ModelProto> {
    let mut stream = CodedInputStream::from_tokio_bytes(bytes);
    let model = ModelProto::parse_from(&mut stream)?;
    stream.check_eof()?;
    Ok(model)
}

fn nodes(graph: &GraphProto) -> Vec<Node> {
    let nodes = graph.node.iter().map(|node| Node {
        operation: node.op_type.clone(),
        name: node.name.clone(),
        scopes: node
            .metadata_props
            .iter()
            .find(|entry| entry.key == SCOPES)
            .map(|entry| entry.value.clone()),
        inputs: node.input.clone(),
        outputs: node.output.clone(),
        weight_is_transposed: node
            .attribute
            .iter()
            .any(|attribute| attribute.name == "transB" && attribute.i != 0),
    });
    nodes.collect()
}

/// The files beside the graph that hold its larger tensors.
struct External<'a> {
    graph: &'a Path,
    files: BTreeMap<String, Arc<DiskFile>>,
}

impl<'a> External<'a> {
    fn new(graph: &'a Path) -> Self {
        Self {
            graph,
            files: BTreeMap::new(),
        }
    }

    /// Data type, shape and place of a tensor, held against its bytes.
    fn stored(&mut self, tensor: TensorProto) -> Result<StoredTensor, ImportError> {
        let path = self.graph.to_path_buf();
        let name = tensor.name.clone();
        let bad = |reason: String| ImportError::BadTensor {
            path: path.clone(),
            name: name.clone(),
            reason,
        };
        let dtype = dtype(tensor.data_type).ok_or_else(|| {
            bad(format!(
                "ONNX data type {} is not supported; export the network in f32 or f16",
                tensor.data_type
            ))
        })?;
        let dtype = Stored::plain(dtype);
        let shape: Option<Vec<usize>> = tensor
            .dims
            .iter()
            .map(|d| usize::try_from(*d).ok())
            .collect();
        let sized = shape.and_then(|shape| Some((dtype.num_bytes(&shape)?, shape)));
        let (num_bytes, shape) =
            sized.ok_or_else(|| bad(format!("shape {:?} is not possible", tensor.dims)))?;
        let info = TensorInfo { dtype, shape };
        let values = if tensor.data_location.value() == 1 {
            self.place(&tensor, num_bytes as u64)?
        } else {
            let bytes = inner_bytes(tensor);
            if bytes.len() != num_bytes {
                return Err(bad(format!(
                    "shape {:?} of {dtype} takes {num_bytes} bytes, {} are there; download or export it again",
                    info.shape,
                    bytes.len()
                )));
            }
            Values::Here(bytes)
        };
        Ok(StoredTensor { info, values })
    }

    /// A tensor in a file beside the graph.
    fn place(&mut self, tensor: &TensorProto, num_bytes: u64) -> Result<Values, ImportError> {
        let bad = |reason: String| ImportError::BadTensor {
            path: self.graph.into(),
            name: tensor.name.clone(),
            reason,
        };
        let entry = |key: &str| {
            tensor
                .external_data
                .iter()
                .find(|e| e.key == key)
                .map(|e| e.value.as_str())
        };
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(Some).map_err(|_| {
                bad(format!(
                    "its external {key} `{text}` is no number; export the network again"
                ))
            }),
        };
        let location = entry("location").unwrap_or_default();
        let relative = Path::new(location);
        let inside = relative
            .components()
            .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if location.is_empty() || !inside || location.contains('\0') {
            return Err(bad(format!(
                "its values are in `{location}`, which is not inside the graph's folder; put them there and export again"
            )));
        }
        let file = match self.files.get(location) {
            Some(file) => file.clone(),
            None => {
                let beside = self.graph.parent().unwrap_or(Path::new(".")).join(relative);
                let file = DiskFile::open(&beside).map_err(|e| {
                    bad(format!(
                        "its values are in a file of their own that cannot be opened ({e}); download that file into the same folder"
                    ))
                })?;
                let file = Arc::new(file);
                self.files.insert(location.into(), file.clone());
                file
            }
        };
        let offset = number("offset")?.unwrap_or_default();
        if number("length")?.is_some_and(|length| length != num_bytes) {
            return Err(bad(format!(
                "shape {:?} takes {num_bytes} bytes, its external length says otherwise; export the network again",
                tensor.dims
            )));
        }
        match offset.checked_add(num_bytes) {
            Some(end) if end <= file.size() => Ok(Values::External { file, offset }),
            _ => Err(ImportError::Truncated {
                path: file.path().into(),
                expected: offset.saturating_add(num_bytes),
                found: file.size(),
            }),
        }
    }
}

/// The number that ONNX gives a data type.
fn dtype(number: i32) -> Option<Dtype> {
    Some(match number {
        1 => Dtype::F32,
        2 => Dtype::U8,
        3 => Dtype::I8,
        4 => Dtype::U16,
        5 => Dtype::I16,
        6 => Dtype::I32,
        7 => Dtype::I64,
        9 => Dtype::BOOL,
        10 => Dtype::F16,
        11 => Dtype::F64,
        12 => Dtype::U32,
        13 => Dtype::U64,
        16 => Dtype::BF16,
        _ => return None,
    })
}

/// The values of a tensor in the graph itself: raw, or in the list for their data type.
fn inner_bytes(tensor: TensorProto) -> Bytes {
    if !tensor.raw_data.is_empty() {
        return tensor.raw_data;
    }
    let bytes: Vec<u8> = match tensor.data_type {
        1 => tensor
            .float_data
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        7 => tensor
            .int64_data
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        11 => tensor
            .double_data
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        12 => tensor
            .uint64_data
            .iter()
            .flat_map(|v| (*v as u32).to_le_bytes())
            .collect(),
        13 => tensor
            .uint64_data
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        2 | 3 | 9 => tensor.int32_data.iter().map(|v| *v as u8).collect(),
        // The bits of half precision too.
        4 | 5 | 10 | 16 => tensor
            .int32_data
            .iter()
            .flat_map(|v| (*v as u16).to_le_bytes())
            .collect(),
        _ => tensor
            .int32_data
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
    };
    bytes.into()
}
