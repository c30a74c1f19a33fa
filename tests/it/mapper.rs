//! The Modal Mapper against the reference implementation.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use model_import::{Checkpoint, KeyMap, load_into};
use ragar::generation::mapper::{MapperConfig, MapperEnds, ModalMapper};

use crate::support::{Golden, TestBackend, device, golden_dir};

const CASE: &str = "gill-mapper";

fn load() -> ModalMapper<TestBackend> {
    let dir = golden_dir(CASE).join("model");
    let text = std::fs::read(dir.join("config.json")).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let count = |key: &str| value[key].as_u64().unwrap() as usize;
    let config = MapperConfig {
        d_model: count("d_model"),
        nhead: count("nhead"),
        num_encoder_layers: count("num_encoder_layers"),
        num_decoder_layers: count("num_decoder_layers"),
        dim_feedforward: count("dim_feedforward"),
    };
    let ends: MapperEnds = serde_json::from_value(value.clone()).unwrap();
    let mut mapper = config.init(ends, 0, &device()).unwrap();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    load_into(&mut mapper, &checkpoint, &KeyMap::identity()).unwrap();
    mapper
}

#[test]
fn the_mapper_matches_the_reference() {
    let golden = Golden::open(CASE);
    let mapper = load();
    let states: Tensor<TestBackend, 3> = golden.float("input.x");
    golden.check(
        "output.mapped",
        mapper.forward(states.clone(), states.zeros_like()),
    );
    golden.check(
        "output.mapped_with_input_embs",
        mapper.forward(states, golden.float("input.input_embs")),
    );
}

#[test]
fn a_changed_weight_shows() {
    let golden = Golden::open(CASE);
    let mut mapper = load();
    let bias = &mut mapper.tfm.decoder.layers[2].multihead_attn.in_proj_bias;
    let mut change = vec![0f32; 192];
    change[140] = 0.1;
    let change = Tensor::from_data(TensorData::new(change, [192]), &device());
    *bias = Param::from_tensor(bias.val() + change);
    let states: Tensor<TestBackend, 3> = golden.float("input.x");
    let mapped = mapper.forward(states.clone(), states.zeros_like());
    let difference = (mapped - golden.float("output.mapped")).abs().max();
    let difference: f32 = difference.into_data().iter::<f32>().next().unwrap();
    assert!(difference > 1e-4, "only {difference}");
}

#[test]
fn the_default_has_gills_number_of_parameters() {
    let ends = MapperEnds {
        in_dim: 4096,
        out_dim: 768,
        num_queries: 77,
    };
    let mapper: ModalMapper<TestBackend> =
        MapperConfig::default().init(ends, 0, &device()).unwrap();
    assert_eq!(mapper.num_params(), 31_958_784);
}

#[test]
fn a_seed_gives_the_same_mapper_and_heads_must_divide() {
    let config = MapperConfig {
        d_model: 32,
        nhead: 4,
        num_encoder_layers: 1,
        num_decoder_layers: 1,
        dim_feedforward: 16,
    };
    let ends = MapperEnds {
        in_dim: 8,
        out_dim: 8,
        num_queries: 5,
    };
    let queries = |seed| {
        let mapper: ModalMapper<TestBackend> = config.init(ends, seed, &device()).unwrap();
        mapper.query_embs.val().into_data()
    };
    assert_eq!(queries(3), queries(3));
    assert_ne!(queries(3), queries(4));
    let wrong = MapperConfig { nhead: 5, ..config };
    let error = wrong.validate().unwrap_err().to_string();
    assert!(error.contains("nhead = 5"), "{error}");
}
