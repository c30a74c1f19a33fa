//! BLIP-2 against transformers, stage by stage; decoding with and without a cache; inputs that must be refused.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, FloatDType, Tensor};
use model_import::{Checkpoint, hub_shapes, load_into, maps};
use ragar::networks::blip2::{
    Blip2Config, Blip2Error, Blip2ForConditionalGeneration, CaptionOptions, EarlyStopping,
    TokenBatch,
};

use ragar::nn::precision::cast_parameters;
use ragar::pretrained::blip2;
use ragar::text::TextTokenizer;
use serde_json::json;

use crate::support::{Golden, TestBackend, compare, device, golden_dir};

const CASES: [&str; 2] = ["blip2-opt", "blip2-post-norm"];
const T5_CASES: [&str; 3] = ["blip2-t5", "blip2-t5-tied", "blip2-t5-relu"];

fn network(case: &str) -> Blip2ForConditionalGeneration<TestBackend> {
    let folder = golden_dir(case).join("model");
    let config = std::fs::read_to_string(folder.join("config.json")).expect("a configuration");
    let config: Blip2Config = serde_json::from_str(&config).expect("a BLIP-2 configuration");
    let mut network = config.init(&device()).expect("a valid configuration");
    let checkpoint = Checkpoint::open(&folder).expect("a checkpoint");
    load_into::<TestBackend, _>(&mut network, &checkpoint, &maps::blip2::blip2())
        .expect("a complete checkpoint");
    network
}

fn ids(golden: &Golden, name: &str) -> Vec<Vec<u32>> {
    let data = golden.data(name);
    let width = data.shape[1];
    let flat: Vec<u32> = data.iter::<i64>().map(|id| id as u32).collect();
    flat.chunks(width).map(<[u32]>::to_vec).collect()
}

fn prompts(golden: &Golden) -> TokenBatch {
    let mask = ids(golden, "input.attention_mask");
    let mask = mask
        .into_iter()
        .map(|row| row.into_iter().map(|id| id == 1).collect())
        .collect();
    TokenBatch {
        ids: ids(golden, "input.input_ids"),
        mask,
    }
}

/// Logits with the padded places set to zero, as recorded.
fn logits(
    network: &Blip2ForConditionalGeneration<TestBackend>,
    golden: &Golden,
) -> Tensor<TestBackend, 3> {
    let logits = network
        .forward(golden.float("input.pixel_values"), &prompts(golden))
        .expect("logits");
    let mask = golden.int::<2>("input.attention_mask").float();
    logits * mask.unsqueeze_dim(2)
}

#[test]
fn every_stage_matches_the_reference() {
    for case in CASES {
        let (network, golden) = (network(case), Golden::open(case));
        check_image_stages(&network, &golden);
        golden.check("output.logits", logits(&network, &golden));
    }
}

fn check_image_stages(network: &Blip2ForConditionalGeneration<TestBackend>, golden: &Golden) {
    let image = network
        .image_features(golden.float("input.pixel_values"))
        .expect("image features");
    golden.check(
        "output.vision_last_hidden_state",
        image.vision_last_hidden_state,
    );
    golden.check("output.qformer_output", image.qformer_output);
    golden.check("output.language_projection", image.language_projection);
}

/// A golden folder with T5, opened as a user would.
fn t5_network(case: &str) -> Blip2ForConditionalGeneration<TestBackend> {
    let folder = golden_dir(case).join("model");
    blip2::open_network(&folder, &device())
        .expect("a network")
        .1
}

/// The encoder's states with the padded places set to zero, as recorded, and the logits.
fn answer(
    network: &Blip2ForConditionalGeneration<TestBackend>,
    golden: &Golden,
) -> (Tensor<TestBackend, 3>, Tensor<TestBackend, 3>) {
    let answers = ids(golden, "input.decoder_input_ids");
    let answer = network
        .answer(
            golden.float("input.pixel_values"),
            &prompts(golden),
            &answers,
        )
        .expect("an answer");
    let mask = golden.int::<2>("input.attention_mask").float();
    let encoded = answer.encoder_last_hidden_state;
    let encoded = encoded.clone() * mask.cast(encoded.dtype()).unsqueeze_dim(2);
    (encoded, answer.logits)
}

