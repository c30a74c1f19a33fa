//! Llama against the reference implementation, and its own laws.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};
use model_import::{Checkpoint, SaveDtype};
use ragar::networks::llama::{ImageTokens, LlamaAdapter, LlamaConfig, LlamaForCausalLm};
use ragar::nn::lora::LoraConfig;
use ragar::nn::rotary::{Rotary, RotaryScaling};
use ragar::pretrained::llama as folder;

use crate::support::{Golden, TestBackend, compare, device, devices, differs, golden_dir};

type Model = LlamaForCausalLm<TestBackend>;

fn load(case: &str) -> Model {
    folder::load(&golden_dir(case).join("model"), &device())
        .unwrap()
        .model
}

fn load_adapted(case: &str) -> Model {
    let base = load(case);
    let (_, adapter) = folder::load_adapter(&golden_dir(case).join("adapter"), &base).unwrap();
    base.with_adapter(&adapter)
}

fn hidden(model: &Model, ids: Tensor<TestBackend, 2, Int>) -> Tensor<TestBackend, 3> {
    model.forward_hidden(model.embed(ids), None)
}

fn rows(data: &TensorData) -> Vec<Vec<u32>> {
    let ids: Vec<u32> = data.iter::<i64>().map(|id| id as u32).collect();
    ids.chunks(data.shape[1]).map(<[u32]>::to_vec).collect()
}

fn check_case(golden: &Golden, model: &Model) {
    let states = hidden(model, golden.int("input.input_ids"));
    golden.check("output.last_hidden_state", states.clone());
    golden.check("output.logits", model.logits(states));
    let prompts = rows(&golden.data("input.input_ids"));
    let expected = rows(&golden.data("output.generated_ids"));
    let answers = model.generate(&prompts, 12, &[2]);
    for ((prompt, answer), expected) in prompts.iter().zip(&answers).zip(&expected) {
        assert_eq!([prompt.as_slice(), answer].concat(), *expected);
    }
}

#[test]
fn multi_head_attention_matches_the_reference() {
    check_case(&Golden::open("llama-mha"), &load("llama-mha"));
}

#[test]
fn grouped_queries_with_an_adapter_match_the_reference() {
    let golden = Golden::open("llama-lora");
    let model = load_adapted("llama-lora");
    check_case(&golden, &model);
    let base = model.without_adapter();
    golden.check(
        "output.base_logits",
        base.logits(hidden(&base, golden.int("input.input_ids"))),
    );
}

#[test]
fn scaled_rotations_and_padding_on_the_left_match_the_reference() {
    for (case, adapted) in [("llama-llama3", true), ("llama-linear", false)] {
        let golden = Golden::open(case);
        let model = if adapted {
            load_adapted(case)
        } else {
            load(case)
        };
        check_padded(&golden, &model, "output.logits");
        if adapted {
            check_padded(
                &golden,
                &model.clone().without_adapter(),
                "output.base_logits",
            );
        }
        let (states, _) = padded_states(&golden, &model);
        golden.check("output.last_hidden_state", states);

        // Prompts without their padding have the reference's answers, whatever stands beside them.
        let real = |row: &Vec<u32>, mask: &Vec<u32>| {
            let pairs = row.iter().zip(mask).filter(|(_, mask)| **mask == 1);
            pairs.map(|(id, _)| *id).collect::<Vec<u32>>()
        };
        let padded = rows(&golden.data("input.input_ids"));
        let masks = rows(&golden.data("input.attention_mask"));
        let prompts: Vec<Vec<u32>> = padded.iter().zip(&masks).map(|(r, m)| real(r, m)).collect();
        let answers = model.generate(&prompts, 8, &[2]);
        for (answer, expected) in answers
            .iter()
            .zip(rows(&golden.data("output.generated_ids")))
        {
            assert_eq!(*answer, expected[padded[0].len()..], "{case}");
        }
    }
}

