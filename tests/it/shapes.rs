//! Full-size checkpoints, name by name and shape by shape, without their weights.

use std::collections::BTreeMap;

use burn::module::Module;
use model_import::{KeyMap, hub_shapes, maps};
use ragar::networks::blip2::Blip2Config;
use ragar::networks::clip::{ClipConfig, ClipTextConfig};
use ragar::networks::diffusion::{UNetConfig, VaeConfig};
use ragar::networks::llama::LlamaConfig;
use serde::de::DeserializeOwned;

use crate::support::{TestBackend, device, golden_dir};

fn config<T: DeserializeOwned>(folder: &str) -> T {
    let path = golden_dir("shapes").join(folder).join("config.json");
    let text = std::fs::read_to_string(&path).expect("a configuration");
    serde_json::from_str(&text).expect("the hub's configuration")
}

/// What the reference built from the same configuration.
fn reference(folder: &str) -> BTreeMap<String, Vec<usize>> {
    let path = golden_dir("shapes").join(folder).join("shapes.tsv");
    let text = std::fs::read_to_string(&path).expect("a table");
    text.lines()
        .map(|line| {
            let (name, sizes) = line.split_once('\t').expect("name, tab, sizes");
            let sizes = sizes.split('x').filter(|size| !size.is_empty());
            let sizes = sizes.map(|size| size.parse().expect("a size")).collect();
            (name.to_string(), sizes)
        })
        .collect()
}

/// Holds the module's names and shapes, and the number of values, against the reference's.
fn check<M: Module<TestBackend>>(folder: &str, module: &M, key_map: &KeyMap, num_values: usize) {
    let (ours, theirs) = (hub_shapes(module, key_map), reference(folder));
    let missing: Vec<_> = theirs.keys().filter(|n| !ours.contains_key(*n)).collect();
    let surplus: Vec<_> = ours.keys().filter(|n| !theirs.contains_key(*n)).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "{folder}: {} missing, such as {:?}; {} that the reference lacks, such as {:?}",
        missing.len(),
        missing.first(),
        surplus.len(),
        surplus.first()
    );
    for (name, shape) in &theirs {
        assert_eq!(&ours[name], shape, "{folder}: {name}");
    }
    let count: usize = ours.values().map(|s| s.iter().product::<usize>()).sum();
    assert_eq!(count, num_values, "{folder}");
}

#[test]
fn clip_vit_large() {
    let folder = "clip-vit-large-patch14";
    let network = config::<ClipConfig>(folder).init::<TestBackend>(&device());
    check(folder, &network, &maps::clip::clip(), 427_616_513);
}

#[test]
fn clip_vit_huge() {
    let folder = "laion-clip-vit-h-14";
    let network = config::<ClipConfig>(folder).init::<TestBackend>(&device());
    check(folder, &network, &maps::clip::clip(), 986_109_441);
}

#[test]
fn blip2_opt() {
    let folder = "blip2-opt-2.7b";
    let network = config::<Blip2Config>(folder).init::<TestBackend>(&device());
    let network = network.expect("a network");
    check(folder, &network, &maps::blip2::blip2(), 3_744_679_936);
}

#[test]
fn blip2_flan_t5() {
    let folder = "blip2-flan-t5-xl";
    let network = config::<Blip2Config>(folder).init::<TestBackend>(&device());
    let network = network.expect("a network");
    check(folder, &network, &maps::blip2::blip2(), 3_942_446_592);
}

#[test]
fn llama_2_and_smollm2() {
    for (folder, tied, num_values) in [
        ("llama-2-7b", false, 6_738_415_616),
        ("smollm2-135m", true, 134_515_008),
    ] {
        let network = config::<LlamaConfig>(folder).init::<TestBackend>(&device());
        let network = network.expect("a network");
        check(folder, &network, &maps::llama::llama(tied), num_values);
    }
}

#[test]
fn stable_diffusion_1_5() {
    let folder = "stable-diffusion-v1-5/text_encoder";
    let network = config::<ClipTextConfig>(folder).init::<TestBackend>(&device());
    check(folder, &network, &maps::clip::text_encoder(), 123_060_480);

    let folder = "stable-diffusion-v1-5/unet";
    let network = config::<UNetConfig>(folder).init::<TestBackend>(&device());
    let network = network.expect("a network");
    check(folder, &network, &maps::diffusion::unet(), 859_520_964);

    let folder = "stable-diffusion-v1-5/vae";
    let network = config::<VaeConfig>(folder).init::<TestBackend>(&device());
    let network = network.expect("a network");
    check(folder, &network, &maps::diffusion::vae_now(), 83_653_863);
}
