//! Files in, modules out, and back: what fits, what does not, and what is said about it.

use std::collections::BTreeMap;
use std::path::Path;

use burn::backend::Flex;
use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{DType, FloatDType, Tensor, TensorData};
use model_import::{
    Checkpoint, ImportError, KeyMap, SaveDtype, load_into, load_partial, read_tensors,
    read_tensors_with_metadata, save_from, write_tensors,
};

type Tensors = BTreeMap<String, TensorData>;

#[derive(Module, Debug)]
struct Block<B: burn::tensor::backend::Backend> {
    fc: Linear<B>,
    norm: LayerNorm<B>,
}

#[derive(Module, Debug)]
struct Network<B: burn::tensor::backend::Backend> {
    embedding: Embedding<B>,
    layers: Vec<Block<B>>,
    head: Option<Linear<B>>,
    projection: Param<Tensor<B, 2>>,
}

/// Widths differ everywhere, so that a transposition cannot hide.
fn network(with_head: bool) -> Network<Flex> {
    let device = Default::default();
    let block = || Block {
        fc: LinearConfig::new(3, 2).init(&device),
        norm: LayerNormConfig::new(2).init(&device),
    };
    Network {
        embedding: EmbeddingConfig::new(5, 3).init(&device),
        layers: vec![block(), block()],
        head: with_head.then(|| LinearConfig::new(2, 7).with_bias(false).init(&device)),
        projection: Param::from_tensor(Tensor::zeros([4, 2], &device)),
    }
}

fn ramp(shape: &[usize], start: f32) -> TensorData {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| start + i as f32 / 16.0).collect();
    TensorData::new(values, shape.to_vec())
}

/// What PyTorch would save for [`network`] with its head, under `model.`.
fn hub_tensors() -> Tensors {
    let mut tensors = Tensors::new();
    let mut add = |name: &str, shape: &[usize]| {
        let start = tensors.len() as f32;
        tensors.insert(format!("model.{name}"), ramp(shape, start));
    };
    add("embedding.weight", &[5, 3]);
    for layer in 0..2 {
        add(&format!("layers.{layer}.fc.weight"), &[2, 3]);
        add(&format!("layers.{layer}.fc.bias"), &[2]);
        add(&format!("layers.{layer}.norm.weight"), &[2]);
        add(&format!("layers.{layer}.norm.bias"), &[2]);
    }
    add("head.weight", &[7, 2]);
    add("projection", &[4, 2]);
    tensors
}

fn key_map() -> KeyMap {
    KeyMap::new().rename("model.", "").ignore("*.position_ids")
}

fn write(path: &Path, tensors: &Tensors) {
    write_tensors(path, tensors, &BTreeMap::new()).expect("a written file");
}

/// The message of a load that must fail, and the proof that the module was left alone.
fn refused(tensors: &Tensors) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    write(&path, tensors);
    let mut module = network(true);
    let before = module.layers[1].fc.weight.to_data();
    let checkpoint = Checkpoint::open(&path).expect("a checkpoint");
    let error = load_into(&mut module, &checkpoint, &key_map()).expect_err("a mismatch");
    assert!(matches!(error, ImportError::Mismatch(_)), "{error}");
    assert_eq!(before, module.layers[1].fc.weight.to_data());
    error.to_string()
}