/// States of the padded rows, set to zero where they are padding, and the mask.
fn padded_states(
    golden: &Golden,
    model: &Model,
) -> (Tensor<TestBackend, 3>, Tensor<TestBackend, 3>) {
    let mask = golden.int::<2>("input.attention_mask");
    let embedded = model.embed(golden.int("input.input_ids"));
    let states = model.forward_hidden(embedded, Some(mask.clone()));
    let mask = mask.float().unsqueeze_dim::<3>(2);
    (states * mask.clone(), mask)
}

fn check_padded(golden: &Golden, model: &Model, name: &str) {
    let (states, mask) = padded_states(golden, model);
    golden.check(name, model.logits(states) * mask);
}

#[test]
fn a_changed_rotation_shows() {
    let golden = Golden::open("llama-llama3");
    let folder = golden_dir("llama-llama3").join("model");
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let weights = "model.safetensors";
    std::fs::copy(folder.join(weights), dir.path().join(weights)).unwrap();
    for (from, to) in [
        ("\"factor\": 4.0", "\"factor\": 4.2"),
        ("\"low_freq_factor\": 1.0", "\"low_freq_factor\": 1.2"),
        ("\"high_freq_factor\": 2.0", "\"high_freq_factor\": 2.2"),
        (
            "\"original_max_position_embeddings\": 16",
            "\"original_max_position_embeddings\": 15",
        ),
        ("\"rope_theta\": 100.0", "\"rope_theta\": 101.0"),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(dir.path().join("config.json"), text.replace(from, to)).unwrap();
        let model = folder::load(dir.path(), &device()).unwrap().model;
        let (states, mask) = padded_states(&golden, &model);
        let logits = (model.logits(states) * mask).into_data();
        let expected = golden.data("output.base_logits");
        assert!(differs(&expected, &logits), "{to} was not noticed");
    }
}

#[test]
fn a_changed_weight_shows() {
    let golden = Golden::open("llama-mha");
    let mut model = load("llama-mha");
    let weight = &mut model.model.layers[1].self_attn.k_proj.weight;
    let [outputs, inputs] = weight.val().dims();
    let mut change = vec![0f32; outputs * inputs];
    change[5] = 0.05;
    let change = Tensor::from_data(TensorData::new(change, [outputs, inputs]), &device());
    *weight = Param::from_tensor(weight.val() + change);
    let logits = model.logits(hidden(&model, golden.int("input.input_ids")));
    let difference = (logits - golden.float("output.logits")).abs().max();
    let difference: f32 = difference.into_data().iter::<f32>().next().unwrap();
    assert!(difference > 1e-3, "only {difference}");
}

#[test]
fn cached_and_uncached_states_agree() {
    let golden = Golden::open("llama-lora");
    let model = load_adapted("llama-lora");
    let ids = golden.int::<2>("input.input_ids");
    let whole = hidden(&model, ids.clone());
    let mut cache = model.new_cache();
    let mut parts = Vec::new();
    for (start, length) in [(0, 4), (4, 1), (5, 3), (8, 2)] {
        let part = model.embed(ids.clone().narrow(1, start, length));
        parts.push(model.forward_cached(part, None, &mut cache));
    }
    assert_eq!(cache.length(), 10);
    let parts = Tensor::cat(parts, 1);
    compare("states", &whole.into_data(), &parts.into_data(), 1e-5, 1e-5);
}

