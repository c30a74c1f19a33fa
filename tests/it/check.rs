//! `ragar model check`: what the reference computed is computed here, and a wrong weight is noticed.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use model_import::{read_tensors_with_metadata, write_tensors};
use serde_json::Value;

use crate::cli::{ragar, refuses, stderr, stdout};
use crate::support::golden_dir;

/// Every recorded case that has a folder of its own.
const CASES: [&str; 21] = [
    "blip2-opt",
    "blip2-post-norm",
    "blip2-t5",
    "blip2-t5-relu",
    "blip2-t5-tied",
    "clip",
    "clip-gelu",
    "clip-text",
    "clip-text-bare",
    "clip-vision",
    "gill-mapper",
    "llama-linear",
    "llama-llama3",
    "llama-lora",
    "llama-mha",
    "scheduler-euler",
    "scheduler-lcm",
    "unet-sd2",
    "unet-tiny-sd",
    "vae",
    "vae-first-release",
];

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn arguments(model: &Path, golden: &Path) -> Vec<String> {
    let words = [
        "model",
        "check",
        &text(model),
        "--golden",
        &text(golden),
        "--json",
    ];
    words.map(String::from).to_vec()
}

fn check(model: &Path, golden: &Path) -> (Option<i32>, Value, String) {
    let words = arguments(model, golden);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = ragar(&words);
    let proof = serde_json::from_str(&stdout(&output)).unwrap_or(Value::Null);
    (output.status.code(), proof, stderr(&output))
}

fn case(name: &str) -> (PathBuf, PathBuf) {
    let folder = golden_dir(name);
    (folder.join("model"), folder.join("golden.safetensors"))
}

#[test]
fn recorded_cases_pass() {
    for name in CASES.into_iter().chain(["pipeline"]) {
        let (model, golden) = case(name);
        let (code, proof, said) = check(&model, &golden);
        assert_eq!(code, Some(0), "{name}: {said}");
        let outputs = proof["outputs"].as_array().expect("outputs");
        let (_, recorded) = (0, read_tensors_with_metadata(&golden).unwrap().0);
        let recorded = recorded.keys().filter(|name| name.starts_with("output."));
        assert_eq!(outputs.len(), recorded.count(), "{name}");
        assert!(outputs.iter().all(|line| line["passed"] == true), "{name}");
    }
}

/// The case with its checkpoint's largest inner matrix off by 1e-2, in a folder of its own.
fn perturbed(name: &str, folder: &Path) -> PathBuf {
    let (model, _) = case(name);
    let copy = folder.join(name);
    std::fs::create_dir_all(&copy).unwrap();
    for entry in std::fs::read_dir(&model).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    let weights = ["model.safetensors", "diffusion_pytorch_model.safetensors"];
    let weights = weights.map(|name| copy.join(name));
    let weights = weights.iter().find(|path| path.is_file()).expect("weights");
    let (mut tensors, metadata) = read_tensors_with_metadata(weights).unwrap();
    // A matrix in the middle of the network; a token's row might never be read.
    let is_inner = |name: &str| !name.contains("embed") && !name.contains("lm_head");
    let matrices = tensors
        .iter()
        .filter(|(name, data)| is_inner(name) && data.shape.len() == 2);
    let (name, data) = matrices
        .max_by_key(|(_, data)| data.num_elements())
        .expect("a matrix");
    let (name, dtype) = (name.clone(), data.dtype);
    let shape = data.shape.to_vec();
    // Both signs: a shift of a whole matrix hardly shows behind a norm, whose values add up to little.
    let sign = |place: usize| if place * 7919 % 13 < 6 { 0.01 } else { -0.01 };
    let values = data.iter::<f32>().enumerate();
    let values: Vec<f32> = values.map(|(place, value)| value + sign(place)).collect();
    let data = TensorData::new(values, shape).convert_dtype(dtype);
    assert!(matches!(dtype, DType::F32 | DType::F16 | DType::BF16));
    tensors.insert(name, data);
    write_tensors(weights, &tensors, &metadata).unwrap();
    copy
}