#[test]
fn a_module_loads_and_saves_the_same_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("model.safetensors");
    write(&source, &hub_tensors());
    let mut module = network(true);
    // Opening the folder finds the file.
    let checkpoint = Checkpoint::open(folder.path()).expect("a checkpoint");
    let report = load_into(&mut module, &checkpoint, &key_map()).expect("a load");
    assert_eq!(report.loaded.len(), 11);
    assert!(report.kept.is_empty() && report.tied.is_empty());
    assert_eq!(report.num_values, checkpoint.num_values());

    // Linear: [out, in] on the hub, [in, out] here. Raw parameters and embeddings as they are.
    let hub = hub_tensors();
    let linear = hub["model.layers.1.fc.weight"]
        .to_vec::<f32>()
        .expect("floats");
    let here = module.layers[1].fc.weight.to_data();
    assert_eq!(here.shape.to_vec(), [3, 2]);
    let here = here.to_vec::<f32>().expect("floats");
    assert_eq!(
        here,
        [
            linear[0], linear[3], linear[1], linear[4], linear[2], linear[5]
        ]
    );
    assert_eq!(module.projection.to_data(), hub["model.projection"]);
    assert_eq!(
        module.embedding.weight.to_data(),
        hub["model.embedding.weight"]
    );
    assert_eq!(
        module.layers[0].norm.gamma.to_data(),
        hub["model.layers.0.norm.weight"]
    );

    let again = folder.path().join("deep/er/again.safetensors");
    let metadata = BTreeMap::from([("made_by".to_string(), "a test".to_string())]);
    save_from(&module, &again, &key_map(), SaveDtype::F32, &metadata).expect("a save");
    let (tensors, metadata) = read_tensors_with_metadata(&again).expect("a file");
    assert_eq!(tensors, hub);
    assert_eq!(metadata["format"], "pt");
    assert_eq!(metadata["made_by"], "a test");

    // The reference reader agrees, and nothing temporary is left.
    let bytes = std::fs::read(&again).expect("bytes");
    let reference = safetensors::SafeTensors::deserialize(&bytes).expect("a valid file");
    assert_eq!(reference.len(), hub.len());
    let left = std::fs::read_dir(again.parent().expect("a folder")).expect("entries");
    assert_eq!(left.count(), 1);
    let repeat = folder.path().join("repeat.safetensors");
    save_from(
        &module,
        &repeat,
        &key_map(),
        SaveDtype::F32,
        &BTreeMap::from([("made_by".into(), "a test".into())]),
    )
    .expect("a save");
    assert_eq!(bytes, std::fs::read(&repeat).expect("bytes"));
}

#[test]
fn everything_that_differs_is_named_at_once() {
    let mut tensors = hub_tensors();
    tensors.remove("model.layers.1.norm.bias");
    tensors.remove("model.head.weight");
    tensors.insert("model.extra.weight".into(), ramp(&[2], 0.0));
    // As a tool that forgot to transpose would write it.
    tensors.insert("model.layers.0.fc.weight".into(), ramp(&[3, 2], 0.0));
    tensors.insert(
        "model.layers.0.fc.bias".into(),
        TensorData::new(vec![1i64, 2], [2]),
    );
    let message = refused(&tensors);
    for part in [
        "missing from the file (2)",
        "model.layers.1.norm.bias",
        "model.head.weight",
        "unused by the module (1)",
        "model.extra.weight",
        "model.layers.0.fc.weight: expected [2, 3], found [3, 2] (transposed?)",
        "model.layers.0.fc.bias: expected floats, found I64",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn a_raw_parameter_is_not_transposed() {
    let mut tensors = hub_tensors();
    tensors.insert("model.projection".into(), ramp(&[2, 4], 0.0));
    assert!(refused(&tensors).contains("model.projection: expected [4, 2], found [2, 4]"));
}

#[test]
fn ignored_tensors_and_absent_options_are_no_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let mut tensors = hub_tensors();
    tensors.insert(
        "model.embeddings.position_ids".into(),
        TensorData::new(vec![0i64, 1], [1, 2]),
    );
    tensors.remove("model.head.weight");
    write(&path, &tensors);
    let checkpoint = Checkpoint::open(&path).expect("a checkpoint");
    assert!(!checkpoint.contains("model.head.weight"));
    assert!(checkpoint.has_prefix("model.layers.") && !checkpoint.has_prefix("layers."));
    let report = load_into(&mut network(false), &checkpoint, &key_map()).expect("a load");
    assert_eq!(report.ignored, ["model.embeddings.position_ids"]);
    let error = checkpoint
        .tensor("layers.0.fc.bias")
        .expect_err("no such name");
    assert!(
        error
            .to_string()
            .contains("did you mean `model.layers.0.fc.bias`?"),
        "{error}"
    );
}

#[test]
fn a_partial_load_keeps_the_rest_but_not_strangers() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("adapter_model.safetensors");
    let mut tensors = Tensors::from([("model.head.weight".to_string(), ramp(&[7, 2], 3.0))]);
    write(&path, &tensors);
    let mut module = network(true);
    let embedding = module.embedding.weight.to_data();
    let checkpoint = Checkpoint::open(folder.path()).expect("a checkpoint");
    let report = load_partial(&mut module, &checkpoint, &key_map()).expect("a load");
    assert_eq!(report.loaded, ["head.weight"]);
    assert_eq!(report.kept.len(), 10);
    assert_eq!(embedding, module.embedding.weight.to_data());
    let head = module.head.as_ref().expect("a head").weight.to_data();
    assert_eq!(head.iter::<f32>().nth(1), Some(3.0 + 2.0 / 16.0));

    tensors.insert("model.stranger".into(), ramp(&[1], 0.0));
    write(&path, &tensors);
    let checkpoint = Checkpoint::open(&path).expect("a checkpoint");
    let error = load_partial(&mut module, &checkpoint, &key_map()).expect_err("a stranger");
    assert!(error.to_string().contains("model.stranger"));
}