#[test]
fn padding_on_the_left_changes_nothing() {
    let model = load("llama-mha");
    let golden = Golden::open("llama-mha");
    let prompts = rows(&golden.data("input.input_ids"));
    let short = prompts[0][..5].to_vec();
    let alone = model.generate(std::slice::from_ref(&short), 8, &[]);
    let together = model.generate(&[prompts[1].clone(), short, Vec::new()], 8, &[]);
    assert_eq!(together[1], alone[0]);
    assert_eq!(together[0].len(), 8);
    assert!(
        together[2].is_empty(),
        "a prompt without tokens says nothing"
    );
    // The padded row's own states are those of the row alone.
    let whole: Vec<i64> = prompts[0].iter().map(|id| i64::from(*id)).collect();
    let row = |ids: &[i64]| {
        Tensor::<TestBackend, 2, Int>::from_data(
            TensorData::new(ids.to_vec(), [1, ids.len()]),
            &device(),
        )
    };
    let padded = [&[0, 0, 0], whole.as_slice()].concat();
    let mask: Vec<i64> = (0..padded.len()).map(|i| i64::from(i >= 3)).collect();
    let states = model.forward_hidden(model.embed(row(&padded)), Some(row(&mask)));
    compare(
        "states",
        &hidden(&model, row(&whole)).into_data(),
        &states.narrow(1, 3, whole.len()).into_data(),
        1e-5,
        1e-4,
    );
}

#[test]
fn an_end_token_ends_a_row() {
    let model = load("llama-mha");
    let prompts = rows(&Golden::open("llama-mha").data("input.input_ids"));
    let free = model.generate(&prompts, 8, &[]);
    let end = free[0][3];
    let stopped = model.generate(&prompts, 8, &[end]);
    assert_eq!(stopped[0], free[0][..3]);
}