#[test]
fn a_weight_off_by_a_hundredth_fails() {
    let folder = tempfile::tempdir().unwrap();
    for name in CASES
        .into_iter()
        .filter(|name| !name.starts_with("scheduler"))
    {
        let (code, proof, said) = check(&perturbed(name, folder.path()), &case(name).1);
        assert_eq!(code, Some(1), "{name}: {proof}");
        assert!(said.contains("differ from the reference"), "{name}: {said}");
    }
}

/// Ranking models bring their weights along: a folder is not needed.
#[test]
fn ranking_models_pass_without_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["micro", "micro-uneven", "lattice", "light-gcn"] {
        let (_, golden) = case(name);
        let path = text(&golden);
        let output = ragar(&["model", "check", "--golden", &path]);
        assert!(
            output.status.success(),
            "{name}: {}{}",
            stdout(&output),
            stderr(&output)
        );
        let (mut tensors, metadata) = read_tensors_with_metadata(&golden).unwrap();
        let weight = tensors.get_mut("param.item_id_embedding.weight").unwrap();
        let shape = weight.shape.to_vec();
        let mut values: Vec<f32> = weight.iter::<f32>().collect();
        values[5] += 0.01;
        *weight = TensorData::new(values, shape);
        let changed = folder.path().join("changed.safetensors");
        write_tensors(&changed, &tensors, &metadata).unwrap();
        refuses(
            &["model", "check", "--golden", &text(&changed)],
            1,
            &["item_emb"],
        );
    }
}

#[test]
fn a_wrong_scheduler_fails() {
    let (_, golden) = case("scheduler-ddim");
    let (model, _) = case("scheduler-euler");
    let (code, proof, _) = check(&model, &golden);
    assert_eq!(code, Some(1));
    assert_eq!(proof["passed"], false);
}

