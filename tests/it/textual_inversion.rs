//! Learned tokens from files of every form, against diffusers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::{Int, Tensor, TensorData};
use model_import::write_tensors;
use ragar::networks::clip::{ClipTextConfig, ClipTextModel};
use ragar::pretrained::clip;
use ragar::pretrained::textual_inversion::LearnedToken;
use ragar::text::TextTokenizer;

use crate::support::{Golden, TestBackend, device, differs, golden_dir};

const CASE: &str = "textual-inversion";

struct Encoder {
    config: ClipTextConfig,
    network: ClipTextModel<TestBackend>,
    tokenizer: TextTokenizer,
}

fn encoder() -> Encoder {
    let model = golden_dir("pipeline").join("model");
    let (config, network) = clip::open_text_model(&model.join("text_encoder"), &device()).unwrap();
    Encoder {
        config,
        network,
        tokenizer: TextTokenizer::open(&model.join("tokenizer")).unwrap(),
    }
}

impl Encoder {
    fn with(mut self, learned: &LearnedToken) -> Self {
        let added = learned.add_to(&mut self.config, self.network, self.tokenizer);
        (self.network, self.tokenizer, _) = added.unwrap();
        self
    }

    /// Ids and last states of prompts as a user writes them.
    fn read(&self, prompts: &[String]) -> (TensorData, TensorData) {
        let length = self.config.max_position_embeddings;
        let prompts: Vec<String> = prompts
            .iter()
            .map(|prompt| self.tokenizer.with_every_vector(prompt))
            .collect();
        let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let (ids, _) = self.tokenizer.encode_padded(&prompts, length);
        let ids: Vec<i64> = ids.into_iter().flatten().map(i64::from).collect();
        let ids = TensorData::new(ids, [prompts.len(), length]);
        let input = Tensor::<TestBackend, 2, Int>::from_data(ids.clone(), &device());
        let states = self.network.forward(input).last_hidden_state;
        (ids, states.into_data())
    }
}

/// As a pickle of diffusers, as safetensors and as a pickle of the web UI.
fn learned() -> [LearnedToken; 3] {
    let open = |file: &str, token| LearnedToken::open(&golden_dir(CASE).join(file), token).unwrap();
    [
        open("crate", None),
        open("sketch.safetensors", Some("<sketch>")),
        open("chair.pt", None),
    ]
}

fn texts(golden: &Golden, key: &str) -> Vec<String> {
    serde_json::from_str(&golden.metadata(key).unwrap()).unwrap()
}

#[test]
fn every_form_of_file_reads_as_in_diffusers() {
    let golden = Golden::open(CASE);
    let encoder = learned().iter().fold(encoder(), Encoder::with);
    let prompts = texts(&golden, "prompts");
    for (prompt, converted) in prompts.iter().zip(texts(&golden, "converted")) {
        assert_eq!(encoder.tokenizer.with_every_vector(prompt), converted);
    }
    let (ids, states) = encoder.read(&prompts);
    ids.assert_eq(&golden.data("output.input_ids"), false);
    let expected = golden.data("output.prompt_embeds");
    assert!(!differs(&expected, &states), "the states differ");
    assert_eq!(encoder.config.vocab_size, encoder.tokenizer.vocab_size());
    assert_eq!(
        encoder.network.embeddings.token_embedding.weight.dims()[0],
        encoder.config.vocab_size
    );
}

#[test]
fn a_changed_vector_shows() {
    let golden = Golden::open(CASE);
    let mut learned = learned();
    let vectors: Vec<f32> = learned[1].vectors.iter::<f32>().collect();
    let changed: Vec<f32> = vectors.iter().map(|value| value * 1.02).collect();
    learned[1].vectors = TensorData::new(changed, learned[1].vectors.shape.clone());
    let encoder = learned.iter().fold(encoder(), Encoder::with);
    let (_, states) = encoder.read(&texts(&golden, "prompts"));
    assert!(differs(&golden.data("output.prompt_embeds"), &states));
}

#[test]
fn what_is_saved_reads_the_same() {
    let golden = Golden::open(CASE);
    let dir = tempfile::tempdir().unwrap();
    let mut encoder = encoder();
    for (place, original) in learned().into_iter().enumerate() {
        let folder = dir.path().join(place.to_string());
        std::fs::create_dir(&folder).unwrap();
        let first = encoder.tokenizer.vocab_size();
        encoder = encoder.with(&original);
        // Out of the encoder's own table, as after training.
        let saved = LearnedToken {
            token: original.token.clone(),
            vectors: encoder
                .network
                .token_vectors(first, original.names().len())
                .into_data(),
        };
        saved
            .save(&folder.join("learned_embeds.safetensors"))
            .unwrap();
    }
    let again = (0..3)
        .map(|place| LearnedToken::open(&dir.path().join(place.to_string()), None).unwrap())
        .fold(self::encoder(), |encoder, learned| encoder.with(&learned));
    let (_, states) = again.read(&texts(&golden, "prompts"));
    assert!(!differs(&golden.data("output.prompt_embeds"), &states));
}

#[test]
fn tokens_that_cannot_be_used_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, tensors: &[(&str, TensorData)]| -> PathBuf {
        let path = dir.path().join(name);
        let tensors: BTreeMap<String, TensorData> = tensors
            .iter()
            .map(|(name, tensor)| (name.to_string(), tensor.clone()))
            .collect();
        write_tensors(&path, &tensors, &BTreeMap::new()).unwrap();
        path
    };
    let vectors = |width: usize| TensorData::new(vec![0.5f32; 2 * width], [2, width]);
    let open = |path: &PathBuf| LearnedToken::open(path, None).unwrap_err().to_string();

    let two = write(
        "two.safetensors",
        &[("clip_g", vectors(4)), ("clip_l", vectors(4))],
    );
    assert!(open(&two).contains("clip_g, clip_l"));
    let path = write("learned_embeds.safetensors", &[("emb_params", vectors(32))]);
    assert!(open(&path).contains("name one"));
    let named = LearnedToken::open(&path, Some("hat")).unwrap();
    assert_eq!(named.names(), ["hat", "hat_1"]);
    let path = write("hat.safetensors", &[("emb_params", vectors(32))]);
    assert_eq!(LearnedToken::open(&path, None).unwrap(), named);
    let infinite = TensorData::new(vec![f32::INFINITY; 32], [32]);
    let path = write("infinite.safetensors", &[("<a>", infinite)]);
    assert!(open(&path).contains("finite"));
    assert!(open(&dir.path().join("nowhere.pt")).contains("nowhere.pt"));

    let refuse = |learned: &LearnedToken, encoder: Encoder| {
        let mut config = encoder.config;
        let added = learned.add_to(&mut config, encoder.network, encoder.tokenizer);
        added.expect_err("must be refused").to_string()
    };
    let path = write("wide.safetensors", &[("<wide>", vectors(48))]);
    let error = refuse(&LearnedToken::open(&path, None).unwrap(), encoder());
    assert!(error.contains("[2, 48]") && error.contains("32"), "{error}");
    let error = refuse(&named, encoder().with(&named));
    assert!(error.contains("`hat`"), "{error}");
    // `hat` with one vector must not hide behind the second vector of another `hat`.
    let single = LearnedToken {
        token: "<end".into(),
        vectors: TensorData::new(vec![0f32; 32], [32]),
    };
    let other = LearnedToken {
        token: "<end_1".into(),
        ..single.clone()
    };
    let error = refuse(&single, encoder().with(&other));
    assert!(error.contains("<end_1"), "{error}");
}