#[test]
fn every_stage_with_t5_matches_the_reference() {
    for case in T5_CASES {
        let (network, golden) = (t5_network(case), Golden::open(case));
        check_image_stages(&network, &golden);
        let (encoded, logits) = answer(&network, &golden);
        golden.check("output.encoder_last_hidden_state", encoded);
        golden.check("output.logits", logits);
    }
}

#[test]
fn answers_of_t5_match_the_reference() {
    for case in T5_CASES {
        let (network, golden) = (t5_network(case), Golden::open(case));
        let recorded = golden.metadata("max_new_tokens").expect("a budget");
        let max_new_tokens = recorded.parse().expect("a number");
        for use_cache in [true, false] {
            let options = CaptionOptions {
                max_new_tokens,
                use_cache,
                ..Default::default()
            };
            let pixels = golden.float("input.pixel_values");
            let prompted = network
                .generate(pixels.clone(), &prompts(&golden), &options)
                .expect("texts");
            let expected = ids(&golden, "output.generated_ids");
            assert_eq!(prompted, expected, "{case}, cache {use_cache}");
            let captions = network.caption(pixels, None, &options).expect("captions");
            for (row, text) in ids(&golden, "output.caption_ids").into_iter().enumerate() {
                let words = text[1..].iter().copied().take_while(|id| *id != 1);
                let words: Vec<u32> = words.collect();
                assert_eq!(captions[row], words, "{case}, cache {use_cache}");
            }
        }
    }
}

#[test]
fn every_matrix_of_t5_is_noticed() {
    let golden = Golden::open("blip2-t5");
    let network = t5_network("blip2-t5");
    let names = hub_shapes(&network, &maps::blip2::blip2());
    let language = |name: &&String| name.starts_with("language_model.");
    let expected = golden.data("output.logits");
    for name in names.keys().filter(language) {
        let nudged = network.clone().map(&mut ScaleNamed {
            name: name.split('.').map(String::from).collect(),
            path: Vec::new(),
            factor: 1.02,
        });
        let actual = answer(&nudged, &golden).1.into_data();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            compare("logits", &expected, &actual, 1e-5, 1e-4);
        }));
        assert!(
            caught.is_err(),
            "{name} is 2 % off, and the comparison did not see it"
        );
    }
}

/// In f16 the answer is nearly that in f32; where feed-forward parts leave f16, it is a worse one, but not NaN.
#[test]
fn t5_in_f16_stays_near_and_finite() {
    if !TestBackend::supports_dtype(&device(), DType::F16) {
        println!("skipped: no f16 on this device");
        return;
    }
    let golden = Golden::open("blip2-t5");
    let mut network = t5_network("blip2-t5");
    let half = |network: &Blip2ForConditionalGeneration<TestBackend>| -> Vec<f32> {
        let network = cast_parameters(network.clone(), FloatDType::F16);
        answer(&network, &golden).1.into_data().iter().collect()
    };
    let expected: Vec<f32> = golden.data("output.logits").iter().collect();
    let largest = expected.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    for (own, wanted) in half(&network).iter().zip(&expected) {
        assert!((own - wanted).abs() < 0.01 * largest, "{own}, not {wanted}");
    }
    for part in ["encoder.block.0.layer.1", "decoder.block.0.layer.2"] {
        for matrix in ["wi_1", "wo"] {
            let name = format!("language_model.{part}.DenseReluDense.{matrix}.weight");
            network = network.map(&mut ScaleNamed {
                name: name.split('.').map(String::from).collect(),
                path: Vec::new(),
                factor: 2e4,
            });
        }
    }
    assert!(half(&network).iter().all(|value| value.is_finite()));
}

/// Scales the parameter of this name, `weight` also where the module calls it `gamma`, by `factor`.
struct ScaleNamed {
    name: Vec<String>,
    path: Vec<String>,
    factor: f64,
}

