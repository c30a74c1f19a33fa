//! Picture addresses as data sets write them.

use url::Url;

/// What data sets write where there is nothing.
const NOTHING: [&str; 7] = ["", "null", "none", "nan", "n/a", "-", "\\n"];

/// Whether a value says that there is no picture.
pub fn is_nothing(text: &str) -> bool {
    let text = text.trim();
    NOTHING.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Whether a value is an address rather than a file.
pub fn is_address(text: &str) -> bool {
    let text = text.trim();
    text.starts_with("//") || text.contains("://")
}

/// The full address; a missing scheme becomes `https`. None where there is none.
///
/// # Errors
/// Why it is no web address.
pub fn complete(text: &str) -> Result<Option<String>, String> {
    let text = text.trim();
    if is_nothing(text) {
        return Ok(None);
    }
    let full = if text.starts_with("//") {
        format!("https:{text}")
    } else if text.contains("://") {
        text.to_string()
    } else {
        format!("https://{text}")
    };
    let url = parse(&full)?;
    Ok(Some(url.to_string()))
}

/// A web address without user and password.
///
/// # Errors
/// Why it is none.
pub fn parse(text: &str) -> Result<Url, String> {
    let refused = |reason: &str| format!("{text:?} is no web address: {reason}");
    let mut url = Url::parse(text).map_err(|error| refused(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("only http and https are"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refused("it names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("it holds a user name or password"));
    }
    url.set_fragment(None);
    Ok(url)
}