#[test]
fn half_precision_files_become_single_precision_and_back() {
    let folder = tempfile::tempdir().expect("a folder");
    for (dtype, save) in [(DType::F16, SaveDtype::F16), (DType::BF16, SaveDtype::BF16)] {
        let path = folder.path().join("half.safetensors");
        let half: Tensors = hub_tensors()
            .into_iter()
            .map(|(name, data)| (name, data.convert_dtype(dtype)))
            .collect();
        write(&path, &half);
        let mut module = network(true);
        let checkpoint = Checkpoint::open(&path).expect("a checkpoint");
        load_into(&mut module, &checkpoint, &key_map()).expect("a load");
        let here = module.embedding.weight.to_data();
        assert_eq!(here.dtype, DType::F32);
        // The ramp's small sixteenths are exact in f16, and 0.5 steps in bf16.
        assert_eq!(
            here,
            half["model.embedding.weight"]
                .clone()
                .convert_dtype(DType::F32)
        );
        let again = folder.path().join("again.safetensors");
        save_from(&module, &again, &key_map(), save, &BTreeMap::new()).expect("a save");
        assert_eq!(read_tensors(&again).expect("a file"), half);
    }
}

#[test]
fn a_value_too_large_for_f16_is_refused_and_the_old_file_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, "old").expect("a file");
    let mut module = network(true);
    module.projection = Param::from_tensor(Tensor::full([4, 2], 7e4, &Default::default()));
    let error = save_from(&module, &path, &key_map(), SaveDtype::F16, &BTreeMap::new())
        .expect_err("too large");
    assert!(error.to_string().contains("`model.projection`"), "{error}");
    assert_eq!(std::fs::read(&path).expect("the old file"), b"old");
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("entries").count(),
        1
    );
}

#[test]
fn a_key_map_without_a_way_back_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let map = KeyMap::new().rename("", "layers");
    let error = save_from(
        &network(true),
        &path,
        &map,
        SaveDtype::F32,
        &BTreeMap::new(),
    )
    .expect_err("no way back");
    assert!(
        matches!(error, ImportError::NotReversible { .. }),
        "{error}"
    );
    assert!(!path.exists());
}

#[derive(Module, Debug)]
struct Tied<B: burn::tensor::backend::Backend> {
    first: Linear<B>,
    second: Linear<B>,
}

