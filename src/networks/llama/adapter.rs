//! The low-rank adapter of a whole network as a module of its own, to be trained, saved and swapped.

use burn::module::Module;
use burn::tensor::backend::Backend;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::model::LlamaForCausalLm;
use crate::nn::lora::{LoraConfig, LoraConfigError, LoraLinear, LoraUpdate};

/// The projections that can have an adapter.
pub const PROJECTIONS: [&str; 7] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
];

/// Updates of every layer, apart from the network they belong to.
#[derive(Module, Debug)]
pub struct LlamaAdapter<B: Backend> {
    /// One entry per decoder layer.
    pub layers: Vec<LayerAdapter<B>>,
}

/// Updates of one decoder layer.
#[derive(Module, Debug)]
pub struct LayerAdapter<B: Backend> {
    /// Of its attention.
    pub self_attn: AttentionAdapter<B>,
    /// Of its feed-forward.
    pub mlp: MlpAdapter<B>,
}

/// Updates of the attention's projections.
#[derive(Module, Debug)]
pub struct AttentionAdapter<B: Backend> {
    /// Of the queries.
    pub q_proj: Option<LoraUpdate<B>>,
    /// Of the keys.
    pub k_proj: Option<LoraUpdate<B>>,
    /// Of the values.
    pub v_proj: Option<LoraUpdate<B>>,
    /// Of the output.
    pub o_proj: Option<LoraUpdate<B>>,
}

/// Updates of the feed-forward's projections.
#[derive(Module, Debug)]
pub struct MlpAdapter<B: Backend> {
    /// Of the gate.
    pub gate_proj: Option<LoraUpdate<B>>,
    /// Of the upper projection.
    pub up_proj: Option<LoraUpdate<B>>,
    /// Of the lower projection.
    pub down_proj: Option<LoraUpdate<B>>,
}

impl<B: Backend> LlamaAdapter<B> {
    /// A fresh adapter for `llama`, on its device: it changes nothing until it is trained.
    ///
    /// # Errors
    /// When the configuration names a projection that does not exist, or has no rank.
    pub fn new(
        llama: &LlamaForCausalLm<B>,
        config: &LoraConfig,
        seed: u64,
    ) -> Result<Self, LoraConfigError> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        Self::build(llama, config, |linear, device| {
            let (inputs, outputs) = linear.sizes();
            LoraUpdate::new(inputs, outputs, config, &mut random, device)
        })
    }

    /// An adapter of zeros for `llama`, to be filled from a file.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn zeros(
        llama: &LlamaForCausalLm<B>,
        config: &LoraConfig,
    ) -> Result<Self, LoraConfigError> {
        Self::build(llama, config, |linear, device| {
            let (inputs, outputs) = linear.sizes();
            LoraUpdate::zeros(inputs, outputs, config, device)
        })
    }

    fn build(
        llama: &LlamaForCausalLm<B>,
        config: &LoraConfig,
        mut update: impl FnMut(&LoraLinear<B>, &B::Device) -> LoraUpdate<B>,
    ) -> Result<Self, LoraConfigError> {
        config.validate(&PROJECTIONS)?;
        let device = llama.model.embed_tokens.weight.lazy_device();
        let mut adapt = |name: &str, linear: &LoraLinear<B>| {
            config.targets(name).then(|| update(linear, &device))
        };
        let layers = llama
            .model
            .layers
            .iter()
            .map(|layer| LayerAdapter {
                self_attn: AttentionAdapter {
                    q_proj: adapt("q_proj", &layer.self_attn.q_proj),
                    k_proj: adapt("k_proj", &layer.self_attn.k_proj),
                    v_proj: adapt("v_proj", &layer.self_attn.v_proj),
                    o_proj: adapt("o_proj", &layer.self_attn.o_proj),
                },
                mlp: MlpAdapter {
                    gate_proj: adapt("gate_proj", &layer.mlp.gate_proj),
                    up_proj: adapt("up_proj", &layer.mlp.up_proj),
                    down_proj: adapt("down_proj", &layer.mlp.down_proj),
                },
            })
            .collect();
        Ok(Self { layers })
    }
}

