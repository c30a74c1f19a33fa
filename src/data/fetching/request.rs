//! One question to one host, and what its answer means.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};
use url::Url;

use super::address::{PrivateAddress, PublicResolver};
use super::task::{Failure, WhatNext};
use super::{FetchOptions, PrivateNetworks};
use crate::data::loading::addresses;
use crate::data::loading::table::time;

/// The name that hosts see in their logs.
const USER_AGENT: &str = concat!("ragar/", env!("CARGO_PKG_VERSION"), " (data pictures)");
const ACCEPTED: &str =
    "image/png, image/jpeg, image/webp, image/gif, image/bmp;q=0.9, image/*;q=0.1";

/// The client that all workers share; it follows nothing by itself.
pub fn agent(options: &FetchOptions) -> Agent {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        // Each hop is looked at here.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(USER_AGENT)
        .accept(ACCEPTED)
        // Pictures are compressed already, and a compressed answer may be a bomb.
        .accept_encoding("identity")
        .timeout_resolve(Some(options.timeout))
        .timeout_connect(Some(options.timeout))
        .timeout_recv_response(Some(options.timeout))
        .timeout_per_read(Some(options.timeout))
        .timeout_recv_body(Some(options.longest))
        .max_idle_connections_per_host(options.parallel);
    // A proxy would look names up itself, unseen by the resolver here.
    if options.private != PrivateNetworks::All {
        config = config.proxy(None);
    }
    Agent::with_parts(
        config.build(),
        DefaultConnector::default(),
        PublicResolver::new(options.private.clone()),
    )
}

/// What is there of a picture, and how the host called it.
#[derive(Debug, Clone)]
pub struct Begun {
    pub num_bytes: u64,
    /// A strong entity tag or a date, for If-Range.
    pub validator: String,
}

/// What a host answers.
pub enum Answer {
    Redirect(Url),
    /// The picture from `start` on.
    Content {
        response: Response<Body>,
        start: u64,
        validator: Option<String>,
    },
    /// What was begun does not fit any more.
    StartOver,
}

/// Asks for `url`, from the end of what was begun.
pub fn ask(agent: &Agent, url: &Url, begun: Option<&Begun>) -> Result<Answer, Failure> {
    let mut request = agent.get(url.as_str());
    if let Some(begun) = begun {
        request = request
            .header("Range", format!("bytes={}-", begun.num_bytes))
            .header("If-Range", &begun.validator);
    }
    let response = request.call().map_err(|error| failure_of(&error))?;
    let headers = response.headers();
    let status = response.status();
    match status.as_u16() {
        200 | 206 => {
            let encoding = text_of(headers, "content-encoding");
            if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
                return Err(Failure::for_good(format!(
                    "the host answers in {encoding}, which was not asked for"
                )));
            }
            let start = match (status.as_u16(), begun) {
                (200, _) => 0,
                (_, Some(begun)) if range_start(headers) == Some(begun.num_bytes) => {
                    begun.num_bytes
                }
                // A part that nobody asked for, or another one.
                _ => return Ok(Answer::StartOver),
            };
            let validator = validator(headers);
            Ok(Answer::Content {
                response,
                start,
                validator,
            })
        }
        301 | 302 | 303 | 307 | 308 => {
            let place = text_of(headers, "location");
            if place.is_empty() {
                return Err(Failure::for_good(format!("{status}, and no place to go")));
            }
            let joined = url
                .join(place)
                .map_err(|error| Failure::for_good(format!("a redirect to {place:?}: {error}")))?;
            let next = addresses::parse(joined.as_str())
                .map_err(|reason| Failure::for_good(format!("a redirect: {reason}")))?;
            Ok(Answer::Redirect(next))
        }
        416 if begun.is_some() => Ok(Answer::StartOver),
        429 | 503 => Err(Failure {
            reason: said(status),
            what_next: WhatNext::LeaveHost(retry_after(text_of(headers, "retry-after"))),
        }),
        408 | 425 | 500 | 502 | 504 | 520..=530 => Err(Failure::passing(said(status))),
        _ => Err(Failure::for_good(said(status))),
    }
}

fn said(status: StatusCode) -> String {
    format!("the host says {status}")
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().trim()
}

/// `bytes 100-199/200` starts at 100.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = text_of(headers, "content-range").strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
}

/// What tells this picture from a later one at the same address; weak tags cannot.
fn validator(headers: &HeaderMap) -> Option<String> {
    let tag = text_of(headers, "etag");
    if tag.starts_with('"') {
        return Some(tag.to_string());
    }
    let date = text_of(headers, "last-modified");
    (!date.is_empty()).then(|| date.to_string())
}

/// Seconds, or a date such as `Wed, 21 Oct 2015 07:28:00 GMT`.
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, clock, "GMT"] = fields[..] else {
        return None;
    };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let then = time::read(&format!("{year}-{month:02}-{day}T{clock}"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(Duration::from_secs(u64::try_from(then).ok()?).saturating_sub(now))
}

/// Which failures of the transport may pass.
fn failure_of(error: &ureq::Error) -> Failure {
    use ureq::Error;
    match error {
        Error::Other(inner) if inner.is::<PrivateAddress>() => Failure::for_good(inner),
        Error::BadUri(_) | Error::Http(_) | Error::RequireHttpsOnly(_) => Failure::for_good(error),
        // A name that is not found today may be mistyped; networks that are down say the same.
        _ => Failure::passing(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_seconds_or_dates() {
        assert_eq!(retry_after("120"), Some(Duration::from_secs(120)));
        assert_eq!(
            retry_after("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::ZERO)
        );
        let far = retry_after("Fri, 01 Jan 2100 00:00:00 GMT").expect("a wait");
        assert!(far > Duration::from_secs(1_000_000_000), "{far:?}");
        for text in ["", "soon", "-1", "Wed, 41 Oct 2015 07:28:00 GMT"] {
            assert_eq!(retry_after(text), None, "{text:?}");
        }
    }
}