#[test]
fn tied_parameters_load_from_one_tensor_and_are_saved_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let tensors = Tensors::from([
        ("second.weight".to_string(), ramp(&[2, 3], 1.0)),
        ("second.bias".to_string(), ramp(&[2], 2.0)),
    ]);
    write(&path, &tensors);
    let first = LinearConfig::new(3, 2).init::<Flex>(&Default::default());
    let mut module = Tied {
        second: first.clone(),
        first,
    };
    let checkpoint = Checkpoint::open(&path).expect("a checkpoint");
    let report = load_into(&mut module, &checkpoint, &KeyMap::identity()).expect("a load");
    assert_eq!(report.loaded, ["second.weight", "second.bias"]);
    assert_eq!(report.tied, ["first.weight", "first.bias"]);
    assert_eq!(
        module.first.weight.to_data(),
        module.second.weight.to_data()
    );
    save_from(
        &module,
        &path,
        &KeyMap::identity(),
        SaveDtype::F32,
        &BTreeMap::new(),
    )
    .expect("a save");
    let saved = read_tensors(&path).expect("a file");
    assert_eq!(
        saved.keys().collect::<Vec<_>>(),
        ["first.bias", "first.weight"]
    );
}

#[test]
fn frozen_parameters_stay_frozen() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    write(&path, &hub_tensors());
    let mut module = network(true).no_grad();
    load_into(
        &mut module,
        &Checkpoint::open(&path).expect("a checkpoint"),
        &key_map(),
    )
    .expect("a load");
    assert!(!module.projection.is_require_grad());
}

#[test]
fn values_that_are_not_finite_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let mut tensors = hub_tensors();
    for (name, value) in [
        ("model.layers.0.fc.bias", f32::NAN),
        ("model.head.weight", f32::NEG_INFINITY),
    ] {
        let mut values = tensors[name].to_vec::<f32>().expect("floats");
        values[1] = value;
        let shape = tensors[name].shape.to_vec();
        tensors.insert(name.into(), TensorData::new(values, shape));
    }
    write(&path, &tensors);
    let checkpoint = Checkpoint::open(&path).expect("a checkpoint");
    let error = load_into(&mut network(true), &checkpoint, &key_map()).expect_err("a refusal");
    let text = error.to_string();
    assert!(matches!(error, ImportError::NotFinite { .. }), "{text}");
    for part in [
        "`model.layers.0.fc.bias` (1)",
        "`model.head.weight` (1)",
        "model.safetensors",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn floats_load_in_the_type_asked_for_unless_they_are_too_large_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut tensors = hub_tensors();
    write(&path, &tensors);
    let checkpoint = Checkpoint::open(&path).unwrap();
    for (asked, dtype) in [
        (FloatDType::F16, DType::F16),
        (FloatDType::BF16, DType::BF16),
    ] {
        let mut module = network(true);
        load_into(&mut module, &checkpoint.clone().in_dtype(asked), &key_map()).unwrap();
        let stored = module.projection.val().into_data();
        assert_eq!(stored.dtype, dtype);
        let values: Vec<f32> = stored.iter::<f32>().collect();
        let expected: Vec<f32> = tensors["model.projection"].iter::<f32>().collect();
        let pairs = values.iter().zip(&expected);
        assert!(
            pairs.clone().all(|(a, b)| (a - b).abs() < 0.05),
            "{values:?}"
        );
        assert_eq!(module.layers[0].norm.gamma.val().dtype(), dtype);
    }
    let large = TensorData::new(vec![7e4f32; 8], [4, 2]);
    tensors.insert("model.projection".into(), large);
    write(&path, &tensors);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let half = checkpoint.clone().in_dtype(FloatDType::F16);
    let error = load_into(&mut network(true), &half, &key_map()).unwrap_err();
    assert!(
        matches!(&error, ImportError::Overflow { name, .. } if name == "model.projection"),
        "{error}"
    );
    let brain = checkpoint.in_dtype(FloatDType::BF16);
    load_into(&mut network(true), &brain, &key_map()).unwrap();
}
