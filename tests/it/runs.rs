//! What a finished training leaves: saved, opened, exported, drawn with.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use model_import::{read_tensors, read_tensors_with_metadata, write_tensors};
use ragar::app::assembly::{Generation, Language, preference};
use ragar::app::commands::DEMO_QUICK;
use ragar::app::config::{METHOD, RunConfig};
use ragar::generation::preference::PreferenceModel;
use ragar::optimisation::parameters::{NamedTensors, Selection, collect};

use crate::support::{TestBackend, devices};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

struct Trained {
    config: RunConfig,
    language: Language,
    generation: Generation,
    model: PreferenceModel<TestBackend>,
}

impl Trained {
    /// The demo's model, with an adapter that changes something.
    fn new() -> Self {
        let data = repository().join("assets/stickers");
        let arguments = [format!("data.folder={}", data.display())];
        let arguments = DEMO_QUICK.iter().map(ToString::to_string).chain(arguments);
        let mut config = RunConfig::load(None, &arguments.collect::<Vec<_>>()).unwrap();
        // No ranking model stands by to choose.
        config.inference.candidates = 1;
        let devices = devices();
        let language = Language::open(&config.models, &devices.train).unwrap();
        let generation = Generation::open(&config.models, &devices.frozen).unwrap();
        let mut model = preference::fresh(&config, &language, &generation, &devices.train).unwrap();
        let mut adapter = model.llama.adapter().expect("an adapter");
        for layer in &mut adapter.layers {
            for update in [&mut layer.self_attn.q_proj, &mut layer.self_attn.v_proj] {
                let weight = &mut update.as_mut().expect("an update").lora_B.weight;
                *weight = Param::from_tensor(uneven(weight.val().dims(), &devices.train));
            }
        }
        model.llama = model.llama.with_adapter(&adapter);
        Self {
            config,
            language,
            generation,
            model,
        }
    }

    fn save(&self, folder: &Path) {
        self.config.save(folder, "train", METHOD).unwrap();
        preference::save(folder, &self.model, &self.language, &self.generation).unwrap();
    }

    fn open(&self, folder: &Path) -> anyhow::Result<NamedTensors> {
        let opened = preference::open(
            &self.config,
            folder,
            &self.language,
            &self.generation,
            &devices().train,
        )?;
        let mut tensors = collect::<TestBackend, _>(&opened, Selection::All);
        let trained = self.tensors();
        tensors.retain(|name, _| trained.contains_key(name));
        Ok(tensors)
    }

    fn tensors(&self) -> NamedTensors {
        collect::<TestBackend, _>(&self.model, Selection::Trainable)
    }
}