impl<B: Backend> ModuleMapper<B> for ScaleNamed {
    fn enter_module(&mut self, name: &str, container: &str) {
        // As in hub names, a variant is no part of the path; it is kept as nothing.
        let variant = container.starts_with("Enum:");
        self.path
            .push(if variant { String::new() } else { name.into() });
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let path = self.path.iter().filter(|part| !part.is_empty());
        let path: Vec<&str> = path
            .map(|part| if part == "gamma" { "weight" } else { part })
            .collect();
        if path != self.name {
            return param;
        }
        param.map(|tensor| tensor.mul_scalar(self.factor))
    }
}

#[test]
fn each_language_model_refuses_the_others_calls() {
    let (opt, golden) = (network("blip2-opt"), Golden::open("blip2-opt"));
    let pixels = golden.float("input.pixel_values");
    let error = opt
        .answer(pixels, &prompts(&golden), &[vec![0], vec![0]])
        .expect_err("OPT has no decoder of its own");
    assert!(matches!(
        error,
        Blip2Error::LanguageModel { found: "opt", .. }
    ));
    let (t5, golden) = (t5_network("blip2-t5"), Golden::open("blip2-t5"));
    let pixels: Tensor<TestBackend, 4> = golden.float("input.pixel_values");
    let error = t5.forward(pixels.clone(), &prompts(&golden));
    assert!(matches!(
        error,
        Err(Blip2Error::LanguageModel { found: "t5", .. })
    ));
    let bare = TokenBatch::unpadded(vec![vec![17, 1]; 2]);
    let error = t5.generate(pixels.clone(), &bare, &CaptionOptions::default());
    assert!(matches!(
        error,
        Err(Blip2Error::Placeholders { found: 0, .. })
    ));
    for (answers, expected) in [
        (vec![vec![0]], "1 prompts for 2 images"),
        (vec![vec![0, 4], vec![0]], "1 tokens, expected 2"),
        (vec![vec![0], vec![96]], "token 96"),
    ] {
        let error = t5.answer(pixels.clone(), &prompts(&golden), &answers);
        let error = error.expect_err("must be refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn greedy_texts_match_the_reference() {
    for case in CASES {
        let (network, golden) = (network(case), Golden::open(case));
        let max_new_tokens = golden
            .metadata("max_new_tokens")
            .expect("a budget")
            .parse()
            .expect("a number");
        for use_cache in [true, false] {
            let options = CaptionOptions {
                max_new_tokens,
                use_cache,
                ..Default::default()
            };
            let pixels = golden.float("input.pixel_values");
            let prompted = network
                .generate(pixels.clone(), &prompts(&golden), &options)
                .expect("texts");
            assert_eq!(
                prompted,
                ids(&golden, "output.generated_ids"),
                "{case}, cache {use_cache}"
            );
            let captions = network.caption(pixels, None, &options).expect("captions");
            let start = network.num_query_tokens() + 1;
            for (row, text) in ids(&golden, "output.caption_ids").into_iter().enumerate() {
                assert_eq!(captions[row], text[start..], "{case}, cache {use_cache}");
            }
        }
    }
}

#[test]
fn beams_match_the_reference() {
    let beams = Golden::open("blip2-beam");
    let checked: usize = CASES
        .iter()
        .map(|case| check_beams(&beams, case, &network(case), 2))
        .sum();
    assert_eq!(checked, 25, "every recorded search was compared");
    let beams = Golden::open("blip2-t5-beam");
    let checked: usize = T5_CASES
        .iter()
        .map(|case| check_beams(&beams, case, &t5_network(case), 1))
        .sum();
    assert_eq!(checked, 20, "every recorded search was compared");
}

/// Every recorded search of a case, with and without a cache; how many there were.
fn check_beams(
    beams: &Golden,
    case: &str,
    network: &Blip2ForConditionalGeneration<TestBackend>,
    start_token: u32,
) -> usize {
    let golden = Golden::open(case);
    let pixels: Tensor<TestBackend, 4> = golden.float("input.pixel_values");
    let start = [
        vec![network.image_placeholder(); network.num_query_tokens()],
        vec![start_token],
    ]
    .concat();
    let bare = TokenBatch::unpadded(vec![start; 2]);
    let mut checked = 0;
    for number in 0..64 {
        let key = format!("{case}.{number}");
        let Some(recorded) = beams.metadata(&key) else {
            continue;
        };
        let recorded: serde_json::Value = serde_json::from_str(&recorded).expect("options");
        let number = |name: &str| recorded[name].as_u64().expect("a number") as usize;
        let early_stopping = match &recorded["early_stopping"] {
            serde_json::Value::Bool(true) => EarlyStopping::Full,
            serde_json::Value::String(_) => EarlyStopping::Never,
            _ => EarlyStopping::Heuristic,
        };
        for use_cache in [true, false] {
            let options = CaptionOptions {
                max_new_tokens: number("max_new_tokens"),
                num_beams: number("num_beams"),
                length_penalty: recorded["length_penalty"].as_f64().unwrap_or(1.0),
                early_stopping,
                end_tokens: Some(vec![number("eos_token_id") as u32]),
                use_cache,
            };
            for (name, tokens) in [("generated_ids", &prompts(&golden)), ("caption_ids", &bare)] {
                let texts = network
                    .generate(pixels.clone(), tokens, &options)
                    .expect("texts");
                assert_eq!(
                    texts,
                    ids(beams, &format!("output.{key}.{name}")),
                    "{key} {name} {options:?}"
                );
            }
        }
        checked += 1;
    }
    checked
}

/// Scales the first matrix by 1.01.
struct ScaleOne(bool);

impl<B: Backend> ModuleMapper<B> for ScaleOne {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let scale = D == 2 && std::mem::take(&mut self.0);
        param.map(|tensor| {
            if scale {
                tensor.mul_scalar(1.01)
            } else {
                tensor
            }
        })
    }
}

#[test]
fn a_perturbed_weight_is_noticed() {
    let golden = Golden::open("blip2-opt");
    let network = network("blip2-opt").map(&mut ScaleOne(true));
    let actual = logits(&network, &golden).into_data();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        compare("logits", &golden.data("output.logits"), &actual, 1e-5, 1e-4);
    }));
    assert!(
        caught.is_err(),
        "one matrix is 1 % off, and the comparison did not see it"
    );
}

