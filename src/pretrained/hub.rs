//! Repositories of the hub, fetched once into the cache that all of the hub's libraries share.
//!
//! `HF_HOME` (or `HF_HUB_CACHE`) says where the cache is, `HF_ENDPOINT` which hub, `HF_TOKEN` (or the file that logging
//! in leaves) who asks.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use sha2::{Digest, Sha256};

use super::hub_files::{NoWeights, needed};

/// A download that neither grows nor ends for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Dropped connections in a row before a file is given up; each goes on where the last one stopped.
const RETRIES: usize = 8;

/// A repository that cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Not `owner/name`.
    #[error("`{0}` is no repository: write owner/name, such as openai/clip-vit-large-patch14")]
    Name(String),
    /// A revision that cannot stand in an address.
    #[error("`{0}` is no revision: write a branch, a tag or a commit")]
    Revision(String),
    /// There is neither a home folder nor a variable that names the cache.
    #[error("no home folder to keep fetched models in: set HF_HOME to a folder")]
    NoCache,
    /// The hub does not let this user in.
    #[error(
        "{repo}: the hub refuses ({status}): accept the licence on the repository's page, then set HF_TOKEN to a token of yours"
    )]
    Refused {
        /// The repository.
        repo: String,
        /// The hub's answer.
        status: u16,
    },
    /// Nothing of that name.
    #[error(
        "{repo}: the hub has no such repository, revision {revision} or file (404); a private one needs HF_TOKEN"
    )]
    Missing {
        /// The repository.
        repo: String,
        /// The revision asked for.
        revision: String,
    },
    /// The repository holds nothing to load.
    #[error("{repo}: {source}")]
    NoWeights {
        /// The repository.
        repo: String,
        /// What is there.
        source: NoWeights,
    },
    /// A file name that would leave the cache.
    #[error("{repo}: the hub lists a file called `{file}`, which is not a plain path: not fetched")]
    UnsafeName {
        /// The repository.
        repo: String,
        /// The name.
        file: String,
    },
    /// The connection is there but nothing comes.
    #[error(
        "{repo}/{file}: nothing came for {seconds} seconds: run the same command again to go on"
    )]
    Stalled {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// How long nothing came.
        seconds: u64,
    },
    /// What came is not what the hub promised.
    #[error(
        "{repo}/{file}: what came is damaged ({reason}) and was removed: run the same command again"
    )]
    Damaged {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// How it was noticed.
        reason: String,
    },
    /// Anything else between here and there.
    #[error(
        "{repo}/{file}: {source}; what came so far is kept: run the same command again to go on"
    )]
    Transfer {
        /// The repository.
        repo: String,
        /// The file, or nothing while the files are listed.
        file: String,
        /// Why.
        source: ApiError,
    },
}

/// What happens while files are fetched.
pub trait FetchProgress {
    /// File `name`, number `index` of `count`, has `size` bytes.
    fn begin(&self, name: &str, index: usize, count: usize, size: u64);
    /// So many bytes of it are here.
    fn advance(&self, bytes: u64);
}

/// A fetched repository.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Its folder in the cache.
    pub folder: PathBuf,
    /// The commit that the revision stands for.
    pub commit: String,
    /// The files that loading it needs.
    pub files: Vec<String>,
    /// Those that were not there before.
    pub num_new: usize,
}