impl<B: Backend> LlamaAdapter<B> {
    /// Rank, factor and projections, read off the updates themselves; `None` where there is no update.
    pub fn config(&self) -> Option<LoraConfig> {
        let updates = self.layers.iter().flat_map(|layer| {
            let (attention, mlp) = (&layer.self_attn, &layer.mlp);
            PROJECTIONS.into_iter().zip([
                &attention.q_proj,
                &attention.k_proj,
                &attention.v_proj,
                &attention.o_proj,
                &mlp.gate_proj,
                &mlp.up_proj,
                &mlp.down_proj,
            ])
        });
        let updates = updates.filter_map(|(name, update)| Some((name, update.as_ref()?)));
        let (_, first) = updates.clone().next()?;
        let [_, r] = first.lora_A.weight.lazy_shape().dims();
        let named: Vec<&str> = updates.map(|(name, _)| name).collect();
        let targets = PROJECTIONS.iter().filter(|name| named.contains(name));
        Some(LoraConfig {
            r,
            alpha: first.scaling * r as f64,
            target_modules: targets.map(ToString::to_string).collect(),
        })
    }
}

impl<B: Backend> LlamaForCausalLm<B> {
    /// Freezes the network and attaches a fresh adapter, the only part that then trains.
    ///
    /// # Errors
    /// When the configuration names a projection that does not exist, or has no rank.
    pub fn add_lora(self, config: &LoraConfig, seed: u64) -> Result<Self, LoraConfigError> {
        let base = self.without_adapter().no_grad();
        let adapter = LlamaAdapter::new(&base, config, seed)?;
        Ok(base.with_adapter(&adapter))
    }

    /// The network with `adapter` attached; its parameters are shared, not copied.
    ///
    /// # Panics
    /// When the adapter belongs to a network of another depth.
    pub fn with_adapter(mut self, adapter: &LlamaAdapter<B>) -> Self {
        assert_eq!(
            adapter.layers.len(),
            self.model.layers.len(),
            "layers of the adapter and of the network"
        );
        for (layer, update) in self.model.layers.iter_mut().zip(&adapter.layers) {
            layer.self_attn.q_proj.lora = update.self_attn.q_proj.clone();
            layer.self_attn.k_proj.lora = update.self_attn.k_proj.clone();
            layer.self_attn.v_proj.lora = update.self_attn.v_proj.clone();
            layer.self_attn.o_proj.lora = update.self_attn.o_proj.clone();
            layer.mlp.gate_proj.lora = update.mlp.gate_proj.clone();
            layer.mlp.up_proj.lora = update.mlp.up_proj.clone();
            layer.mlp.down_proj.lora = update.mlp.down_proj.clone();
        }
        self
    }

    /// The base network alone.
    pub fn without_adapter(mut self) -> Self {
        for layer in &mut self.model.layers {
            let attention = &mut layer.self_attn;
            attention.q_proj.lora = None;
            attention.k_proj.lora = None;
            attention.v_proj.lora = None;
            attention.o_proj.lora = None;
            layer.mlp.gate_proj.lora = None;
            layer.mlp.up_proj.lora = None;
            layer.mlp.down_proj.lora = None;
        }
        self
    }

    /// The attached adapter, if there is one.
    pub fn adapter(&self) -> Option<LlamaAdapter<B>> {
        let layers: Vec<_> = self
            .model
            .layers
            .iter()
            .map(|layer| LayerAdapter {
                self_attn: AttentionAdapter {
                    q_proj: layer.self_attn.q_proj.lora.clone(),
                    k_proj: layer.self_attn.k_proj.lora.clone(),
                    v_proj: layer.self_attn.v_proj.lora.clone(),
                    o_proj: layer.self_attn.o_proj.lora.clone(),
                },
                mlp: MlpAdapter {
                    gate_proj: layer.mlp.gate_proj.lora.clone(),
                    up_proj: layer.mlp.up_proj.lora.clone(),
                    down_proj: layer.mlp.down_proj.lora.clone(),
                },
            })
            .collect();
        let adapter = LlamaAdapter { layers };
        (adapter.num_params() > 0).then_some(adapter)
    }
}
