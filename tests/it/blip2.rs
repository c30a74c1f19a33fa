//! BLIP-2 against transformers, stage by stage; decoding with and without a cache; inputs that must be refused.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use model_import::{Checkpoint, load_into, maps};
use ragar::networks::blip2::{
    Blip2Config, Blip2Error, Blip2ForConditionalGeneration, CaptionOptions, EarlyStopping,
    TokenBatch,
};

use ragar::pretrained::blip2;

use crate::support::{Golden, TestBackend, compare, device, golden_dir};

const CASES: [&str; 2] = ["blip2-opt", "blip2-post-norm"];

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
        let image = network
            .image_features(golden.float("input.pixel_values"))
            .expect("image features");
        golden.check(
            "output.vision_last_hidden_state",
            image.vision_last_hidden_state,
        );
        golden.check("output.qformer_output", image.qformer_output);
        golden.check("output.language_projection", image.language_projection);
        golden.check("output.logits", logits(&network, &golden));
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
    let mut checked = 0;
    for case in CASES {
        let (network, golden) = (network(case), Golden::open(case));
        let pixels: Tensor<TestBackend, 4> = golden.float("input.pixel_values");
        let start = [
            vec![network.image_placeholder(); network.num_query_tokens()],
            vec![2],
        ]
        .concat();
        let bare = TokenBatch::unpadded(vec![start; 2]);
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
                for (name, tokens) in [("generated_ids", &prompts(&golden)), ("caption_ids", &bare)]
                {
                    let texts = network
                        .generate(pixels.clone(), tokens, &options)
                        .expect("texts");
                    assert_eq!(
                        texts,
                        ids(&beams, &format!("output.{key}.{name}")),
                        "{key} {name} {options:?}"
                    );
                }
            }
            checked += 1;
        }
    }
    assert_eq!(checked, 25, "every recorded search was compared");
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
        assert_eq!(config.text_config.tie_word_embeddings, !tied, "{case}");
        let golden = Golden::open(case);
        golden.check("output.logits", logits(&network, &golden));
    }
}

#[test]
fn a_folder_that_is_no_blip2_says_so() {
    let folder = edited("blip2-opt", |config| config["model_type"] = "clip".into());
    let error = blip2::open_network::<TestBackend>(folder.path(), &device()).expect_err("a CLIP");
    assert!(error.to_string().contains("blip-2"), "{error}");
    let folder = edited("blip2-opt", |config| {
        config["text_config"]["model_type"] = "t5".into()
    });
    let error = blip2::open_network::<TestBackend>(folder.path(), &device()).expect_err("a T5");
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