/// Fetches what is needed of `repo` (`owner/name`) at `revision`; `variant` prefers weights such as `fp16`.
///
/// # Errors
/// When there is no such repository, it holds no weights, or the transfer fails; running it again goes on.
pub fn fetch(
    repo: &str,
    revision: &str,
    variant: Option<&str>,
    progress: &dyn FetchProgress,
) -> Result<Fetched, HubError> {
    check_name(repo)?;
    if revision.is_empty() || revision.contains("..") || revision.contains(['?', '#', ' ', '\\']) {
        return Err(HubError::Revision(revision.into()));
    }
    let cache = cache().ok_or(HubError::NoCache)?;
    let here = Repo::with_revision(repo.into(), RepoType::Model, revision.into());
    let wrong = |file: &str, source: ApiError| transfer(repo, revision, file, source);
    let api = api(cache.clone()).map_err(|source| wrong("", source))?;
    let listed = api.repo(here.clone()).info();
    let listed = listed.map_err(|source| wrong("", source))?;
    let names: Vec<String> = listed
        .siblings
        .into_iter()
        .map(|file| file.rfilename)
        .collect();
    let files = needed(&names, variant).map_err(|source| HubError::NoWeights {
        repo: repo.into(),
        source,
    })?;
    if let Some(file) = files.iter().find(|file| !is_plain(file)) {
        return Err(HubError::UnsafeName {
            repo: repo.into(),
            file: file.clone(),
        });
    }
    // All files of one commit, even if the branch moves while they come.
    let commit = listed.sha;
    let pinned = Repo::with_revision(repo.into(), RepoType::Model, commit.clone());
    let folder = cache.repo(pinned.clone()).pointer_path(&commit);
    let mut num_new = 0;
    for (index, file) in files.iter().enumerate() {
        if folder.join(file).exists() {
            continue;
        }
        num_new += 1;
        let begin = |size| progress.begin(file, index, files.len(), size);
        download(&api, &pinned, repo, file, &begin, progress)?;
    }
    let kept = cache.repo(here).create_ref(&commit);
    kept.map_err(|source| wrong("", source.into()))?;
    Ok(Fetched {
        folder,
        commit,
        files,
        num_new,
    })
}

/// The folder that `path` means: itself where it exists, or the fetched repository of that name.
pub fn located(path: &Path) -> PathBuf {
    let cached = || {
        let name = path.to_str()?;
        check_name(name).ok()?;
        let repo = cache()?.repo(Repo::model(name.into()));
        // Any file tells where the snapshot is.
        let known = ["config.json", "model_index.json", "adapter_config.json"];
        let file = known.iter().find_map(|file| repo.get(file))?;
        file.parent().map(Path::to_path_buf)
    };
    match path.exists() {
        true => path.into(),
        false => cached().unwrap_or_else(|| path.into()),
    }
}

/// Is `path`, which does not exist, the name of a repository that could be fetched?
pub fn is_repository_name(path: &Path) -> bool {
    !path.exists() && path.to_str().is_some_and(|name| check_name(name).is_ok())
}

fn check_name(repo: &str) -> Result<(), HubError> {
    let is_part = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(plain)
    };
    match repo.split_once('/') {
        Some((owner, name)) if is_part(owner) && is_part(name) => Ok(()),
        _ => Err(HubError::Name(repo.into())),
    }
}

/// Forward components only.
fn is_plain(file: &str) -> bool {
    let parts = file.split('/');
    parts
        .into_iter()
        .all(|part| !part.is_empty() && !part.starts_with('.') && !part.contains('\\'))
}

