//! What a sticker folder says of itself: how to read it, and whose drawings these are.

use super::packages::Package;

const README: &str = "\
# Stickers

The same glyphs in five art styles, 64×64 pixels on white, and invented users whose right answer is known.
Built by `ragar data stickers`; `manifest.json` records options, counts and package versions, and the same
options and packages give the same bytes. The drawings belong to their authors: see `LICENSES.md`.

| file | columns or keys |
|---|---|
| `items.csv` | `item_id`, `image`, `text` (label, group, two tags; no word on style) |
| `stickers.csv` | `item_id`, `glyph` (code points), `label`, `tags` (separated by `;`), `group`, `style`, `held_out` |
| `interactions.csv` | `user_id`, `item_id`, `timestamp`: every history, in order |
| `histories.jsonl` | `user`, `history` (oldest first), `reference`, `target`, `split` |
| `images/` | one picture an item |

Nothing held out may enter any training. Histories, references and the targets of training users are never held
out; the targets of validation and test users always are, and no target serves both.
";

const MIT_TERMS: &str = "\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the \"Software\"), to deal in the Software without restriction, including without limitation
the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to
permit persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of
the Software.

THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
";

const APACHE: &str = include_str!("apache-2.0.txt");

/// Whose work a package is.
fn attribution(name: &str) -> &'static str {
    match name {
        "emojibase-data" => "labels and tags: Emojibase, copyright (c) 2017-2019 Miles Johnson",
        "@iconify-json/fluent-emoji-flat" => {
            "style `flat`: Fluent Emoji, copyright (c) Microsoft Corporation, <https://github.com/microsoft/fluentui-emoji>"
        }
        "@lobehub/fluent-emoji-3d" => {
            "style `3d`: Fluent Emoji, copyright (c) Microsoft Corporation, <https://github.com/microsoft/fluentui-emoji>, packaged by LobeHub, copyright (c) 2023 LobeHub"
        }
        "@iconify-json/twemoji" => {
            "style `cartoon`: Twemoji, copyright (c) Twitter, Inc and other contributors, <https://github.com/jdecked/twemoji>"
        }
        "@iconify-json/noto" => {
            "style `shaded`: Noto Emoji, copyright (c) Google Inc, <https://github.com/googlefonts/noto-emoji>"
        }
        "@iconify-json/fxemoji" => {
            "style `retro`: Firefox OS Emoji, copyright (c) Mozilla, <https://github.com/mozilla/fxemoji>"
        }
        _ => "",
    }
}

fn licence_link(licence: &str) -> &'static str {
    match licence {
        "CC-BY-4.0" => "<https://creativecommons.org/licenses/by/4.0/>",
        "Apache-2.0" => "`LICENSE-APACHE-2.0.txt`",
        _ => "the terms below",
    }
}

/// The text files that accompany the data, by name.
pub(super) fn files(packages: &[Package]) -> Vec<(&'static str, String)> {
    let mut licences = String::from(
        "# Licences of the stickers\n\n\
         The pictures were changed from the originals: rasterised, cut to their visible part, scaled to 58 pixels and\n\
         centred on 64×64 white pixels. The authors do not endorse this use.\n\n\
         | package | version | whose | licence | terms |\n|---|---|---|---|---|\n",
    );
    for package in packages {
        let source = package.source;
        licences.push_str(&format!(
            "| `{}` | {} | {} | {} | {} |\n",
            source.name,
            package.version,
            attribution(source.name),
            source.licence,
            licence_link(source.licence)
        ));
    }
    licences.push_str("\n## MIT\n\n");
    licences.push_str(MIT_TERMS);
    vec![
        ("README.md", README.to_string()),
        ("LICENSES.md", licences),
        ("LICENSE-APACHE-2.0.txt", APACHE.to_string()),
    ]
}
