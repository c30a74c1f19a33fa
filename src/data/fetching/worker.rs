//! Brings one picture: asks, follows, writes aside, looks whether it is one, and puts it into place.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use ureq::http::Response;
use ureq::{Agent, Body};

use super::FetchOptions;
use super::hosts::Hosts;
use super::request::{Answer, Begun, ask};
use super::task::{Failure, Task, WhatNext, host_of};
use crate::data::image::{ImageLimits, decode};
use crate::optimisation::Interrupt;

/// Where unfinished pictures lie, in the folder.
pub const ASIDE: &str = ".pictures";

/// What all workers share.
pub struct Workshop {
    pub options: FetchOptions,
    pub limits: ImageLimits,
    pub agent: Agent,
    pub hosts: Mutex<Hosts>,
    pub interrupt: Interrupt,
    /// The folder, without links in its path.
    pub real_root: PathBuf,
}

/// Beside an unfinished picture: of which address it is, and how the host called it.
#[derive(Serialize, Deserialize)]
struct Note {
    url: String,
    validator: String,
}

impl Workshop {
    /// Bytes of the picture that is in place now.
    pub fn bring(&self, task: &Task) -> Result<u64, Failure> {
        let deadline = Instant::now() + self.options.longest;
        self.prepare_target(task)?;
        let part = self.aside(task, "part");
        let mut num_bytes = None;
        // Once more from the start, where what was begun does not fit.
        for _ in 0..2 {
            let begun = self.begun(task);
            if let Some((response, start, validator)) = self.follow(task, begun.as_ref())? {
                self.write(task, response, start, validator, deadline)?;
                num_bytes = Some(());
                break;
            }
            self.forget(task);
        }
        if num_bytes.is_none() {
            return Err(Failure::passing("the host sends parts that do not fit"));
        }
        let picture = decode(&part, &self.limits);
        if let Err(error) = picture {
            self.forget(task);
            return Err(Failure::for_good(error.reason()));
        }
        let failed = |error| Failure::for_good(format!("cannot be written: {error}"));
        let size = std::fs::metadata(&part).map_err(failed)?.len();
        std::fs::rename(&part, &task.target).map_err(failed)?;
        self.forget(task);
        Ok(size)
    }

    /// Makes the folder of the picture, which no link may lead elsewhere.
    fn prepare_target(&self, task: &Task) -> Result<(), Failure> {
        let failed = |error| Failure::for_good(format!("cannot be written: {error}"));
        let folder = task.target.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(failed)?;
        let real = folder.canonicalize().map_err(failed)?;
        if real.starts_with(&self.real_root) {
            Ok(())
        } else {
            Err(Failure::for_good(
                "its folder is a link out of the data folder",
            ))
        }
    }

    fn aside(&self, task: &Task, ending: &str) -> PathBuf {
        let name = Sha256::digest(task.image.as_bytes());
        let name = format!("{name:.24x}.{ending}");
        self.real_root.join(ASIDE).join(name)
    }

    /// What an earlier try left, if it is of this address and can go on.
    fn begun(&self, task: &Task) -> Option<Begun> {
        let note = std::fs::read(self.aside(task, "note")).ok()?;
        let note: Note = serde_json::from_slice(&note).ok()?;
        let num_bytes = std::fs::metadata(self.aside(task, "part")).ok()?.len();
        let goes_on = note.url == task.url.as_str() && num_bytes > 0;
        goes_on.then_some(Begun {
            num_bytes,
            validator: note.validator,
        })
    }

    fn forget(&self, task: &Task) {
        // What is not there need not be removed.
        let _ = std::fs::remove_file(self.aside(task, "part"));
        let _ = std::fs::remove_file(self.aside(task, "note"));
    }