fn cache() -> Option<Cache> {
    let variable = |key: &str| {
        std::env::var_os(key)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let home = || {
        let cache =
            variable("XDG_CACHE_HOME").or_else(|| Some(dirs::home_dir()?.join(".cache")))?;
        Some(cache.join("huggingface"))
    };
    let folder = variable("HF_HUB_CACHE")
        .or_else(|| Some(variable("HF_HOME").or_else(home)?.join("hub")))?;
    Some(Cache::new(folder))
}

fn api(cache: Cache) -> Result<Api, ApiError> {
    let token = std::env::var("HF_TOKEN")
        .ok()
        .filter(|token| !token.trim().is_empty());
    let token = token
        .map(|token| token.trim().to_string())
        .or_else(|| cache.token());
    let mut builder = ApiBuilder::from_cache(cache)
        .with_token(token)
        .with_progress(false)
        .with_retries(RETRIES)
        .with_user_agent("ragar", env!("CARGO_PKG_VERSION"));
    if let Ok(endpoint) = std::env::var("HF_ENDPOINT") {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').into());
    }
    builder.build()
}

/// What a download in its thread tells the one that waits.
enum Event {
    Size(u64),
    Bytes(u64),
    Done(Result<PathBuf, ApiError>),
}

struct Reporter(Sender<Event>);

impl hf_hub::api::Progress for Reporter {
    fn init(&mut self, size: usize, _: &str) {
        // Nobody listens any more once the download was given up.
        let _ = self.0.send(Event::Size(size as u64));
    }
    fn update(&mut self, size: usize) {
        let _ = self.0.send(Event::Bytes(size as u64));
    }
    fn finish(&mut self) {}
}

/// Fetches one file and holds it against the digest by which the hub knows it; a damaged one is fetched once more.
fn download(
    api: &Api,
    pinned: &Repo,
    repo: &str,
    file: &str,
    begin: &dyn Fn(u64),
    progress: &dyn FetchProgress,
) -> Result<(), HubError> {
    let mut attempt = 0;
    loop {
        let (sender, events) = channel();
        let remote: ApiRepo = api.repo(pinned.clone());
        let name = file.to_string();
        // In a thread of its own: the library waits forever for a server that says nothing.
        std::thread::spawn(move || {
            let reporter = Reporter(sender.clone());
            let done = remote.download_with_progress(&name, reporter);
            let _ = sender.send(Event::Done(done));
        });
        let (path, size) = wait(&events, begin, progress).map_err(|stopped| match stopped {
            Stopped::Silent => HubError::Stalled {
                repo: repo.into(),
                file: file.into(),
                seconds: PATIENCE.as_secs(),
            },
            Stopped::Failed(source) => transfer(repo, pinned.revision(), file, source),
        })?;
        let Err(reason) = verify(&path, size) else {
            return Ok(());
        };
        if let Ok(blob) = path.canonicalize() {
            let _ = std::fs::remove_file(blob);
        }
        let _ = std::fs::remove_file(&path);
        attempt += 1;
        if attempt > 1 {
            return Err(HubError::Damaged {
                repo: repo.into(),
                file: file.into(),
                reason,
            });
        }
    }
}

enum Stopped {
    Silent,
    Failed(ApiError),
}

fn wait(
    events: &Receiver<Event>,
    begin: &dyn Fn(u64),
    progress: &dyn FetchProgress,
) -> Result<(PathBuf, u64), Stopped> {
    let (mut total, mut here) = (0, 0);
    loop {
        match events.recv_timeout(PATIENCE) {
            Ok(Event::Size(size)) => {
                // Said again after every dropped connection.
                if total == 0 {
                    begin(size);
                }
                (total, here) = (size, 0);
            }
            Ok(Event::Bytes(bytes)) => {
                here += bytes;
                progress.advance(here);
            }
            Ok(Event::Done(Ok(path))) => return Ok((path, total)),
            Ok(Event::Done(Err(error))) => return Err(Stopped::Failed(error)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(Stopped::Silent);
            }
        }
    }
}

/// Size, and for large files SHA-256, which is then the file's name among the blobs.
fn verify(path: &Path, size: u64) -> Result<(), String> {
    let found = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if found != size {
        return Err(format!("{found} bytes of {size}"));
    }
    let blob = path.canonicalize().map_err(|error| error.to_string())?;
    let name = blob
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    if name.len() != 64 || !name.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(());
    }
    let mut digest = Sha256::new();
    let mut file = std::fs::File::open(&blob).map_err(|error| error.to_string())?;
    std::io::copy(&mut file, &mut digest).map_err(|error| error.to_string())?;
    let digest = format!("{:x}", digest.finalize());
    match digest == name.to_lowercase() {
        true => Ok(()),
        false => Err(format!("SHA-256 {digest}, promised was {name}")),
    }
}

fn transfer(repo: &str, revision: &str, file: &str, source: ApiError) -> HubError {
    let status = match &source {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        _ => None,
    };
    let repo = repo.to_string();
    match status {
        Some(status @ (401 | 403)) => HubError::Refused { repo, status },
        Some(404) => HubError::Missing {
            repo,
            revision: revision.into(),
        },
        _ => HubError::Transfer {
            repo,
            file: file.into(),
            source,
        },
    }
}