#[test]
fn unusable_inputs_are_refused() {
    let (network, golden) = (network("blip2-opt"), Golden::open("blip2-opt"));
    let pixels: Tensor<TestBackend, 4> = golden.float("input.pixel_values");
    let refuse = |tokens: &TokenBatch| {
        network
            .forward(pixels.clone(), tokens)
            .expect_err("must be refused")
    };

    let bare = TokenBatch::unpadded(vec![vec![2, 7, 19]; 2]);
    let error = refuse(&bare);
    assert!(
        matches!(
            error,
            Blip2Error::Placeholders {
                row: 0,
                found: 0,
                expected: 8,
                ..
            }
        ),
        "{error}"
    );
    let mut foreign = prompts(&golden);
    foreign.ids[1][14] = 4000;
    assert!(matches!(
        refuse(&foreign),
        Blip2Error::Token {
            row: 1,
            token: 4000,
            vocabulary: 112
        }
    ));
    let mut ragged = prompts(&golden);
    ragged.ids[1].pop();
    assert!(matches!(refuse(&ragged), Blip2Error::Rows { row: 1, .. }));
    let mut single = prompts(&golden);
    single.ids.pop();
    assert!(matches!(
        refuse(&single),
        Blip2Error::Batch {
            images: 2,
            prompts: 1
        }
    ));

    let generate =
        |options: &CaptionOptions| network.generate(pixels.clone(), &prompts(&golden), options);
    let long = CaptionOptions {
        max_new_tokens: 400,
        ..Default::default()
    };
    assert!(matches!(
        generate(&long),
        Err(Blip2Error::TooLong { limit: 48, .. })
    ));
    let none = CaptionOptions {
        num_beams: 0,
        ..Default::default()
    };
    assert!(matches!(
        generate(&none),
        Err(Blip2Error::Option {
            name: "num_beams",
            ..
        })
    ));
    let small = Tensor::<TestBackend, 4>::zeros([2, 3, 28, 28], &device());
    let error = network
        .caption(small, None, &CaptionOptions::default())
        .expect_err("must be refused");
    assert!(
        matches!(error, Blip2Error::Pixels { side: 56, .. }),
        "{error}"
    );
}