    /// Follows redirects to the picture; None when what was begun does not fit.
    fn follow(
        &self,
        task: &Task,
        begun: Option<&Begun>,
    ) -> Result<Option<(Response<Body>, u64, Option<String>)>, Failure> {
        let mut url = task.url.clone();
        for _ in 0..=self.options.max_redirects {
            // The host that answers may be another than the one in line.
            let host = host_of(&url);
            let answer = ask(&self.agent, &url, begun).inspect_err(|failure| {
                if let WhatNext::LeaveHost(wait) = failure.what_next {
                    self.hold(host, wait);
                }
            })?;
            match answer {
                Answer::Content {
                    response,
                    start,
                    validator,
                } => return Ok(Some((response, start, validator))),
                Answer::StartOver => return Ok(None),
                Answer::Redirect(next) => {
                    url = next;
                    let now = Instant::now();
                    let turn = lock(&self.hosts).reserve(host_of(&url), now);
                    if turn.saturating_duration_since(now) > self.options.longest_wait {
                        return Err(Failure::passing("a redirect to a host that asks to wait"));
                    }
                    self.sleep_until(turn)?;
                }
            }
        }
        let reason = format!("more than {} redirects", self.options.max_redirects);
        Err(Failure::for_good(reason))
    }

    fn hold(&self, host: String, wait: Option<Duration>) {
        let now = Instant::now();
        let wait = wait.unwrap_or(self.options.first_wait);
        let until = now + wait.min(self.options.longest_wait);
        lock(&self.hosts).hold(host, until, now);
    }

    /// Waits, unless the run is being stopped.
    pub fn sleep_until(&self, time: Instant) -> Result<(), Failure> {
        loop {
            if self.interrupt.is_raised() {
                return Err(Failure::stopped());
            }
            let left = time.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    /// Writes the answer behind what is there. What was written stays when the answer breaks off.
    fn write(
        &self,
        task: &Task,
        mut response: Response<Body>,
        start: u64,
        validator: Option<String>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let most = self.limits.max_file_bytes;
        let promised = response.body().content_length();
        let too_large = |size: u64| {
            self.forget(task);
            Failure::for_good(format!("{size} bytes, at most {most} are allowed"))
        };
        if let Some(size) = promised.filter(|size| start + size > most) {
            return Err(too_large(start + size));
        }
        let failed = |error| Failure::for_good(format!("cannot be written: {error}"));
        let part = self.aside(task, "part");
        let mut file = if start > 0 {
            OpenOptions::new()
                .append(true)
                .open(&part)
                .map_err(failed)?
        } else {
            self.forget(task);
            File::create(&part).map_err(failed)?
        };
        if let Some(validator) = validator.filter(|_| start == 0) {
            let note = Note {
                url: task.url.to_string(),
                validator,
            };
            let note = serde_json::to_vec(&note).unwrap_or_default();
            std::fs::write(self.aside(task, "note"), note).map_err(failed)?;
        }
        let mut num_written = 0u64;
        let mut piece = vec![0; 1 << 16];
        let mut reader = response.body_mut().as_reader();
        loop {
            if self.interrupt.is_raised() {
                return Err(Failure::stopped());
            }
            if Instant::now() > deadline {
                let reason = format!("took longer than {} s", self.options.longest.as_secs());
                return Err(Failure::passing(reason));
            }
            let count = reader
                .read(&mut piece)
                .map_err(|error| self.broken_off(task, &error))?;
            if count == 0 {
                break;
            }
            num_written += count as u64;
            if start + num_written > most {
                return Err(too_large(start + num_written));
            }
            file.write_all(&piece[..count]).map_err(failed)?;
        }
        if promised.is_some_and(|size| size != num_written) {
            return Err(Failure::passing("the answer is shorter than it says"));
        }
        file.sync_all().map_err(failed)
    }

    /// Why reading ended: a connection may hold next time; a host that packs unasked will do so again.
    fn broken_off(&self, task: &Task, error: &std::io::Error) -> Failure {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        let Some(ureq::Error::Decompress(encoding, _)) = cause else {
            return Failure::passing(format!("the answer broke off: {error}"));
        };
        self.forget(task);
        Failure::for_good(format!(
            "the host answers in {encoding}, which was not asked for: {error}"
        ))
    }
}

/// The data behind a lock; a worker that panicked left it whole, since it changes in single steps.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
