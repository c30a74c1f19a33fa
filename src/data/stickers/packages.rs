//! The npm packages the stickers are drawn from: where they lie, and what they hold.
//!
//! `npm pack NAME@VERSION` brings a tarball; nothing is downloaded here. Two layouts are understood:
//! `ROOT/<name>-<version>/package` (unpacked tarballs) and `ROOT/[node_modules/]<name>` (an npm install).

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::StickerError;

/// One npm package this builder reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackageSource {
    pub name: &'static str,
    /// The version the shipped set was built from; others are accepted and recorded.
    pub version: &'static str,
    pub licence: &'static str,
}

pub const EMOJIBASE: PackageSource = PackageSource {
    name: "emojibase-data",
    version: "17.0.0",
    licence: "MIT",
};
pub const FLUENT_FLAT: PackageSource = PackageSource {
    name: "@iconify-json/fluent-emoji-flat",
    version: "1.2.6",
    licence: "MIT",
};
pub const FLUENT_3D: PackageSource = PackageSource {
    name: "@lobehub/fluent-emoji-3d",
    version: "1.1.0",
    licence: "MIT",
};
pub const TWEMOJI: PackageSource = PackageSource {
    name: "@iconify-json/twemoji",
    version: "1.2.5",
    licence: "CC-BY-4.0",
};
pub const NOTO: PackageSource = PackageSource {
    name: "@iconify-json/noto",
    version: "1.2.9",
    licence: "Apache-2.0",
};
pub const FXEMOJI: PackageSource = PackageSource {
    name: "@iconify-json/fxemoji",
    version: "1.2.2",
    licence: "Apache-2.0",
};

impl PackageSource {
    /// The name `npm pack` gives the tarball, without version: `@a/b` becomes `a-b`.
    fn tarball_stem(&self) -> String {
        self.name.trim_start_matches('@').replace('/', "-")
    }

    /// The command that brings and unpacks this package.
    pub fn command(&self) -> String {
        let folder = format!("{}-{}", self.tarball_stem(), self.version);
        format!(
            "npm pack {name}@{version} && mkdir {folder} && tar -xzf {folder}.tgz -C {folder}",
            name = self.name,
            version = self.version
        )
    }

    /// Finds the unpacked package under `root`.
    ///
    /// # Errors
    /// [`StickerError::MissingPackage`] with the command that brings it.
    pub fn find(&self, root: &Path) -> Result<Package, StickerError> {
        let stem = self.tarball_stem();
        let mut candidates = vec![
            root.join(format!("{stem}-{}", self.version))
                .join("package"),
            root.join(self.name),
            root.join("node_modules").join(self.name),
        ];
        // Another version of the same tarball, the highest name last.
        if let Ok(entries) = std::fs::read_dir(root) {
            let mut others: Vec<PathBuf> = entries
                .filter_map(Result::ok)
                .filter(|e| {
                    let name = e.file_name().to_string_lossy().into_owned();
                    name.strip_prefix(&format!("{stem}-"))
                        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
                })
                .map(|e| e.path().join("package"))
                .collect();
            others.sort();
            others.reverse();
            candidates.extend(others);
        }
        let path = candidates
            .into_iter()
            .find(|p| p.join("package.json").is_file())
            .ok_or_else(|| StickerError::MissingPackage {
                root: root.to_path_buf(),
                name: self.name,
                command: self.command(),
            })?;
        #[derive(Deserialize)]
        struct Manifest {
            version: String,
        }
        let manifest: Manifest = read_json(&path.join("package.json"))?;
        Ok(Package {
            source: *self,
            version: manifest.version,
            path,
        })
    }
}

/// A package found on disk.
#[derive(Debug, Clone)]
pub struct Package {
    pub source: PackageSource,
    /// The version its own `package.json` states.
    pub version: String,
    pub path: PathBuf,
}

/// Lower case, without the presentation selector `fe0f`: the key all packages can be joined on.
pub fn hexcode(raw: &str) -> String {
    raw.to_lowercase()
        .split('-')
        .filter(|part| *part != "fe0f")
        .collect::<Vec<_>>()
        .join("-")
}

/// Letters and digits only, lower case: the key of the one package without hexcodes (fxemoji).
pub fn joined_name(label: &str) -> String {
    label
        .to_lowercase()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect()
}

/// One emoji of `emojibase-data`.
#[derive(Debug, Clone, Deserialize)]
pub struct Emoji {
    pub label: String,
    pub hexcode: String,
    #[serde(default)]
    pub tags: Vec<String>,
    /// Absent for regional indicators.
    pub group: Option<usize>,
    pub subgroup: Option<usize>,
    /// Present where skin tones exist; such people are left out.
    pub skins: Option<serde::de::IgnoredAny>,
}

/// Labels, tags and subgroups of all emoji.
#[derive(Debug)]
pub struct EmojiTable {
    pub emoji: Vec<Emoji>,
    subgroups: HashMap<String, String>,
}