#[test]
fn an_impossible_configuration_names_its_key() {
    let path = golden_dir("blip2-opt").join("model/config.json");
    let text = std::fs::read_to_string(path).expect("a configuration");
    let mut config: Blip2Config = serde_json::from_str(&text).expect("a BLIP-2 configuration");
    config.qformer_config.num_attention_heads = 7;
    let error = config
        .init::<TestBackend>(&device())
        .expect_err("24 does not split into 7 heads");
    assert_eq!(error.key, "qformer_config.num_attention_heads");
    let renamed = text.replace("image_token_index", "image_token_id");
    let config: Blip2Config = serde_json::from_str(&renamed).expect("the newer name");
    assert_eq!(config.image_token_index, Some(105));
    let bad = text.replace("\"relu\"", "\"none\"");
    assert!(
        serde_json::from_str::<Blip2Config>(&bad).is_err(),
        "an unknown activation is an error"
    );
}

/// A copy of a golden checkpoint's folder with an edited configuration.
fn edited(case: &str, edit: impl Fn(&mut serde_json::Value)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let model = golden_dir(case).join("model");
    for file in ["model.safetensors", "generation_config.json"] {
        if !model.join(file).exists() {
            continue;
        }
        std::fs::copy(model.join(file), folder.path().join(file)).expect("a copy");
    }
    let text = std::fs::read_to_string(model.join("config.json")).expect("a configuration");
    let mut config = serde_json::from_str(&text).expect("JSON");
    edit(&mut config);
    std::fs::write(folder.path().join("config.json"), config.to_string()).expect("a configuration");
    folder
}

#[test]
fn the_file_decides_whether_the_head_is_tied() {
    for (case, tied) in [("blip2-opt", false), ("blip2-post-norm", true)] {
        let folder = edited(case, |config| {
            config["text_config"]["tie_word_embeddings"] = tied.into();
        });
        let (config, network) =
            blip2::open_network::<TestBackend>(folder.path(), &device()).expect("a network");
        assert_eq!(config.text_config.ties_head(), !tied, "{case}");
        let golden = Golden::open(case);
        golden.check("output.logits", logits(&network, &golden));
    }
}

#[test]
fn t5_without_a_start_token_or_with_an_unknown_activation_is_refused() {
    let folder = edited("blip2-t5", |config| {
        let text = config["text_config"].as_object_mut().expect("a section");
        text.remove("decoder_start_token_id");
        text.remove("bos_token_id");
    });
    let (_, network) =
        blip2::open_network::<TestBackend>(folder.path(), &device()).expect("a network");
    let golden = Golden::open("blip2-t5");
    let pixels = golden.float("input.pixel_values");
    let error = network.generate(pixels, &prompts(&golden), &CaptionOptions::default());
    assert_eq!(error.expect_err("no start"), Blip2Error::NoDecoderStart);

    let folder = edited("blip2-t5-relu", |config| {
        config["text_config"]["feed_forward_proj"] = "gated-step".into()
    });
    let error = blip2::open_network::<TestBackend>(folder.path(), &device()).expect_err("a step");
    let error = error.to_string();
    assert!(
        error.contains("feed_forward_proj") && error.contains("gated-step"),
        "{error}"
    );
    let folder = edited("blip2-t5", |config| {
        config["text_config"]["d_kv"] = "wide".into()
    });
    let error = blip2::open_network::<TestBackend>(folder.path(), &device()).expect_err("a word");
    assert!(error.to_string().contains("text_config.d_kv"), "{error}");
}

#[test]
fn word_embeddings_under_one_of_the_three_names_are_found() {
    let (case, golden) = ("blip2-t5-tied", Golden::open("blip2-t5-tied"));
    for name in ["encoder", "decoder"] {
        let folder = edited(case, |_| {});
        let path = folder.path().join("model.safetensors");
        let bytes = std::fs::read(&path).expect("weights");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
        let renamed = tensors.tensors().into_iter().map(|(key, tensor)| {
            let to = format!("language_model.{name}.embed_tokens.weight");
            (key.replace("language_model.shared.weight", &to), tensor)
        });
        let written = safetensors::serialize(renamed.collect::<Vec<_>>(), None).expect("a file");
        std::fs::write(&path, written).expect("a file");
        let (_, network) =
            blip2::open_network::<TestBackend>(folder.path(), &device()).expect("a network");
        golden.check("output.logits", answer(&network, &golden).1);
    }
}