#[test]
fn an_adapter_may_be_named_by_the_file_or_on_the_command_line() {
    let (model, golden) = case("llama-lora");
    let (_, proof, _) = check(&model, &golden);
    assert!(proof["adapter"].as_str().unwrap().ends_with("adapter"));
    let folder = tempfile::tempdir().unwrap();
    let (tensors, mut metadata) = read_tensors_with_metadata(&golden).unwrap();
    metadata.remove("adapter");
    let bare = folder.path().join("golden.safetensors");
    write_tensors(&bare, &tensors, &metadata).unwrap();
    let (code, _, said) = check(&model, &bare);
    assert_eq!(code, Some(1), "without its adapter the logits are others");
    assert!(said.contains("logits"), "{said}");
    let mut words = arguments(&model, &bare);
    words.extend([
        "--adapter".into(),
        text(&golden_dir("llama-lora").join("adapter")),
    ]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(ragar(&words).status.code(), Some(0));
}

#[test]
fn bounds_may_be_moved_and_half_precision_tried() {
    let (model, golden) = case("clip");
    let (model, golden) = (text(&model), text(&golden));
    let usual = ["model", "check", &model, "--golden", &golden];
    let with = |more: &[&str]| ragar(&[&usual, more].concat()).status.code();
    assert_eq!(with(&["--atol", "0", "--rtol", "1e-9"]), Some(1));
    assert_eq!(with(&["--dtype", "bf16"]), Some(1));
    assert_eq!(with(&["--dtype", "bf16", "--atol", "0.3"]), Some(0));
    assert_eq!(with(&["--dtype", "float16", "--atol", "0.03"]), Some(0));
    // The generator in half precision: norms are widened, so that it is half precision's own error that is left.
    for (name, dtype, rtol) in [
        ("unet-sd15", "f16", "0.01"),
        ("unet-sd15", "bf16", "0.06"),
        ("vae", "f16", "0.01"),
        ("vae", "bf16", "0.05"),
    ] {
        let (model, golden) = case(name);
        let (model, golden) = (text(&model), text(&golden));
        let words = [
            "model", "check", &model, "--golden", &golden, "--dtype", dtype, "--rtol", rtol,
        ];
        let output = ragar(&words);
        assert!(
            output.status.success(),
            "{name} {dtype}: {}",
            stdout(&output)
        );
    }
    refuses(&[&usual[..], &["--atol=-1"]].concat(), 2, &["--atol"]);
}

#[test]
fn unusable_questions_are_refused_by_name() {
    let (model, golden) = case("unet-sd15");
    let model = text(&model);
    let check = ["model", "check"];
    let (_, clip) = case("clip");
    let clip = text(&clip);
    let wrong = [&check[..], &[&model, "--golden", &clip]].concat();
    refuses(&wrong, 1, &["unet-sd15", "config.json"]);
    let golden_path = text(&golden);
    let homeless = [&check[..], &["--golden", &golden_path]].concat();
    refuses(&homeless, 1, &["name the checkpoint's folder"]);
    let weights = format!("{model}/diffusion_pytorch_model.safetensors");
    let foreign = [&check[..], &[&model, "--golden", &weights]].concat();
    refuses(&foreign, 1, &["no golden file", "docs/golden.md"]);

    let folder = tempfile::tempdir().unwrap();
    let changed = folder.path().join("changed.safetensors");
    let (tensors, metadata) = read_tensors_with_metadata(&golden).unwrap();
    let changed_path = text(&changed);
    let words = [&check[..], &[&model, "--golden", &changed_path]].concat();

    let mut other = metadata.clone();
    other.insert("kind".into(), "glide".into());
    write_tensors(&changed, &tensors, &other).unwrap();
    refuses(&words, 1, &["changed.safetensors", "`glide`", "unet"]);
    other.remove("kind");
    write_tensors(&changed, &tensors, &other).unwrap();
    refuses(&words, 1, &["changed.safetensors", "`kind`"]);

    let mut lacking = tensors.clone();
    lacking.remove("input.sample");
    write_tensors(&changed, &lacking, &metadata).unwrap();
    refuses(&words, 1, &["`input.sample`", "input.timestep"]);
    let mut infinite = tensors;
    infinite.insert("output.sample".into(), TensorData::from([f32::NAN]));
    write_tensors(&changed, &infinite, &metadata).unwrap();
    refuses(&words, 1, &["`output.sample`", "not finite"]);
}

/// Checkpoints of any type become one safetensors file that computes the same.
#[test]
fn converted_checkpoints_pass_the_same_proof() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| text(&folder.path().join(name));
    for name in ["unet-sd15", "pipeline"] {
        let (model, golden) = case(name);
        let written = ragar(&["model", "convert", &text(&model), "--out", &out(name)]);
        assert!(written.status.success(), "{}", stderr(&written));
        let (code, _, said) = check(&folder.path().join(name), &golden);
        assert_eq!(code, Some(0), "{name}: {said}");
    }
    // Half the size, and no longer exact.
    let (model, golden) = case("vae");
    let half = out("half");
    let words = [
        "model",
        "convert",
        &text(&model),
        "--out",
        &half,
        "--dtype",
        "bf16",
    ];
    assert!(ragar(&words).status.success());
    assert_eq!(check(Path::new(&half), &golden).0, Some(1));
    let size = |folder: &Path| {
        let file = folder.join("diffusion_pytorch_model.safetensors");
        std::fs::metadata(file).unwrap().len()
    };
    assert!(size(Path::new(&half)) * 10 < size(&model) * 6);
    // A file of weights alone.
    let file = out("weights.safetensors");
    let language = text(&golden_dir("llama-mha").join("model"));
    assert!(
        ragar(&["model", "convert", &language, "--out", &file])
            .status
            .success()
    );
    assert!(Path::new(&file).is_file());

    refuses(
        &["model", "convert", &language, "--out", &language],
        1,
        &["written over itself"],
    );
    refuses(
        &["model", "convert", &file, "--out", &out("x")],
        2,
        &[".safetensors"],
    );
    let empty = out("empty");
    std::fs::create_dir(&empty).unwrap();
    refuses(
        &["model", "convert", &empty, "--out", &out("y")],
        1,
        &["no weights"],
    );
}
