//! The budget's account of a training step against counted allocations. A program of its own: it counts all of them.
#![cfg(feature = "flex")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{FloatDType, Tensor, TensorData};
use ragar::app::backend::{self, Backend};
use ragar::app::budget::LanguageStep;
use ragar::networks::llama::{LlamaConfig, LlamaForCausalLm};
use ragar::nn::lora::LoraConfig;
use ragar::nn::precision::cast_parameters;
use serde_json::json;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counted;

// SAFETY: every call goes to the system's allocator; only sizes are counted.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static MEMORY: Counted = Counted;

const BATCH: usize = 2;
const TOKENS: usize = 96;

fn shape(layers: usize) -> LlamaConfig {
    let shape = json!({
        "model_type": "llama", "vocab_size": 64, "hidden_size": 256, "intermediate_size": 688,
        "num_hidden_layers": layers, "num_attention_heads": 8, "num_key_value_heads": 8,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
    });
    serde_json::from_value(shape).expect("a configuration")
}

/// Bytes kept after a forward pass, and the most in use until the end of the backward pass.
fn measured(layers: usize, tokens: usize, lora: &LoraConfig, dtype: FloatDType) -> (usize, usize) {
    let devices = backend::open("flex").expect("a device");
    let config = shape(layers);
    let model: LlamaForCausalLm<Backend> = config.init(&devices.frozen).expect("a network");
    let model = cast_parameters(model.initialise(0.1, 3), dtype);
    let model: LlamaForCausalLm<Backend> = burn::module::AutodiffModule::from_inner(model);
    let model = model.add_lora(lora, 5).expect("an adapter");
    let values: Vec<f32> = (0..BATCH * tokens * 256)
        .map(|i| ((i * 37 + 11) % 64) as f32 / 64.0 - 0.5)
        .collect();
    let shape = [BATCH, tokens, 256];
    let input = Tensor::<Backend, 3>::from_data(TensorData::new(values, shape), &devices.train);
    let input = input.cast(dtype).require_grad();
    // Whatever is made on first use is made now.
    drop(model.forward_hidden(input.clone(), None).sum().backward());
    let before = NOW.load(Ordering::SeqCst);
    PEAK.store(before, Ordering::SeqCst);
    let states = model.forward_hidden(input.clone(), None);
    let kept = NOW.load(Ordering::SeqCst) - before;
    drop(states.sum().backward());
    (kept, PEAK.load(Ordering::SeqCst) - before)
}

#[test]
fn a_layer_keeps_what_the_budget_says() {
    // One thread: of several, one may make its scratch memory only while the others are being measured.
    ragar::app::pool::in_pool(Some(1), compare);
}

fn compare() {
    let named = |names: &[&str]| LoraConfig {
        target_modules: names.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    let adapters = [
        named(&["q_proj", "v_proj"]),
        named(&[
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "up_proj",
            "down_proj",
        ]),
    ];
    for (dtype, bytes) in [(FloatDType::F32, 4), (FloatDType::F16, 2)] {
        for lora in &adapters {
            let shape = shape(1);
            let step = LanguageStep {
                shape: &shape,
                lora,
                bytes,
                batch: BATCH as u64,
                tokens: TOKENS as u64,
            };
            // What stands beside the layers, the last norm for instance, is in both.
            let (few, _) = measured(2, TOKENS, lora, dtype);
            let (many, peak) = measured(6, TOKENS, lora, dtype);
            let layer = (many - few) / 4;
            let said = step.layer() as usize;
            println!(
                "{dtype:?}, {} adapted: a layer keeps {layer} bytes, the budget says {said}; peak of 6 layers {peak}",
                lora.target_modules.len()
            );
            assert!(
                said.abs_diff(layer) * 20 <= layer,
                "{dtype:?} {:?}: a layer keeps {layer} bytes, the budget says {said}",
                lora.target_modules
            );
            let whole = 6 * said + step.layer_backward() as usize;
            assert!(
                peak <= whole * 5 / 4,
                "peak {peak}, the budget says {whole}"
            );
        }
    }
}
