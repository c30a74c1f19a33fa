//! Stable Diffusion from the reference's caption and the user's keywords: the same generator, untrained.

/// The prompt: the reference's caption, then the user's keywords (as PMG's comparison has it).
pub fn prompt(caption: &str, keywords: &[String]) -> String {
    let mut parts = vec![caption.to_string()];
    parts.extend(keywords.iter().cloned());
    parts.join(", ")
}
