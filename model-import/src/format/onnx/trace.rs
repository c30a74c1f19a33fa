//! From the names of an exported graph back to those of the network's parameters.
//!
//! Exporters fold constants: the weight of a linear layer over tokens is stored transposed, ready for
//! `MatMul`, under a name of no meaning (`onnx::MatMul_268`, `val_38`). But the node that uses it says
//! which module it came from: by its name, `/encoder/layers.0/fc1/MatMul`, or in its metadata,
//! `['', 'encoder', 'encoder.layers.0', 'encoder.layers.0.fc1', 'linear']`. Equal tensors are stored
//! once; an `Identity` node, or only the second node that uses the tensor, tells its other name.

use std::collections::{BTreeMap, BTreeSet};

/// What a trace needs to know of a node.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    pub(super) operation: String,
    /// `/module/path/Operation`, as the older exporter names it.
    pub(super) name: String,
    /// The modules around it, as the newer exporter lists them.
    pub(super) scopes: Option<String>,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    /// `Gemm` only: the weight stands as the hub has it.
    pub(super) weight_is_transposed: bool,
}

/// How a stored tensor becomes the parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is.
    Same,
    /// Rows and columns swapped.
    Transposed,
    /// `[channels, 1, 1]` without the ones.
    Squeezed,
}

/// Parameters by hub name: the stored tensor and its form; and stored tensors that have no name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trace {
    pub(super) parameters: BTreeMap<String, (String, Form)>,
    pub(super) nameless: Vec<String>,
}

/// Names every stored tensor (`shapes`, by its name in the graph) that can be named.
pub(super) fn trace(shapes: &BTreeMap<String, Vec<usize>>, nodes: &[Node]) -> Trace {
    let graph = Graph::new(shapes, nodes);
    let mut trace = Trace::default();
    for name in shapes.keys().filter(|name| !graph.is_generated(name)) {
        let entry = (name.clone(), Form::Same);
        trace.parameters.insert(name.clone(), entry);
    }
    for (alias, _) in graph.aliases.iter().filter(|(a, _)| !graph.is_generated(a)) {
        if let Some(stored) = graph.stored(alias) {
            let entry = (stored.to_string(), Form::Same);
            trace.parameters.entry(alias.to_string()).or_insert(entry);
        }
    }
    let mut ambiguous = BTreeSet::new();
    for node in nodes {
        let Some(module) = module_of(node).filter(|m| !m.is_empty()) else {
            continue;
        };
        for (position, input) in node.inputs.iter().enumerate() {
            let Some(stored) = graph.stored(input) else {
                continue;
            };
            let Some((field, form)) = graph.role(node, &module, position, stored) else {
                continue;
            };
            let name = format!("{module}.{field}");
            // The older exporter counts the calls of a module, `fc_1`; they are no further parameters.
            let first_call = without_counts(&name);
            let called_before = trace.parameters.iter().any(|(known, (source, _))| {
                source == stored && *known != name && without_counts(known) == first_call
            });
            if called_before {
                continue;
            }
            match trace.parameters.get(&name) {
                None => {
                    trace.parameters.insert(name, (stored.into(), form));
                }
                // Two tensors with one name: neither can be trusted, unless the name is the graph's own.
                Some((other, _)) if other != stored && graph.is_generated(other) => {
                    ambiguous.insert(name);
                }
                Some(_) => {}
            }
        }
    }
    for name in ambiguous {
        trace.parameters.remove(&name);
    }
    let named: BTreeSet<&String> = trace
        .parameters
        .values()
        .map(|(stored, _)| stored)
        .collect();
    trace.nameless = shapes
        .keys()
        .filter(|name| !named.contains(name))
        .cloned()
        .collect();
    trace
}

struct Graph<'a> {
    shapes: &'a BTreeMap<String, Vec<usize>>,
    /// Output of an `Identity` node to its input.
    aliases: BTreeMap<&'a str, &'a str>,
    /// Whether nodes list their modules, and the tensors that a node of the outermost module uses.
    lists_modules: bool,
    used_outermost: BTreeSet<&'a str>,
    /// Modules that multiply linear layers' weights.
    linear: BTreeSet<String>,
    /// Modules that normalise groups: by `InstanceNormalization`, then a product and a sum by channel.
    grouped: BTreeSet<String>,
}

