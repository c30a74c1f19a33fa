//! File names for pictures: safe on every system, whatever an id or an address says.

use std::path::Path;

use sha2::{Digest as _, Sha256};

/// Endings that decoders here know; the content decides, the ending is for people.
const ENDINGS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];
/// Names that Windows keeps for devices, with any ending.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "com", "lpt"];
const LONGEST: usize = 64;

/// The blank picture's name; no id gives one with `~` and no digits behind it.
pub const BLANK: &str = "images/blank~.png";

/// Whether a file name ends like a picture.
pub fn is_picture(path: &Path) -> bool {
    ending(path).is_some()
}

fn ending(path: &Path) -> Option<&'static str> {
    let found = path.extension()?.to_str()?.to_ascii_lowercase();
    ENDINGS.into_iter().find(|ending| **ending == found)
}

/// Where an item's own picture lies in the folder: named by its id if that is a safe name, by part of it and a hash if not.
pub fn of_item(id: &str, source: &Path) -> String {
    let ending = ending(source).unwrap_or("jpg");
    let safe = |letter: char| {
        letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-' || letter == '_'
    };
    let device = |name: &str| {
        DEVICES
            .iter()
            .any(|device| name.strip_prefix(device).is_some_and(|rest| rest.len() < 2))
    };
    if !id.is_empty()
        && id.chars().all(safe)
        && id.len() <= LONGEST
        && !id.starts_with('-')
        && !device(id)
    {
        return format!("images/{id}.{ending}");
    }
    // Upper case too: some systems take A and a for the same file.
    let start: String = id
        .chars()
        .filter(|letter| safe(*letter) && *letter != '-')
        .take(24)
        .collect();
    format!("images/{start}~{}.{ending}", hash(id))
}

/// Where the picture of an address lies: the same address is brought once, whoever shows it.
pub fn of_url(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let ending = ending(Path::new(path)).unwrap_or("jpg");
    let hash = hash(url);
    // Shared out over folders: there may be millions.
    format!("images/{}/{}.{ending}", &hash[..2], &hash[2..])
}

fn hash(text: &str) -> String {
    format!("{:.20x}", Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_safe_and_distinct_names() {
        let png = Path::new("a.PNG");
        assert_eq!(of_item("boot-17", png), "images/boot-17.png");
        let ids = [
            "../../etc/passwd",
            "a/b",
            "a\\b",
            "A",
            "a",
            "con",
            "com1",
            "nul",
            "靴",
            "",
            ".",
            "a.b",
            "a,b",
            "a b",
            "-rf",
            "x\u{0}y",
            "COM1",
            "a~b",
        ];
        let names: std::collections::BTreeSet<String> = ids
            .iter()
            .map(|id| of_item(id, png).to_lowercase())
            .collect();
        assert_eq!(names.len(), ids.len(), "{names:?}");
        for name in names.iter().chain([&of_item(&"é".repeat(5_000), png)]) {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_~".contains(c);
            let stem = name
                .strip_prefix("images/")
                .and_then(|n| n.strip_suffix(".png"))
                .expect("a name");
            assert!(
                stem.chars().all(plain) && !stem.is_empty() && stem.len() <= LONGEST,
                "{name}"
            );
        }
    }

    #[test]
    fn addresses_name_their_picture() {
        let name = of_url("https://example.org/a/b.WebP?size=1");
        assert!(
            name.ends_with(".webp") && name.len() == "images/".len() + 2 + 1 + 18 + 5,
            "{name}"
        );
        assert_eq!(name, of_url("https://example.org/a/b.WebP?size=1"));
        assert_ne!(name, of_url("https://example.org/a/b.WebP?size=2"));
        assert!(of_url("https://example.org/a.php").ends_with(".jpg"));
    }
}
