//! Which of a repository's files loading it needs: many hold the same weights in several formats and precisions.

use std::collections::BTreeSet;

/// Beside the weights, by name.
const COMPANIONS: [&str; 16] = [
    "adapter_config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model_index.json",
    "preprocessor_config.json",
    "processor_config.json",
    "scheduler_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];

/// The parts of a pipeline that are read.
const PARTS: [&str; 5] = ["scheduler", "text_encoder", "tokenizer", "unet", "vae"];

/// Names of weights without their ending, by the library that writes them.
const STEMS: [&str; 5] = [
    "model",
    "diffusion_pytorch_model",
    "adapter_model",
    "pytorch_model",
    "pytorch_lora_weights",
];

/// Formats in the order of preference.
const ENDINGS: [&str; 2] = ["safetensors", "bin"];

/// A repository without weights that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no weights that can be read{place}; it holds {found}")]
pub struct NoWeights {
    /// Where they were looked for.
    place: String,
    /// What is there.
    found: String,
}

/// The files of `names` that loading needs, sorted. Of several forms of the same weights one is taken: `variant` where
/// there is such a one, safetensors before pickles.
///
/// # Errors
/// When a network has no weights in a known format.
pub fn needed(names: &[String], variant: Option<&str>) -> Result<Vec<String>, NoWeights> {
    let mut files = BTreeSet::new();
    let is_pipeline = names.iter().any(|name| name == "model_index.json");
    if !is_pipeline {
        take_folder(names, "", variant, &mut files)?;
        return Ok(files.into_iter().collect());
    }
    files.insert("model_index.json".to_string());
    for part in PARTS {
        let prefix = format!("{part}/");
        if names.iter().any(|name| name.starts_with(&prefix)) {
            take_folder(names, &prefix, variant, &mut files)?;
        }
    }
    Ok(files.into_iter().collect())
}

/// Adds the files directly under `prefix`.
fn take_folder(
    names: &[String],
    prefix: &str,
    variant: Option<&str>,
    files: &mut BTreeSet<String>,
) -> Result<(), NoWeights> {
    let direct: Vec<&str> = names
        .iter()
        .filter_map(|name| name.strip_prefix(prefix))
        .filter(|name| !name.contains('/'))
        .collect();
    let companions = direct.iter().filter(|name| COMPANIONS.contains(name));
    files.extend(companions.map(|name| format!("{prefix}{name}")));
    if matches!(prefix, "scheduler/" | "tokenizer/") {
        return Ok(());
    }
    let weights = weights(&direct, variant).ok_or_else(|| NoWeights {
        place: match prefix {
            "" => String::new(),
            folder => format!(" in {folder}"),
        },
        found: match direct.is_empty() {
            true => "nothing".into(),
            false => direct.join(", "),
        },
    })?;
    files.extend(weights.into_iter().map(|name| format!("{prefix}{name}")));
    Ok(())
}

/// One complete set of weights: a single file, or an index with its shards.
fn weights(direct: &[&str], variant: Option<&str>) -> Option<Vec<String>> {
    let variants = variant.map(Some).into_iter().chain([None, Some("fp16")]);
    for variant in variants {
        let middle = variant.map(|word| format!(".{word}")).unwrap_or_default();
        for ending in ENDINGS {
            for stem in STEMS {
                let single = format!("{stem}{middle}.{ending}");
                if direct.contains(&single.as_str()) {
                    return Some(vec![single]);
                }
                // Both places in which an index carries its variant.
                for index in [
                    format!("{stem}.{ending}.index{middle}.json"),
                    format!("{stem}{middle}.{ending}.index.json"),
                ] {
                    if direct.contains(&index.as_str()) {
                        let is_shard = |name: &&&str| is_shard(name, stem, &middle, ending);
                        let shards = direct.iter().filter(is_shard).map(ToString::to_string);
                        return Some(std::iter::once(index).chain(shards).collect());
                    }
                }
            }
        }
    }
    // A repository of one file, such as learned embeddings or a GGUF.
    for ending in [".safetensors", ".bin", ".gguf", ".pt", ".pth"] {
        let mut found = direct.iter().filter(|name| name.ends_with(ending));
        if let (Some(only), None) = (found.next(), found.next()) {
            return Some(vec![only.to_string()]);
        }
    }
    None
}

/// `model-00001-of-00002.safetensors`, with the variant before or after the numbers.
fn is_shard(name: &str, stem: &str, middle: &str, ending: &str) -> bool {
    let Some(rest) = name.strip_prefix(stem) else {
        return false;
    };
    let Some(rest) = rest.strip_suffix(&format!(".{ending}")) else {
        return false;
    };
    let numbers = match middle {
        "" => rest,
        _ => match rest
            .strip_prefix(middle)
            .or_else(|| rest.strip_suffix(middle))
        {
            Some(numbers) => numbers,
            None => return false,
        },
    };
    let Some((first, last)) = numbers
        .strip_prefix('-')
        .and_then(|rest| rest.split_once("-of-"))
    else {
        return false;
    };
    let is_number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    is_number(first) && is_number(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(names: &[&str], variant: Option<&str>) -> Vec<String> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        needed(&names, variant).unwrap()
    }

    #[test]
    fn a_pipeline_is_taken_once() {
        let listed = [
            ".gitattributes",
            "README.md",
            "feature_extractor/preprocessor_config.json",
            "model_index.json",
            "safety_checker/config.json",
            "safety_checker/model.safetensors",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model.fp16.safetensors",
            "text_encoder/model.safetensors",
            "text_encoder/pytorch_model.bin",
            "tokenizer/merges.txt",
            "tokenizer/special_tokens_map.json",
            "tokenizer/tokenizer_config.json",
            "tokenizer/vocab.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.bin",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "unet/diffusion_pytorch_model.non_ema.safetensors",
            "unet/diffusion_pytorch_model.safetensors",
            "v1-5-pruned.ckpt",
            "v1-5-pruned-emaonly.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.bin",
        ];
        let rest = [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
        ];
        let tokenizer = [
            "tokenizer/merges.txt",
            "tokenizer/special_tokens_map.json",
            "tokenizer/tokenizer_config.json",
            "tokenizer/vocab.json",
        ];
        let expected = |text: &'static str, unet: &'static str| {
            let mut names = rest.to_vec();
            names.push(text);
            names.extend(tokenizer);
            names.extend(["unet/config.json", unet]);
            names.extend(["vae/config.json", "vae/diffusion_pytorch_model.bin"]);
            names
        };
        assert_eq!(
            choose(&listed, None),
            expected(
                "text_encoder/model.safetensors",
                "unet/diffusion_pytorch_model.safetensors"
            )
        );
        assert_eq!(
            choose(&listed, Some("fp16")),
            expected(
                "text_encoder/model.fp16.safetensors",
                "unet/diffusion_pytorch_model.fp16.safetensors"
            )
        );
    }

    #[test]
    fn shards_come_with_their_index() {
        let listed = [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "pytorch_model-00001-of-00002.bin",
            "pytorch_model.bin.index.json",
            "tokenizer.json",
            "tokenizer.model",
        ];
        assert_eq!(
            choose(&listed, None),
            [
                "config.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
                "tokenizer.json",
            ]
        );
        let half = [
            "config.json",
            "model.safetensors.index.fp16.json",
            "model.fp16-00001-of-00002.safetensors",
            "model.fp16-00002-of-00002.safetensors",
            "model-00001-of-00003.safetensors",
            "model.safetensors.index.json",
        ];
        assert_eq!(choose(&half, Some("fp16")).len(), 4);
        assert_eq!(choose(&half, None).len(), 3);
    }

    #[test]
    fn small_repositories_are_understood() {
        assert_eq!(
            choose(&["README.md", "learned_embeds.bin", "1.jpeg"], None),
            ["learned_embeds.bin"]
        );
        assert_eq!(
            choose(
                &["adapter_config.json", "adapter_model.bin", "README.md"],
                None
            ),
            ["adapter_config.json", "adapter_model.bin"]
        );
        assert_eq!(
            choose(
                &[
                    "config.json",
                    "flax_model.msgpack",
                    "pytorch_model.bin",
                    "tf_model.h5"
                ],
                None
            ),
            ["config.json", "pytorch_model.bin"]
        );
        let names = ["config.json".to_string(), "tf_model.h5".to_string()];
        let message = needed(&names, None).unwrap_err().to_string();
        assert!(message.contains("tf_model.h5"), "{message}");
    }
}