fn uneven(shape: [usize; 2], device: &Device<TestBackend>) -> Tensor<TestBackend, 2> {
    let count = shape[0] * shape[1];
    let values: Vec<f32> = (0..count)
        .map(|i| ((i * 37 + 11) % 64) as f32 / 640.0)
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

#[test]
fn a_finished_training_is_an_adapter_and_the_rest() {
    let trained = Trained::new();
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let error = trained.open(run).unwrap_err().to_string();
    assert!(error.contains("not the folder of a finished"), "{error}");
    std::fs::create_dir(run.join("checkpoints")).unwrap();
    let error = trained.open(run).unwrap_err().to_string();
    assert!(error.contains("run `ragar train --out"), "{error}");

    let log = "{\"step\":0,\"loss\":2.0}\n{\"step\":1,\"loss\":0.125}\n";
    std::fs::write(run.join("metrics.jsonl"), log).unwrap();
    trained.save(run);
    let expected = trained.tensors();
    assert_eq!(trained.open(run).unwrap(), expected);
    let rest = run.join(preference::WEIGHTS);
    let (tensors, metadata) = read_tensors_with_metadata(&rest).unwrap();
    assert!(tensors.keys().all(|name| !name.starts_with("llama.")));
    let adapter = run.join("adapter/adapter_model.safetensors");
    let in_adapter = read_tensors(&adapter).unwrap();
    assert_eq!(tensors.len() + in_adapter.len(), expected.len());

    let card = std::fs::read_to_string(run.join("README.md")).unwrap();
    for word in [
        "---\nlibrary_name: ragar\n",
        "base_model: \"assets/models/tiny/llm\"",
        "LICENSES.md",
        "| loss | 0.1250 |",
        "- seed: 0",
        "ragar train --config",
    ] {
        assert!(card.contains(word), "{word} is not in\n{card}");
    }

    // As earlier versions wrote it: one file.
    let earlier = tempfile::tempdir().unwrap();
    let file = earlier.path().join(preference::WEIGHTS);
    write_tensors(&file, &expected, &metadata).unwrap();
    assert_eq!(trained.open(earlier.path()).unwrap(), expected);

    // The adapter's own folder is what is read.
    let before = preference::fingerprint(run).unwrap();
    let mut changed = in_adapter;
    let first = changed.values_mut().next().expect("a tensor");
    *first = TensorData::new(
        first.iter::<f32>().map(|v| v + 0.5).collect::<Vec<_>>(),
        first.shape.clone(),
    );
    write_tensors(&adapter, &changed, &[].into()).unwrap();
    assert_ne!(trained.open(run).unwrap(), expected);
    assert_ne!(preference::fingerprint(run).unwrap(), before);
}

fn ragar(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::cargo_bin("ragar")
        .expect("the program")
        .current_dir(folder)
        .args(arguments)
        .output()
        .expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Keywords and texts of a PNG file.
fn facts(picture: &Path) -> Vec<(String, String)> {
    let file = std::io::BufReader::new(std::fs::File::open(picture).expect("a picture"));
    let reader = png::Decoder::new(file).read_info().expect("a PNG file");
    let chunks = reader.info().utf8_text.iter();
    chunks
        .map(|chunk| (chunk.keyword.clone(), chunk.get_text().expect("text")))
        .collect()
}

#[test]
fn a_bundle_draws_elsewhere_what_its_run_draws() {
    let trained = Trained::new();
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| -> (PathBuf, String) {
        let path = folder.path().join(name);
        let text = path.display().to_string();
        (path, text)
    };
    let ((run, run_name), (bundle, bundle_name)) = (place("run"), place("bundle"));
    std::fs::create_dir_all(run.join("checkpoints")).unwrap();
    trained.config.save(&run, "train", METHOD).unwrap();
    let export = ["export", "--run", &run_name, "--out", &bundle_name];
    let (code, _, said) = ragar(repository(), &export);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("has not finished") && !bundle.exists(),
        "{said}"
    );

    trained.save(&run);
    let store = folder.path().join("store").display().to_string();
    let store = format!("features.store={store}");
    let mut with_models = export.to_vec();
    with_models.extend(["--with-models", "--quiet"]);
    let (code, said, error) = ragar(repository(), &with_models);
    assert_eq!(code, Some(0), "{error}");
    assert!(said.contains("with the frozen networks"), "{said}");
    for file in [
        "bundle.json",
        "config.toml",
        "README.md",
        "preference.safetensors",
        "adapter/adapter_config.json",
        "models/generator/unet/config.json",
    ] {
        assert!(bundle.join(file).is_file(), "{file}");
    }
    let config = std::fs::read_to_string(bundle.join("config.toml")).unwrap();
    assert!(config.contains("clip = \"models/clip\""), "{config}");
    let (code, _, said) = ragar(repository(), &with_models);
    assert_eq!(code, Some(1));
    assert!(said.contains("is not empty"), "{said}");

    let draw = |from: &Path, run: &str, out: &str| {
        let arguments = ["generate", "--run", run, "--out", out, "--set", &store];
        let (code, _, said) = ragar(from, &arguments);
        assert_eq!(code, Some(0), "{said}");
    };
    let (here, there) = (place("here.png"), place("there.png"));
    draw(repository(), &run_name, &here.1);
    // Where the run's own paths to the networks lead nowhere.
    draw(folder.path(), &bundle_name, &there.1);
    let (own, bundled) = (std::fs::read(&here.0), std::fs::read(&there.0));
    assert_eq!(own.unwrap(), bundled.unwrap());
    let facts = facts(&there.0);
    let fact = |key: &str| {
        let found = facts.iter().find(|(keyword, _)| keyword == key);
        found.map(|(_, text)| text.as_str())
    };
    assert_eq!(fact("steps"), Some("8"));
    assert_eq!(fact("scheduler"), Some("pipeline"));
    let checkpoint = preference::fingerprint(&run).unwrap();
    assert_eq!(fact("checkpoint"), Some(checkpoint.as_str()));
    assert!(fact("user").is_some_and(|user| !user.is_empty()));
}

#[test]
fn who_chooses_among_drawings_must_be_there_and_goes_along() {
    let mut trained = Trained::new();
    let folder = tempfile::tempdir().unwrap();
    let (run, bundle) = (folder.path().join("run"), folder.path().join("bundle"));
    let ranking = folder.path().join("rank");
    trained.config.inference.candidates = 2;
    trained.config.models.ranking = ranking.clone();
    std::fs::create_dir_all(&run).unwrap();
    trained.config.save(&run, "train", METHOD).unwrap();
    trained.save(&run);
    let text = |path: &Path| path.display().to_string();
    let out = folder.path().join("drawing.png");
    let arguments = ["generate", "--run", &text(&run), "--out", &text(&out)];
    let (code, _, said) = ragar(repository(), &arguments);
    assert_eq!(code, Some(1));
    for part in ["inference.candidates = 2", "ragar rank train --out", "to 1"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!out.exists());

    std::fs::create_dir_all(ranking.join("checkpoints")).unwrap();
    for file in ["ranking.json", "model.safetensors", "checkpoints/state"] {
        std::fs::write(ranking.join(file), "{}").unwrap();
    }
    let export = [
        "export",
        "--run",
        &text(&run),
        "--out",
        &text(&bundle),
        "--with-models",
    ];
    let (code, _, said) = ragar(repository(), &export);
    assert_eq!(code, Some(0), "{said}");
    assert!(bundle.join("models/ranking/ranking.json").is_file());
    assert!(!bundle.join("models/ranking/checkpoints").exists());
    let config = std::fs::read_to_string(bundle.join("config.toml")).unwrap();
    assert!(config.contains("ranking = \"models/ranking\""), "{config}");

    trained.config.inference.candidates = 0;
    let refused = trained.config.validate();
    assert!(format!("{refused:?}").contains("candidates must be at least 1"));
}