#[test]
fn a_folder_that_is_no_blip2_says_so() {
    let folder = edited("blip2-opt", |config| config["model_type"] = "clip".into());
    let error = blip2::open_network::<TestBackend>(folder.path(), &device()).expect_err("a CLIP");
    assert!(error.to_string().contains("blip-2"), "{error}");
    let folder = edited("blip2-opt", |config| {
        config["text_config"]["model_type"] = "gpt2".into()
    });
    let error = blip2::open_network::<TestBackend>(folder.path(), &device()).expect_err("a GPT-2");
    let error = error.to_string();
    assert!(
        error.contains("text_config.model_type") && error.contains("config.json"),
        "{error}"
    );
    let folder = edited("blip2-opt", |config| {
        config["text_config"]["ffn_dim"] = 81.into()
    });
    let error = blip2::open_network::<TestBackend>(folder.path(), &device()).expect_err("a misfit");
    assert!(error.to_string().contains("fc1"), "{error}");
}

/// A T5 tokeniser of `count` pieces in the published form: pieces with scores, `</s>` behind every text.
fn t5_tokenizer(folder: &std::path::Path, count: usize) -> TextTokenizer {
    let special = |id: usize, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let letters = (b'a'..=b'z').map(|letter| char::from(letter).to_string());
    let mut pieces: Vec<String> = ["<pad>", "</s>", "<unk>", "▁"].map(String::from).to_vec();
    pieces.extend(letters);
    let words = (pieces.len()..count).map(|number| format!("▁word{number}"));
    pieces.extend(words.collect::<Vec<_>>());
    let vocab: Vec<_> = pieces.iter().map(|piece| json!([piece, -2.0])).collect();
    let end = json!({"SpecialToken": {"id": "</s>", "type_id": 0}});
    let definition = json!({
        "version": "1.0",
        "added_tokens": [special(0, "<pad>"), special(1, "</s>"), special(2, "<unk>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, end],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": false},
    });
    std::fs::write(folder.join("tokenizer.json"), definition.to_string()).expect("a file");
    let roles = json!({"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"});
    std::fs::write(folder.join("tokenizer_config.json"), roles.to_string()).expect("a file");
    TextTokenizer::open(folder).expect("a tokeniser")
}

#[test]
fn a_captioner_with_t5_is_opened_saved_and_opened_again() {
    let golden = Golden::open("blip2-t5-relu");
    let folder = edited("blip2-t5-relu", |_| {});
    let tokenizer = t5_tokenizer(folder.path(), 96);
    let prompt = tokenizer.encode("word40 a cat");
    assert_eq!((prompt[0], prompt.last()), (40, Some(&1)));
    let first = blip2::open::<TestBackend>(folder.path(), &device()).expect("a captioner");
    let again = tempfile::tempdir().expect("a folder");
    blip2::save(
        again.path(),
        &first.config,
        &first.network,
        &first.tokenizer,
        &first.preprocessing,
        model_import::SaveDtype::F32,
    )
    .expect("a folder");
    let second = blip2::open::<TestBackend>(again.path(), &device()).expect("a captioner");
    assert_eq!(second.config, first.config);
    assert_eq!(second.preprocessing, first.preprocessing);
    golden.check("output.logits", answer(&second.network, &golden).1);
    let pixels: Tensor<TestBackend, 4> = golden.float("input.pixel_values");
    let caption = |captioner: &blip2::PretrainedBlip2<TestBackend>| {
        let options = CaptionOptions::default();
        let rows = captioner
            .network
            .caption(pixels.clone(), Some(&prompt), &options)
            .expect("captions");
        let decode = |ids: &Vec<u32>| captioner.tokenizer.decode(ids).trim().to_string();
        rows.iter().map(decode).collect::<Vec<_>>()
    };
    assert_eq!(caption(&first), caption(&second));
    assert!(caption(&first).iter().all(|text| !text.is_empty()));
}
