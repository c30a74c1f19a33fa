//! A module's parameters by their path: out to named host tensors, back in from them.

use std::collections::{BTreeMap, HashMap, HashSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};

/// Host tensors by parameter path.
pub type NamedTensors = BTreeMap<String, TensorData>;

/// Which parameters a walk over a module takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// Every float parameter.
    All,
    /// Those that require a gradient.
    Trainable,
}

/// A parameter of a restored state that does not fit the module.
#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    /// The state holds no tensor for a parameter.
    #[error("no tensor for the parameter `{0}`: the state was written by another architecture")]
    Missing(String),
    /// The state's tensor has another shape.
    #[error("`{name}` has shape {found:?}, the module wants {expected:?}")]
    Shape {
        name: String,
        expected: Vec<usize>,
        found: Vec<usize>,
    },
}

/// The float parameters of `module` as f32 host tensors under their paths.
pub fn collect<B: Backend, M: Module<B>>(module: &M, selection: Selection) -> NamedTensors {
    let mut visitor = Collector {
        path: Vec::new(),
        selection,
        tensors: BTreeMap::new(),
    };
    module.visit(&mut visitor);
    visitor.tensors
}

/// The parameters of `module` that are among `chosen`, as f32 host tensors under their paths.
pub fn collect_of<B: Backend, M: Module<B>>(module: &M, chosen: &HashSet<ParamId>) -> NamedTensors {
    let mut visitor = ChosenCollector {
        path: Vec::new(),
        chosen,
        tensors: BTreeMap::new(),
    };
    module.visit(&mut visitor);
    visitor.tensors
}

struct ChosenCollector<'a> {
    path: Vec<String>,
    chosen: &'a HashSet<ParamId>,
    tensors: NamedTensors,
}

impl<B: Backend> ModuleVisitor<B> for ChosenCollector<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if self.chosen.contains(&param.id) {
            let data = param.val().into_data().convert_dtype(DType::F32);
            self.tensors.insert(self.path.join("."), data);
        }
    }
}

/// `module` with each selected parameter replaced by the tensor of its path.
///
/// # Errors
/// When a selected parameter has no tensor, or one of another shape.
pub fn restore<B: Backend, M: Module<B>>(
    module: M,
    tensors: &NamedTensors,
    selection: Selection,
) -> Result<M, ParameterError> {
    let mut mapper = Restorer {
        path: Vec::new(),
        selection,
        tensors,
        error: None,
    };
    let module = module.map(&mut mapper);
    mapper.error.map_or(Ok(module), Err)
}

/// The path of each float parameter of `module`.
pub fn paths<B: Backend, M: Module<B>>(module: &M) -> HashMap<ParamId, String> {
    let mut visitor = Paths {
        path: Vec::new(),
        paths: HashMap::new(),
    };
    module.visit(&mut visitor);
    visitor.paths
}

/// The parameters of `module` that train.
pub fn trainable<B: Backend, M: Module<B>>(module: &M) -> HashSet<ParamId> {
    let mut visitor = Trainable(HashSet::new());
    module.visit(&mut visitor);
    visitor.0
}

struct Trainable(HashSet<ParamId>);

impl<B: Backend> ModuleVisitor<B> for Trainable {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if param.val().is_require_grad() {
            self.0.insert(param.id);
        }
    }
}

struct Collector {
    path: Vec<String>,
    selection: Selection,
    tensors: NamedTensors,
}

impl<B: Backend> ModuleVisitor<B> for Collector {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let tensor = param.val();
        if self.selection == Selection::All || tensor.is_require_grad() {
            let data = tensor.into_data().convert_dtype(DType::F32);
            self.tensors.insert(self.path.join("."), data);
        }
    }
}

struct Paths {
    path: Vec<String>,
    paths: HashMap<ParamId, String>,
}

impl<B: Backend> ModuleVisitor<B> for Paths {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.paths.insert(param.id, self.path.join("."));
    }
}

struct Restorer<'a> {
    path: Vec<String>,
    selection: Selection,
    tensors: &'a NamedTensors,
    error: Option<ParameterError>,
}

impl<B: Backend> ModuleMapper<B> for Restorer<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let tracked = tensor.is_require_grad();
        if self.error.is_some() || !(self.selection == Selection::All || tracked) {
            return Param::from_mapped_value(id, tensor, mapper);
        }
        let name = self.path.join(".");
        let expected = tensor.dims().to_vec();
        let restored = match self.tensors.get(&name) {
            None => Err(ParameterError::Missing(name)),
            Some(data) if data.shape.to_vec() != expected => Err(ParameterError::Shape {
                name,
                expected,
                found: data.shape.to_vec(),
            }),
            Some(data) => Ok(data.clone().convert_dtype(tensor.dtype())),
        };
        match restored {
            Err(error) => {
                self.error = Some(error);
                Param::from_mapped_value(id, tensor, mapper)
            }
            Ok(data) => {
                let restored = Tensor::from_data(data, &tensor.device()).set_require_grad(tracked);
                Param::from_mapped_value(id, restored, mapper)
            }
        }
    }
}