impl<'a> Graph<'a> {
    fn new(shapes: &'a BTreeMap<String, Vec<usize>>, nodes: &'a [Node]) -> Self {
        let mut graph = Self {
            shapes,
            aliases: BTreeMap::new(),
            lists_modules: nodes.iter().any(|node| node.scopes.is_some()),
            used_outermost: BTreeSet::new(),
            linear: BTreeSet::new(),
            grouped: BTreeSet::new(),
        };
        let identities = nodes.iter().filter(|node| node.operation == "Identity");
        graph.aliases = identities
            .filter_map(|node| {
                Some((
                    node.outputs.first()?.as_str(),
                    node.inputs.first()?.as_str(),
                ))
            })
            .collect();
        for node in nodes {
            let module = module_of(node).unwrap_or_default();
            if module.is_empty() {
                graph
                    .used_outermost
                    .extend(node.inputs.iter().map(String::as_str));
            }
            match node.operation.as_str() {
                "MatMul" | "Gemm" => graph.linear.insert(module),
                "InstanceNormalization" => graph.grouped.insert(module),
                _ => continue,
            };
        }
        // Without a product by channel it is what it says, a normalisation of instances.
        let products: BTreeSet<String> = nodes
            .iter()
            .filter(|node| node.operation == "Mul")
            .filter(|node| {
                node.inputs
                    .iter()
                    .any(|i| graph.stored(i).is_some_and(|s| graph.is_by_channel(s)))
            })
            .filter_map(module_of)
            .collect();
        graph.grouped.retain(|module| products.contains(module));
        graph
    }

    /// The stored tensor that a name stands for.
    fn stored(&self, name: &'a str) -> Option<&'a str> {
        let mut name = name;
        // A ring of identities is no tensor.
        for _ in 0..=self.aliases.len().min(64) {
            if let Some((stored, _)) = self.shapes.get_key_value(name) {
                return Some(stored);
            }
            name = self.aliases.get(name)?;
        }
        None
    }

    /// Whether an exporter made the name up. Parameters have dotted names, those of the outermost
    /// module excepted; among nodes that list their modules, a name without dots that only inner
    /// modules use is a folded constant.
    fn is_generated(&self, name: &str) -> bool {
        let counted = |prefix: &str| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        };
        name.starts_with("onnx::")
            || name.contains('/')
            || counted("val_")
            || counted("")
            || (self.lists_modules && !name.contains('.') && !self.used_outermost.contains(name))
    }

    fn is_by_channel(&self, stored: &str) -> bool {
        self.is_generated(stored)
            && matches!(self.shapes[stored][..], [channels, ref ones @ ..] if channels > 1 && !ones.is_empty() && ones.iter().all(|d| *d == 1))
    }

    /// What a stored tensor is to a node of a module: a field's name and a form.
    fn role(
        &self,
        node: &Node,
        module: &str,
        position: usize,
        stored: &str,
    ) -> Option<(&'static str, Form)> {
        let rank = self.shapes[stored].len();
        let generated = self.is_generated(stored);
        // The older exporter gives every name but the generated ones; only the newer drops some.
        if !generated && !self.lists_modules {
            return None;
        }
        let own_norm = !self.grouped.contains(module);
        Some(match (node.operation.as_str(), position) {
            ("MatMul", 1) if rank == 2 && generated => ("weight", Form::Transposed),
            ("MatMul", 1) if rank == 2 => return None,
            ("Gemm", 1) if node.weight_is_transposed => ("weight", Form::Same),
            ("Gemm", 1) => ("weight", Form::Transposed),
            ("Conv" | "ConvTranspose", 1) => ("weight", Form::Same),
            ("Gemm" | "Conv" | "ConvTranspose", 2) if rank == 1 => ("bias", Form::Same),
            (
                "LayerNormalization" | "GroupNormalization" | "BatchNormalization"
                | "RMSNormalization",
                1,
            ) => ("weight", Form::Same),
            ("LayerNormalization" | "GroupNormalization" | "BatchNormalization", 2) => {
                ("bias", Form::Same)
            }
            ("BatchNormalization", 3) => ("running_mean", Form::Same),
            ("BatchNormalization", 4) => ("running_var", Form::Same),
            ("InstanceNormalization", 1) if own_norm => ("weight", Form::Same),
            ("InstanceNormalization", 2) if own_norm => ("bias", Form::Same),
            ("Mul", _) if !own_norm && self.is_by_channel(stored) => ("weight", Form::Squeezed),
            ("Add", _) if !own_norm && self.is_by_channel(stored) => ("bias", Form::Squeezed),
            ("Add", _) if rank == 1 && self.linear.contains(module) => ("bias", Form::Same),
            _ => return None,
        })
    }
}