impl EmojiTable {
    pub fn open(package: &Package) -> Result<Self, StickerError> {
        #[derive(Deserialize)]
        struct Groups {
            subgroups: HashMap<String, String>,
        }
        let emoji = read_json(&package.path.join("en/data.json"))?;
        let groups: Groups = read_json(&package.path.join("meta/groups.json"))?;
        Ok(Self {
            emoji,
            subgroups: groups.subgroups,
        })
    }

    /// The subgroup's name, `animal-mammal` for instance.
    pub fn subgroup(&self, emoji: &Emoji) -> Option<&str> {
        let number = emoji.subgroup?.to_string();
        self.subgroups.get(&number).map(String::as_str)
    }
}

/// One icon set of Iconify: SVG bodies by name, aliases, and names by hexcode.
#[derive(Debug)]
pub struct IconSet {
    pub path: PathBuf,
    icons: HashMap<String, Icon>,
    aliases: HashMap<String, Alias>,
    width: f32,
    height: f32,
    names: HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Icon {
    body: String,
    left: Option<f32>,
    top: Option<f32>,
    width: Option<f32>,
    height: Option<f32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alias {
    parent: String,
    #[serde(default)]
    h_flip: bool,
    #[serde(default)]
    v_flip: bool,
}

impl IconSet {
    pub fn open(package: &Package) -> Result<Self, StickerError> {
        #[derive(Deserialize)]
        struct File {
            icons: HashMap<String, Icon>,
            #[serde(default)]
            aliases: HashMap<String, Alias>,
            width: Option<f32>,
            height: Option<f32>,
        }
        let path = package.path.join("icons.json");
        let file: File = read_json(&path)?;
        let characters: BTreeMap<String, String> = read_json(&package.path.join("chars.json"))?;
        let names = characters
            .into_iter()
            .map(|(code, name)| (hexcode(&code), name))
            .collect();
        Ok(Self {
            path,
            icons: file.icons,
            aliases: file.aliases,
            // Iconify's documented default size.
            width: file.width.unwrap_or(16.0),
            height: file.height.unwrap_or(16.0),
            names,
        })
    }

    /// The icon's name for a hexcode without `fe0f`.
    pub fn name(&self, hexcode: &str) -> Option<&str> {
        self.names.get(hexcode).map(String::as_str)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.icons.contains_key(name) || self.aliases.contains_key(name)
    }

    /// The names of all icons that are not aliases.
    pub fn icon_names(&self) -> impl Iterator<Item = &str> {
        self.icons.keys().map(String::as_str)
    }

    /// A complete SVG document of the icon called `name`, aliases resolved.
    pub fn svg(&self, name: &str) -> Option<String> {
        let (mut name, mut h_flip, mut v_flip) = (name, false, false);
        // A chain longer than this would be a cycle.
        for _ in 0..8 {
            if let Some(icon) = self.icons.get(name) {
                return Some(self.document(icon, h_flip, v_flip));
            }
            let alias = self.aliases.get(name)?;
            h_flip ^= alias.h_flip;
            v_flip ^= alias.v_flip;
            name = &alias.parent;
        }
        None
    }

    fn document(&self, icon: &Icon, h_flip: bool, v_flip: bool) -> String {
        let left = icon.left.unwrap_or(0.0);
        let top = icon.top.unwrap_or(0.0);
        let width = icon.width.unwrap_or(self.width);
        let height = icon.height.unwrap_or(self.height);
        let body = if h_flip || v_flip {
            let (scale_x, shift_x) = flip(h_flip, left, width);
            let (scale_y, shift_y) = flip(v_flip, top, height);
            format!(
                r#"<g transform="translate({shift_x} {shift_y}) scale({scale_x} {scale_y})">{}</g>"#,
                icon.body
            )
        } else {
            icon.body.clone()
        };
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width}" height="{height}" viewBox="{left} {top} {width} {height}">{body}</svg>"#
        )
    }
}

fn flip(flipped: bool, start: f32, extent: f32) -> (f32, f32) {
    if flipped {
        (-1.0, 2.0 * start + extent)
    } else {
        (1.0, 0.0)
    }
}

/// The WebP files of the three-dimensional set, by hexcode without `fe0f`.
#[derive(Debug)]
pub struct RasterSet {
    files: HashMap<String, PathBuf>,
}

impl RasterSet {
    pub fn open(package: &Package) -> Result<Self, StickerError> {
        let folder = package.path.join("assets");
        let mut files = HashMap::new();
        for entry in std::fs::read_dir(&folder).map_err(StickerError::io(&folder))? {
            let path = entry.map_err(StickerError::io(&folder))?.path();
            if path.extension().is_some_and(|e| e == "webp")
                && let Some(stem) = path.file_stem()
            {
                files.insert(hexcode(&stem.to_string_lossy()), path);
            }
        }
        Ok(Self { files })
    }

    pub fn file(&self, hexcode: &str) -> Option<&Path> {
        self.files.get(hexcode).map(PathBuf::as_path)
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StickerError> {
    let bytes = std::fs::read(path).map_err(StickerError::io(path))?;
    serde_json::from_slice(&bytes).map_err(|source| StickerError::Json {
        path: path.to_path_buf(),
        source,
    })
}
