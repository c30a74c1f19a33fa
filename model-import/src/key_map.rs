//! Hub names and module paths, as data.
//!
//! Module paths are written as the hub writes names: `weight` and `bias`, also for norms, whatever the
//! module's own fields are called (see [`crate::transform`]).

/// Ordered renames between hub names and module paths, usable in both directions.
///
/// Names are compared by whole dotted segments. First the leading rules ([`KeyMap::rename`]): the first
/// whose prefix matches is applied, once. Then every inner rule ([`KeyMap::rename_inside`]) in order.
/// The way back to the hub undoes the same rules in the opposite order.
#[derive(Debug, Clone, Default)]
pub struct KeyMap {
    leading: Vec<Rule>,
    inner: Vec<Rule>,
    ignored: Vec<String>,
    scalars: Vec<String>,
}

#[derive(Debug, Clone)]
struct Rule {
    hub: Vec<String>,
    ours: Vec<String>,
}

impl KeyMap {
    /// No renames, nothing ignored.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names as they are: the module's fields carry the hub's names.
    pub fn identity() -> Self {
        Self::default()
    }

    /// Names that start with `hub` start with `ours` in the module. Either may be empty; the dot at the
    /// end may be left out. To keep a name from a broader rule below, put `rename(name, name)` above it.
    pub fn rename(mut self, hub: &str, ours: &str) -> Self {
        self.leading.push(Rule::new(hub, ours));
        self
    }

    /// `hub` anywhere inside a name, at segment borders, is `ours` in the module: `query` → `to_q`,
    /// `proj_attn` → `to_out.0`. Neither may be empty.
    ///
    /// # Panics
    /// If either side is empty: such a rule has no way back.
    pub fn rename_inside(mut self, hub: &str, ours: &str) -> Self {
        let rule = Rule::new(hub, ours);
        assert!(
            !rule.hub.is_empty() && !rule.ours.is_empty(),
            "a rename inside names needs both sides"
        );
        self.inner.push(rule);
        self
    }

    /// Hub tensors that are no parameters of ours; `*` stands for any run of characters.
    /// Buffers such as `*.position_ids`, or towers that are not wanted, such as `vision_model.*`.
    pub fn ignore(mut self, pattern: &str) -> Self {
        self.ignored.push(pattern.into());
        self
    }

    /// A hub tensor without dimensions, kept as `[1]` by the module: it is saved without dimensions again.
    pub fn scalar(mut self, hub: &str) -> Self {
        self.scalars.push(hub.into());
        self
    }

    /// Whether the hub's tensor of this name has no dimensions.
    pub fn is_scalar(&self, hub: &str) -> bool {
        self.scalars.iter().any(|name| name == hub)
    }

    /// Whether a hub name is to be left out.
    pub fn ignores(&self, hub: &str) -> bool {
        self.ignored
            .iter()
            .any(|pattern| matches_pattern(pattern, hub))
    }

    /// The module path of a hub name; `None` when it is ignored.
    pub fn to_ours(&self, hub: &str) -> Option<String> {
        if self.ignores(hub) {
            return None;
        }
        let mut name = segments(hub);
        if let Some(rule) = self.leading.iter().find(|r| name.starts_with(&r.hub)) {
            name.splice(..rule.hub.len(), rule.ours.iter().cloned());
        }
        for rule in &self.inner {
            name = replace(name, &rule.hub, &rule.ours);
        }
        Some(name.join("."))
    }

    /// The hub name of a module path.
    pub fn to_hub(&self, ours: &str) -> String {
        let mut name = segments(ours);
        for rule in self.inner.iter().rev() {
            name = replace(name, &rule.ours, &rule.hub);
        }
        if let Some(rule) = self.leading.iter().find(|r| name.starts_with(&r.ours)) {
            name.splice(..rule.ours.len(), rule.hub.iter().cloned());
        }
        name.join(".")
    }
}

impl Rule {
    fn new(hub: &str, ours: &str) -> Self {
        Self {
            hub: segments(hub),
            ours: segments(ours),
        }
    }
}

fn segments(name: &str) -> Vec<String> {
    let name = name.trim_matches('.');
    if name.is_empty() {
        Vec::new()
    } else {
        name.split('.').map(String::from).collect()
    }
}

/// Every occurrence of `from` in `name` as `to`, left to right, without looking at what was put in.
fn replace(name: Vec<String>, from: &[String], to: &[String]) -> Vec<String> {
    let mut result = Vec::with_capacity(name.len());
    let mut rest = name.as_slice();
    while let Some(first) = rest.first() {
        if let Some(after) = rest.strip_prefix(from) {
            result.extend_from_slice(to);
            rest = after;
        } else {
            result.push(first.clone());
            rest = &rest[1..];
        }
    }
    result
}

fn matches_pattern(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(place) => rest = &rest[place + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renames_lead_both_ways_and_the_first_match_wins() {
        let map = KeyMap::new()
            .rename("text_projection", "text_projection")
            .rename("text_model.", "");
        for (hub, ours) in [
            ("text_model.encoder.0.weight", "encoder.0.weight"),
            ("text_projection.weight", "text_projection.weight"),
        ] {
            assert_eq!(map.to_ours(hub).as_deref(), Some(ours));
            assert_eq!(map.to_hub(ours), hub);
        }
        // Segments are whole: `text_modelling` is another name.
        assert_eq!(
            map.to_ours("text_modelling.weight").as_deref(),
            Some("text_modelling.weight")
        );
    }

    #[test]
    fn an_empty_hub_prefix_adds_and_its_inverse_strips() {
        let map = KeyMap::new().rename("", "model");
        assert_eq!(
            map.to_ours("layers.0.weight").as_deref(),
            Some("model.layers.0.weight")
        );
        assert_eq!(map.to_hub("model.layers.0.weight"), "layers.0.weight");
    }

    #[test]
    fn inner_renames_go_both_ways() {
        let map = KeyMap::new()
            .rename_inside("query", "to_q")
            .rename_inside("proj_attn", "to_out.0");
        let hub = "decoder.mid_block.attentions.0.proj_attn.bias";
        let ours = "decoder.mid_block.attentions.0.to_out.0.bias";
        assert_eq!(map.to_ours(hub).as_deref(), Some(ours));
        assert_eq!(map.to_hub(ours), hub);
        // A name already in the newer form stays.
        assert_eq!(map.to_ours(ours).as_deref(), Some(ours));
    }

    #[test]
    fn patterns_match_whole_names() {
        assert!(matches_pattern("*.position_ids", "a.b.position_ids"));
        assert!(!matches_pattern("*.position_ids", "a.position_ids.weight"));
        assert!(matches_pattern("vision_model.*", "vision_model.a.b"));
        assert!(matches_pattern("a.*.c.*", "a.b.c.d"));
        assert!(!matches_pattern("lm_head.weight", "lm_head.weight2"));
        assert!(matches_pattern("lm_head.weight", "lm_head.weight"));
    }
}