/// The module that a node belongs to; the outermost is empty.
fn module_of(node: &Node) -> Option<String> {
    if let Some(scopes) = &node.scopes {
        // A list as Python writes it; its last entry is the operation itself.
        let list = scopes.strip_prefix("['")?.strip_suffix("']")?;
        let mut entries = list.rsplit("', '");
        entries.next()?;
        return entries.next().map(String::from);
    }
    let path = node.name.strip_prefix('/')?;
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    let mut module: Vec<&str> = Vec::new();
    for part in parts {
        // The children of a `Sequential` repeat its name: `/out/out.1/MatMul` is in `out.1`.
        let repeats = module.last().is_some_and(|parent| {
            part.strip_prefix(parent)
                .is_some_and(|rest| rest.starts_with('.'))
        });
        if repeats {
            module.pop();
        }
        module.push(part);
    }
    Some(module.join("."))
}

/// A name without the counts that end its parts, `q_1.weight` as `q.weight`.
fn without_counts(name: &str) -> String {
    let part = |part: &str| match part.rsplit_once('_') {
        Some((stem, count)) if !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit()) => {
            stem.to_string()
        }
        _ => part.to_string(),
    };
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(operation: &str, name: &str, inputs: &[&str]) -> Node {
        Node {
            operation: operation.into(),
            name: name.into(),
            inputs: inputs.iter().map(|input| input.to_string()).collect(),
            outputs: vec![format!("{name}_output_0")],
            ..Node::default()
        }
    }

    fn shapes(shapes: &[(&str, &[usize])]) -> BTreeMap<String, Vec<usize>> {
        let owned = shapes
            .iter()
            .map(|(name, shape)| (name.to_string(), shape.to_vec()));
        owned.collect()
    }

    /// Hub names with the stored tensor and the form of each.
    fn named(trace: &Trace) -> Vec<(&str, &str, Form)> {
        let entries = trace.parameters.iter();
        entries
            .map(|(name, (stored, form))| (name.as_str(), stored.as_str(), *form))
            .collect()
    }

    #[test]
    fn nodes_names_lead_to_modules() {
        let shapes = shapes(&[
            ("fc.bias", &[3]),
            ("onnx::MatMul_9", &[2, 3]),
            ("onnx::MatMul_10", &[3, 3]),
            ("onnx::Mul_4", &[4, 1, 1]),
            ("onnx::Unused_5", &[2]),
        ]);
        let mut alias = node("Identity", "Identity_0", &["onnx::MatMul_10"]);
        alias.outputs = vec!["onnx::MatMul_11".into()];
        let nodes = [
            alias,
            node("MatMul", "/layers.0/fc/MatMul", &["x", "onnx::MatMul_9"]),
            node(
                "InstanceNormalization",
                "/norm/InstanceNormalization",
                &["x", "a", "b"],
            ),
            node("Mul", "/norm/Mul", &["x", "onnx::Mul_4"]),
            node("MatMul", "/out/out.1/MatMul", &["x", "onnx::MatMul_10"]),
            // The same module again.
            node("MatMul", "/out/out.1_1/MatMul", &["x", "onnx::MatMul_11"]),
        ];
        let trace = trace(&shapes, &nodes);
        assert_eq!(
            named(&trace),
            [
                ("fc.bias", "fc.bias", Form::Same),
                ("layers.0.fc.weight", "onnx::MatMul_9", Form::Transposed),
                ("norm.weight", "onnx::Mul_4", Form::Squeezed),
                ("out.1.weight", "onnx::MatMul_10", Form::Transposed),
            ]
        );
        assert_eq!(trace.nameless, ["onnx::Unused_5"]);
    }

    #[test]
    fn two_tensors_with_one_name_have_none() {
        let shapes = shapes(&[("onnx::MatMul_1", &[2, 2]), ("onnx::MatMul_2", &[2, 2])]);
        let nodes = [
            node("MatMul", "/attention/MatMul", &["x", "onnx::MatMul_1"]),
            node("MatMul", "/attention/MatMul_1", &["x", "onnx::MatMul_2"]),
        ];
        let trace = trace(&shapes, &nodes);
        assert!(trace.parameters.is_empty());
        assert_eq!(trace.nameless.len(), 2);
    }

    #[test]
    fn a_ring_of_identities_ends() {
        let mut one = node("Identity", "", &["b"]);
        one.outputs = vec!["a".into()];
        let mut two = node("Identity", "", &["a"]);
        two.outputs = vec!["b".into()];
        assert_eq!(trace(&BTreeMap::new(), &[one, two]), Trace::default());
    }
}