#[test]
fn an_adapter_saved_and_loaded_is_the_same() {
    let model = load_adapted("llama-lora");
    let dir = tempfile::tempdir().unwrap();
    let config = LoraConfig {
        r: 4,
        alpha: 8.0,
        ..LoraConfig::default()
    };
    let adapter = model.adapter().unwrap();
    folder::save_adapter(dir.path(), &config, &adapter, "../model").unwrap();
    let names = |dir: &std::path::Path| {
        let file = Checkpoint::open(&dir.join("adapter_model.safetensors")).unwrap();
        file.names().map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(
        names(dir.path()),
        names(&golden_dir("llama-lora").join("adapter"))
    );
    let base = model.without_adapter();
    let (found, adapter) = folder::load_adapter(dir.path(), &base).unwrap();
    assert_eq!(found, config);
    let golden = Golden::open("llama-lora");
    let again = base.with_adapter(&adapter);
    golden.check(
        "output.logits",
        again.logits(hidden(&again, golden.int("input.input_ids"))),
    );
}

/// An adapter whose every number follows from a seed or a rule.
fn adapter_of_ours(base: &Model) -> (LoraConfig, LlamaAdapter<TestBackend>) {
    let config = LoraConfig {
        r: 3,
        alpha: 5.0,
        target_modules: vec!["q_proj".into(), "o_proj".into(), "down_proj".into()],
    };
    let mut adapter = LlamaAdapter::new(base, &config, 11).unwrap();
    for layer in &mut adapter.layers {
        let (attention, mlp) = (&mut layer.self_attn, &mut layer.mlp);
        for update in [
            &mut attention.q_proj,
            &mut attention.o_proj,
            &mut mlp.down_proj,
        ] {
            // What training would fill starts as zeros.
            let weight = &mut update.as_mut().unwrap().lora_B.weight;
            let shape = weight.val().dims();
            let values: Vec<f32> = (0..shape[0] * shape[1])
                .map(|i| ((i * 37 + 11) % 64) as f32 / 64.0 - 0.5)
                .collect();
            let values = Tensor::from_data(TensorData::new(values, shape), &device());
            *weight = Param::from_tensor(values);
        }
    }
    (config, adapter)
}

/// `RAGAR_WRITE_GOLDEN=1` writes the folder anew; `tests/golden/llama_rope.py` then records what PEFT makes of it.
#[test]
fn a_folder_saved_here_computes_the_same_in_peft() {
    let base = load("llama-mha");
    let (config, adapter) = adapter_of_ours(&base);
    let dir = tempfile::tempdir().unwrap();
    folder::save_adapter(dir.path(), &config, &adapter, "llama-mha").unwrap();
    let committed = golden_dir("llama-saved-adapter").join("adapter");
    let files = ["adapter_config.json", "adapter_model.safetensors"];
    if std::env::var_os("RAGAR_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(&committed).unwrap();
        for file in files {
            std::fs::copy(dir.path().join(file), committed.join(file)).unwrap();
        }
    }
    for file in files {
        let written = std::fs::read(dir.path().join(file)).unwrap();
        assert!(
            written == std::fs::read(committed.join(file)).unwrap(),
            "{file} is not what PEFT was shown"
        );
    }
    let golden = Golden::open("llama-saved-adapter");
    let adapted = base.with_adapter(&adapter);
    let logits = adapted.logits(hidden(&adapted, golden.int("input.input_ids")));
    golden.check("output.logits", logits);
}

#[test]
fn adapters_beyond_plain_lora_are_refused_by_name() {
    let base = load("llama-lora");
    let source = golden_dir("llama-lora").join("adapter");
    let dir = tempfile::tempdir().unwrap();
    let weights = "adapter_model.safetensors";
    std::fs::copy(source.join(weights), dir.path().join(weights)).unwrap();
    let text = std::fs::read_to_string(source.join("adapter_config.json")).unwrap();
    let refused = |from: &str, to: &str| {
        let changed = text.replace(from, to);
        assert_ne!(changed, text, "{from}");
        std::fs::write(dir.path().join("adapter_config.json"), changed).unwrap();
        folder::load_adapter(dir.path(), &base)
            .unwrap_err()
            .to_string()
    };
    let error = refused("\"use_dora\": false", "\"use_dora\": true");
    assert!(error.contains("use_dora"), "{error}");
    let error = refused("\"q_proj\"", "\"query\"");
    assert!(
        error.contains("`query`") && error.contains("q_proj"),
        "{error}"
    );
    let error = refused("[\n    \"q_proj\",\n    \"v_proj\"\n  ]", "7");
    assert!(
        error.contains("target_modules") && error.contains("list"),
        "{error}"
    );
    // Where the configuration gives no list, the file's own projections are taken.
    let list = "[\n    \"q_proj\",\n    \"v_proj\"\n  ]";
    let changed = text.replace(list, "\"all-linear\"");
    std::fs::write(dir.path().join("adapter_config.json"), changed).unwrap();
    let (config, _) = folder::load_adapter(dir.path(), &base).unwrap();
    assert_eq!(config.target_modules, ["q_proj", "v_proj"]);
    let changed = text.replace("\"q_proj\"", "\"self_attn.q_proj\"");
    std::fs::write(dir.path().join("adapter_config.json"), changed).unwrap();
    let (config, _) = folder::load_adapter(dir.path(), &base).unwrap();
    assert_eq!(config.target_modules, ["q_proj", "v_proj"]);
    // The older name of the file; what it holds decides how it is read.
    let renamed = dir.path().join("adapter_model.bin");
    std::fs::rename(dir.path().join(weights), &renamed).unwrap();
    folder::load_adapter(dir.path(), &base).unwrap();
    std::fs::rename(renamed, dir.path().join(weights)).unwrap();
    // A projection that the configuration does not name must not be dropped in silence.
    let error = refused("\"q_proj\",", "");
    assert!(error.contains("q_proj.lora_A.weight"), "{error}");
}

#[test]
fn a_fresh_adapter_changes_nothing_and_trains_alone() {
    let golden = Golden::open("llama-lora");
    let device = devices().train;
    let base = folder::load::<TestBackend>(&golden_dir("llama-lora").join("model"), &device)
        .unwrap()
        .model;
    let model = base.add_lora(&LoraConfig::default(), 7).unwrap();
    let ids = Tensor::from_data(golden.data("input.input_ids"), &device);
    let logits = model.logits(model.forward_hidden(model.embed(ids), None));
    golden.check("output.base_logits", logits.clone().inner());
    let gradients = logits.square().mean().backward();
    let layer = &model.model.layers[0];
    let update = layer.self_attn.q_proj.lora.as_ref().unwrap();
    let gradient = update.lora_B.weight.val().grad(&gradients).unwrap();
    let largest: f32 = gradient.abs().max().into_data().iter().next().unwrap();
    assert!(largest > 0.0, "the adapter trains");
    assert!(
        layer
            .self_attn
            .q_proj
            .weight
            .val()
            .grad(&gradients)
            .is_none()
    );
    assert!(
        model
            .model
            .embed_tokens
            .weight
            .val()
            .grad(&gradients)
            .is_none(),
        "the base table stays frozen"
    );
    assert!(layer.self_attn.k_proj.lora.is_none());
    let again = LlamaAdapter::new(&model, &LoraConfig::default(), 7).unwrap();
    let weight = |update: &Option<ragar::nn::lora::LoraUpdate<TestBackend>>| {
        update.as_ref().unwrap().lora_A.weight.val().into_data()
    };
    assert_eq!(
        weight(&again.layers[0].self_attn.q_proj),
        update.lora_A.weight.val().into_data(),
        "the same seed gives the same adapter"
    );
}

#[test]
fn image_tokens_live_behind_the_vocabulary_and_train_alone() {
    let device = devices().train;
    let llama = folder::load::<TestBackend>(&golden_dir("llama-mha").join("model"), &device)
        .unwrap()
        .model
        .no_grad();
    let images = ImageTokens::new(&llama, 3, 1);
    assert_eq!(images.ids(llama.vocabulary_size()), [150, 151, 152]);
    let ids = TensorData::new(vec![4i64, 151, 9, 152], [1, 4]);
    let ids = Tensor::<TestBackend, 2, Int>::from_data(ids, &device);
    let embedded = images.embed(&llama, ids);
    let row = |index| embedded.clone().narrow(1, index, 1).inner().into_data();
    let table = llama.model.embed_tokens.weight.val().inner();
    let image = images.weight.val().inner();
    let from = |table: &Tensor<TestBackend, 2>, index| {
        table
            .clone()
            .narrow(0, index, 1)
            .unsqueeze::<3>()
            .into_data()
    };
    assert_eq!(row(0), from(&table, 4));
    assert_eq!(row(1), from(&image, 1));
    assert_eq!(row(2), from(&table, 9));
    assert_eq!(row(3), from(&image, 2));
    let gradients = embedded.sum().backward();
    let gradient = images.weight.val().grad(&gradients).unwrap();
    let sums: Vec<f32> = gradient.sum_dim(1).into_data().iter().collect();
    assert_eq!(sums, [0.0, 48.0, 48.0]);
    assert!(
        llama
            .model
            .embed_tokens
            .weight
            .val()
            .grad(&gradients)
            .is_none()
    );
}

#[test]
fn a_saved_folder_loads_again() {
    let source = golden_dir("llama-mha").join("model");
    let loaded = folder::load::<TestBackend>(&source, &device()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = ragar::text::TextTokenizer::train_byte_pair(
        ["a pear"],
        300,
        &ragar::text::BytePairKind::llama(&[]),
    )
    .unwrap();
    folder::save(
        dir.path(),
        &loaded.config,
        &loaded.model,
        &tokenizer,
        SaveDtype::F32,
    )
    .unwrap();
    let again = folder::load::<TestBackend>(dir.path(), &device()).unwrap();
    assert_eq!(again.config, loaded.config);
    check_case(&Golden::open("llama-mha"), &again.model);
}

#[test]
fn tied_weights_serve_as_output_layer() {
    let text = std::fs::read(golden_dir("llama-mha").join("model/config.json")).unwrap();
    let mut config: LlamaConfig = serde_json::from_slice(&text).unwrap();
    config.tie_word_embeddings = true;
    let model: Model = config.init(&device()).unwrap().initialise(0.02, 3);
    assert!(model.lm_head.is_none());
    let ids = Golden::open("llama-mha").int("input.input_ids");
    let states = hidden(&model, ids);
    let table = model.model.embed_tokens.weight.val();
    let expected = states.clone().matmul(table.transpose().unsqueeze());
    compare(
        "logits",
        &expected.into_data(),
        &model.logits(states).into_data(),
        1e-6,
        1e-5,
    );
}

#[test]
fn configurations_that_cannot_be_built_are_named() {
    let text = std::fs::read_to_string(golden_dir("llama-lora").join("model/config.json")).unwrap();
    let refused = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        let config: LlamaConfig = serde_json::from_str(&text.replace(from, to)).unwrap();
        let built: Result<Model, _> = config.init(&device());
        built.err().unwrap().to_string()
    };
    for (from, to, word) in [
        ("\"silu\"", "\"gelu\"", "hidden_act"),
        ("\"head_dim\": 12", "\"head_dim\": 11", "head_dim"),
        (
            "\"num_key_value_heads\": 2",
            "\"num_key_value_heads\": 3",
            "num_key_value_heads",
        ),
        ("\"default\"", "\"yarn\"", "yarn"),
        ("\"default\"", "\"llama3\"", "factor"),
        ("\"vocab_size\": 150", "\"vocab_size\": 0", "vocab_size"),
    ] {
        let error = refused(from, to);
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn rotary_settings_are_read_in_every_form() {
    let text = std::fs::read_to_string(golden_dir("llama-mha").join("model/config.json")).unwrap();
    let read = |settings: &str| -> LlamaConfig {
        let changed = text.replace("\"rope_scaling\": null", settings);
        assert_ne!(changed, text);
        serde_json::from_str(&changed).unwrap()
    };
    let linear = RotaryScaling::Linear { factor: 2.0 };
    for settings in [
        r#""rope_scaling": {"type": "linear", "factor": 2.0}"#,
        r#""rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 2.0}"#,
        r#""rope_parameters": {"rope_type": "linear", "factor": 2.0}"#,
    ] {
        assert_eq!(read(settings).rope_scaling(), Ok(linear), "{settings}");
    }
    for settings in [
        r#""rope_theta": 500.0"#,
        r#""rope_parameters": {"rope_theta": 500.0}"#,
        r#""rope_scaling": {"rope_type": "default", "rope_theta": 500.0}"#,
    ] {
        let config = read(settings);
        assert_eq!(config.rope_theta(), 500.0, "{settings}");
        assert_eq!(config.rope_scaling(), Ok(RotaryScaling::None), "{settings}");
    }
    // Without its own number, the context that was trained on is the network's.
    let settings = r#""rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0}"#;
    assert!(matches!(
        read(settings).rope_scaling(),
        Ok(RotaryScaling::Llama3 {
            original_context: 256,
            ..
        })
    ));
    for kind in ["dynamic", "yarn", "longrope"] {
        let settings = format!(r#""rope_scaling": {{"type": "{kind}", "factor": 2.0}}"#);
        let error = read(&settings).rope_scaling().unwrap_err().to_string();
        assert!(error.contains(kind) && error.contains("llama3"), "{error}");
    }
}

#[test]
fn the_generation_file_has_the_last_word_on_ends() {
    let source = golden_dir("llama-mha").join("model");
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(source.join(file), dir.path().join(file)).unwrap();
    }
    let ends = || {
        folder::load::<TestBackend>(dir.path(), &device())
            .unwrap()
            .config
            .eos_token_id
    };
    assert_eq!(ends(), [2]);
    let path = dir.path().join("generation_config.json");
    std::fs::write(&path, r#"{"eos_token_id": [9, 2], "do_sample": true}"#).unwrap();
    assert_eq!(ends(), [9, 2]);
    std::fs::write(&path, r#"{"temperature": 0.6}"#).unwrap();
    assert_eq!(ends(), [2]);
}

#[test]
fn end_tokens_may_be_a_list() {
    let text = std::fs::read_to_string(golden_dir("llama-lora").join("model/config.json")).unwrap();
    let config: LlamaConfig =
        serde_json::from_str(&text.replace("\"eos_token_id\": 2", "\"eos_token_id\": [2, 7]"))
            .unwrap();
    assert_eq!(config.eos_token_id, [2, 7]);
}

#[test]
fn llama3_scaling_divides_slow_rotations_only() {
    let scaling = RotaryScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 64,
    };
    let cosines = |scaling| {
        let tables = Rotary::new(16, 10_000.0, scaling).tables::<TestBackend>(1, 1, &device());
        let ones = Tensor::<TestBackend, 4>::ones([1, 1, 1, 16], &device());
        tables
            .rotate(ones)
            .into_data()
            .iter::<f32>()
            .collect::<Vec<_>>()
    };
    let (plain, scaled) = (cosines(RotaryScaling::None), cosines(scaling));
    // First channel: one radian a position, ten turns in the context: untouched.
    assert_eq!(plain[0], scaled[0]);
    // Last channel of the half: far less than one turn: divided by eight.
    let angle = 10_000f64.powf(-14.0 / 16.0) / 8.0;
    assert!((f64::from(scaled[7]) - (angle.cos() - angle.sin())).abs() < 1e-6);
    assert_ne!(plain[7], scaled[7]);
}

#[test]
fn rotations_are_relative() {
    let rotary = Rotary::new(8, 10_000.0, RotaryScaling::None);
    let vector = |values: Vec<f32>| {
        Tensor::<TestBackend, 4>::from_data(TensorData::new(values, [1, 1, 1, 8]), &device())
    };
    let query = vector((0..8).map(|i| (i as f32 * 0.7).sin()).collect());
    let key = vector((0..8).map(|i| (i as f32 * 1.3).cos()).collect());
    let score = |query_at: usize, key_at: usize| -> f32 {
        let rotate =
            |x: &Tensor<TestBackend, 4>, at| rotary.tables(at, 1, &device()).rotate(x.clone());
        let product = (rotate(&query, query_at) * rotate(&key, key_at)).sum();
        product.into_data().iter::<f32>().next().unwrap()
    };
    assert!((score(5, 2) - score(45, 42)).abs() < 1e-5);
    assert!((score(5, 2) - score(5, 3)).abs() > 1e-3);
}

mod language {
    //! Training of the small language model.

    use std::collections::HashSet;

    use burn::tensor::backend::AutodiffBackend;
    use ragar::data::stickers::{GROUPS, Sticker, Style, caption, keyword_answer};
    use ragar::optimisation::{Interrupt, Schedule, Silent};
    use ragar::pretraining::language::{
        Corpus, LanguagePretrainingConfig, Mixture, TrainedLanguageModel, run,
    };
    use ragar::pretraining::trainer::TrainerConfig;
    use ragar::text::prompt::PromptConfig;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use crate::support::{TestBackend, devices};

    type Inner = <TestBackend as AutodiffBackend>::InnerBackend;

    /// Seven glyphs in every style; one style of each is held out.
    fn stickers() -> Vec<Sticker> {
        let labels = ["cat", "pear", "wink", "bus", "hat", "key", "rose"];
        let mut stickers = Vec::new();
        for (place, label) in labels.iter().enumerate() {
            for style in Style::ALL {
                stickers.push(Sticker {
                    item: stickers.len(),
                    glyph: format!("{place}"),
                    label: label.to_string(),
                    tags: vec![format!("tag{place}")],
                    group: GROUPS[place].to_string(),
                    style,
                    held_out: style == Style::ALL[place % 5],
                });
            }
        }
        stickers
    }

    #[test]
    fn no_exercise_names_a_held_out_pair() {
        let stickers = stickers();
        let (prompts, mixture) = (PromptConfig::default(), Mixture::default());
        let corpus = Corpus::new(&stickers, &prompts, &mixture).unwrap();
        let forbidden: Vec<String> = stickers
            .iter()
            .filter(|sticker| sticker.held_out)
            .flat_map(|sticker| [caption(sticker), keyword_answer(sticker)])
            .collect();
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut kinds = HashSet::new();
        for _ in 0..3000 {
            let exercise = corpus.draw(&mut random);
            let text = format!("{}{}", exercise.prompt, exercise.answer);
            if let Some(pair) = forbidden.iter().find(|pair| text.contains(*pair)) {
                panic!("{pair:?} stands in {text:?}");
            }
            kinds.insert((exercise.prompt.is_empty(), exercise.ends));
        }
        assert_eq!(kinds.len(), 3, "learned whole, continued, answered");
    }

    fn config(steps: usize) -> LanguagePretrainingConfig {
        LanguagePretrainingConfig {
            trainer: TrainerConfig {
                steps,
                // The rate must not depend on where the run ends.
                schedule: Schedule {
                    learning_rate: 3e-3,
                    decay: ragar::optimisation::Decay::Constant,
                    ..Schedule::default()
                },
                evaluate_every: 1000,
                log_every: 2,
                checkpoint_every: 2,
                ..TrainerConfig::default()
            },
            batch_size: 4,
            vocab_size: 320,
            width: 32,
            feed_forward_width: 32,
            num_layers: 1,
            num_heads: 2,
            num_key_value_heads: 1,
            num_evaluated: 2,
            ..LanguagePretrainingConfig::default()
        }
    }

    fn train(steps: usize, folder: &std::path::Path) -> TrainedLanguageModel<Inner> {
        let devices = devices();
        run::<TestBackend>(
            &config(steps),
            &PromptConfig::default(),
            &stickers(),
            folder,
            &devices.train,
            &devices.frozen,
            &Silent,
            &Interrupt::default(),
        )
        .unwrap()
    }

    #[test]
    fn a_resumed_run_equals_an_uninterrupted_one() {
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let uninterrupted = train(4, whole.path());
        train(2, parts.path());
        let resumed = train(4, parts.path());
        let table = |trained: &TrainedLanguageModel<Inner>| {
            trained.network.model.embed_tokens.weight.val().into_data()
        };
        assert_eq!(table(&resumed), table(&uninterrupted));
        assert_eq!(resumed.report.steps, 4);
        let log = std::fs::read_to_string(parts.path().join("metrics.jsonl")).unwrap();
        assert!(log.contains("\"held_out\""), "{log}");
    }

    #[test]
    fn settings_and_data_without_meaning_are_refused() {
        let devices = devices();
        let folder = tempfile::tempdir().unwrap();
        let refused = |config: &LanguagePretrainingConfig, stickers: &[Sticker]| {
            run::<TestBackend>(
                config,
                &PromptConfig::default(),
                stickers,
                folder.path(),
                &devices.train,
                &devices.frozen,
                &Silent,
                &Interrupt::default(),
            )
            .unwrap_err()
            .to_string()
        };
        let mut wrong = config(1);
        wrong.mixture.wrong_captions = 1.5;
        let error = refused(&wrong, &stickers());
        assert!(error.contains("mixture.wrong_captions"), "{error}");
        let mut wrong = config(1);
        wrong.num_heads = 3;
        let error = refused(&wrong, &stickers());
        assert!(error.contains("num_attention_heads"), "{error}");
        let seen: Vec<Sticker> = stickers().into_iter().filter(|s| !s.held_out).collect();
        let error = refused(&config(1), &seen);
        assert!(error.contains("0 held out"), "{error}");
        let unknown: Result<LanguagePretrainingConfig, _> = toml::from_str("bacth_size = 3");
        assert!(unknown.unwrap_err().to_string().contains("bacth_size"));
    }
}
