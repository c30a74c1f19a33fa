//! Llama, with or without an adapter.

use anyhow::Context as _;
use burn::tensor::Tensor;
use serde_json::Value;

use crate::app::backend::Backend;
use crate::app::golden::case::{Case, Outputs, zeroed};
use crate::networks::llama::LlamaForCausalLm;
use crate::pretrained::folder::read_json;
use crate::pretrained::llama;

/// States, logits, greedy continuations; with an adapter the base's logits too.
pub fn compute(case: &Case<'_>) -> anyhow::Result<Outputs> {
    let folder = case.folder()?;
    let base = llama::load::<Backend>(folder, &case.device)?;
    let vocabulary = base.config.vocab_size;
    let model = match case.adapter {
        None => base.model,
        Some(adapter) => {
            let (_, adapter) = llama::load_adapter(adapter, &base.model)?;
            base.model.with_adapter(&adapter)
        }
    };
    let model = case.ready(model);
    let mut outputs = Outputs::default();
    let (states, logits) = read(case, &model, vocabulary)?;
    outputs.put("last_hidden_state", states);
    outputs.put("logits", logits);
    if case.golden.asks_for("base_logits") {
        let bare = model.clone().without_adapter();
        outputs.put("base_logits", read(case, &bare, vocabulary)?.1);
    }
    if case.golden.asks_for("generated_ids") {
        outputs.put_rows("generated_ids", &continued(case, &model)?);
    }
    Ok(outputs)
}

/// Last states and logits of the prompts, zero at masked places.
fn read(
    case: &Case<'_>,
    model: &LlamaForCausalLm<Backend>,
    vocabulary: usize,
) -> anyhow::Result<(Tensor<Backend, 3>, Tensor<Backend, 3>)> {
    let mask = case.mask()?;
    let ids = case.tokens("input_ids", vocabulary)?;
    let states = model.forward_hidden(model.embed(ids), mask.clone());
    let logits = model.logits(states.clone());
    Ok((zeroed(states, mask.as_ref()), zeroed(logits, mask.as_ref())))
}

/// The prompts with their greedy continuations, as the reference's `generate` returns them: a text ends with its end
/// token, and shorter ones are filled with padding.
fn continued(case: &Case<'_>, model: &LlamaForCausalLm<Backend>) -> anyhow::Result<Vec<Vec<u32>>> {
    let rows = case.golden.rows("input_ids")?;
    let prompts: Vec<Vec<u32>> = match case.golden.gives("attention_mask") {
        false => rows.clone(),
        true => {
            let masks = case.golden.rows("attention_mask")?;
            let kept = |(row, mask): (&Vec<u32>, &Vec<u32>)| {
                let pairs = row.iter().zip(mask).filter(|(_, kept)| **kept != 0);
                pairs.map(|(id, _)| *id).collect()
            };
            rows.iter().zip(&masks).map(kept).collect()
        }
    };
    let most: usize = case.golden.required("max_new_tokens")?;
    let special = Special::of(case)?;
    let answers = model.generate(&prompts, most, &[]);
    let answers: Vec<Vec<u32>> = answers
        .into_iter()
        .map(|mut answer| {
            if let Some(end) = answer.iter().position(|id| special.ends.contains(id)) {
                answer.truncate(end + 1);
            }
            answer
        })
        .collect();
    let longest = answers.iter().map(Vec::len).max().unwrap_or(0);
    let join = |(row, mut answer): (Vec<u32>, Vec<u32>)| {
        answer.resize(longest, special.padding);
        [row, answer].concat()
    };
    Ok(rows.into_iter().zip(answers).map(join).collect())
}

/// The tokens that end and fill a text, by `generation_config.json`, or by `config.json` where that is absent.
struct Special {
    ends: Vec<u32>,
    padding: u32,
}

impl Special {
    fn of(case: &Case<'_>) -> anyhow::Result<Self> {
        let folder = case.folder()?;
        let generation = read_json(&folder.join("generation_config.json"))?;
        let config = read_json(&folder.join("config.json"))?;
        let source = generation.or(config).context("no configuration")?;
        let ids = |key: &str| -> Vec<u32> {
            let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
            match source.get(key) {
                Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
                Some(value) => id(value).into_iter().collect(),
                None => Vec::new(),
            }
        };
        let ends = ids("eos_token_id");
        let padding = ids("pad_token_id").first().or(ends.first()).copied();
        Ok(Self {
            padding: padding.unwrap_or(0),
            ends,
        })
    }
}
