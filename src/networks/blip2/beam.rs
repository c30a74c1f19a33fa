//! The bookkeeping of beam search, on the host: transformers' `_beam_search` (5.x), step by step.

use super::generate::{CaptionOptions, EarlyStopping};

/// Added to scores that must not be chosen, as in the reference.
const NEVER: f32 = -1.0e9;

/// A text with its score.
#[derive(Debug, Clone)]
struct Beam {
    tokens: Vec<u32>,
    score: f32,
    finished: bool,
}

/// The beams of one image.
#[derive(Debug, Clone)]
struct Search {
    running: Vec<Beam>,
    finished: Vec<Beam>,
    improvable: bool,
}

/// The beams of a batch.
#[derive(Debug)]
pub(super) struct BeamSearch {
    searches: Vec<Search>,
    ends: Vec<u32>,
    num_beams: usize,
    max_new_tokens: usize,
    length_penalty: f64,
    early_stopping: EarlyStopping,
    num_new: usize,
    done: bool,
}

/// A continuation of one running beam.
struct Candidate {
    source: usize,
    token: u32,
    score: f32,
    ends: bool,
}

impl BeamSearch {
    pub(super) fn new(rows: usize, ends: &[u32], options: &CaptionOptions) -> Self {
        let empty = |score| Beam {
            tokens: Vec::new(),
            score,
            finished: false,
        };
        let num_beams = options.num_beams;
        let search = Search {
            // Only the first beam counts at the start: all of them are equal.
            running: (0..num_beams)
                .map(|beam| empty(if beam == 0 { 0.0 } else { NEVER }))
                .collect(),
            finished: vec![empty(NEVER); num_beams],
            improvable: true,
        };
        Self {
            searches: vec![search; rows],
            ends: ends.to_vec(),
            num_beams,
            max_new_tokens: options.max_new_tokens,
            length_penalty: options.length_penalty,
            early_stopping: options.early_stopping,
            num_new: 0,
            done: false,
        }
    }

    /// Takes the log-probabilities of the next token after each running beam (`[rows · beams, vocabulary]`, flat).
    /// Returns, for each running beam of the next step, the row it goes on from.
    pub(super) fn advance(&mut self, log_probabilities: &[f32]) -> Vec<usize> {
        let vocabulary = log_probabilities.len() / (self.searches.len() * self.num_beams);
        let kept = (1 + self.ends.len()).max(2) * self.num_beams;
        let last_step = self.num_new + 1 == self.max_new_tokens;
        let full_stop = self.early_stopping == EarlyStopping::Full;
        let length = (self.num_new + 1) as f64;
        let mut sources = Vec::with_capacity(self.searches.len() * self.num_beams);
        let mut all_end = true;
        for (row, search) in self.searches.iter_mut().enumerate() {
            let scores = &log_probabilities[row * self.num_beams * vocabulary..]
                [..self.num_beams * vocabulary];
            let candidates = search.best_continuations(scores, vocabulary, kept, |token| {
                last_step || self.ends.contains(&token)
            });
            all_end &= candidates.iter().all(|candidate| candidate.ends);

            let mut next: Vec<(f32, &Candidate)> = candidates
                .iter()
                .map(|candidate| {
                    (
                        candidate.score + if candidate.ends { NEVER } else { 0.0 },
                        candidate,
                    )
                })
                .collect();
            next.sort_by(|a, b| b.0.total_cmp(&a.0));
            next.truncate(self.num_beams);

            let is_full = full_stop && search.finished.iter().all(|beam| beam.finished);
            let mut merged = search.finished.clone();
            for (place, candidate) in candidates.iter().enumerate() {
                let finished = candidate.ends && place < self.num_beams;
                let mut score = candidate.score / length.powf(self.length_penalty) as f32;
                for forbidden in [is_full, !search.improvable, !finished] {
                    score += if forbidden { NEVER } else { 0.0 };
                }
                merged.push(Beam {
                    tokens: search.extended(candidate),
                    score,
                    finished,
                });
            }
            merged.sort_by(|a, b| b.score.total_cmp(&a.score));
            merged.truncate(self.num_beams);
            search.finished = merged;

            sources.extend(
                next.iter()
                    .map(|(_, candidate)| row * self.num_beams + candidate.source),
            );
            search.running = next
                .iter()
                .map(|(score, candidate)| Beam {
                    tokens: search.extended(candidate),
                    score: *score,
                    finished: false,
                })
                .collect();
        }
        self.num_new += 1;
        self.judge(all_end);
        sources
    }

    /// Whether any text can still improve.
    fn judge(&mut self, all_end: bool) {
        let length = match self.early_stopping {
            EarlyStopping::Never if self.length_penalty > 0.0 => self.max_new_tokens,
            _ => self.num_new,
        };
        let divisor = (length as f64).powf(self.length_penalty) as f32;
        for search in &mut self.searches {
            let best = search.running.first().map_or(NEVER, |beam| beam.score) / divisor;
            let worst = search
                .finished
                .iter()
                .map(|beam| beam.score)
                .fold(f32::INFINITY, f32::min);
            search.improvable &= search
                .finished
                .iter()
                .any(|beam| best > if beam.finished { worst } else { NEVER });
        }
        let improvable = self.searches.iter().any(|search| search.improvable);
        let all_full = self
            .searches
            .iter()
            .flat_map(|search| &search.finished)
            .all(|beam| beam.finished);
        let open = !(all_full && self.early_stopping == EarlyStopping::Full);
        self.done = !(improvable && open && !all_end);
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// The new tokens of every running beam, row by row.
    pub(super) fn running(&self) -> Vec<Vec<u32>> {
        self.searches
            .iter()
            .flat_map(|search| search.running.iter().map(|beam| beam.tokens.clone()))
            .collect()
    }

    /// The best finished text of each row, end token included.
    pub(super) fn best(&self) -> Vec<Vec<u32>> {
        self.searches
            .iter()
            .map(|search| search.finished[0].tokens.clone())
            .collect()
    }
}

impl Search {
    /// The `kept` best continuations over all running beams, best first.
    fn best_continuations(
        &self,
        log_probabilities: &[f32],
        vocabulary: usize,
        kept: usize,
        ends: impl Fn(u32) -> bool,
    ) -> Vec<Candidate> {
        let score =
            |place: usize| log_probabilities[place] + self.running[place / vocabulary].score;
        let mut places: Vec<usize> = (0..log_probabilities.len()).collect();
        let order = |a: &usize, b: &usize| score(*b).total_cmp(&score(*a)).then(a.cmp(b));
        if kept < places.len() {
            places.select_nth_unstable_by(kept, order);
            places.truncate(kept);
        }
        places.sort_unstable_by(order);
        places
            .into_iter()
            .map(|place| {
                let token = (place % vocabulary) as u32;
                Candidate {
                    source: place / vocabulary,
                    token,
                    score: score(place),
                    ends: ends(token),
                }
            })
            .collect()
    }

    fn extended(&self, candidate: &Candidate) -> Vec<u32> {
        let mut tokens = self.running[candidate.source].tokens.clone();
        tokens.push(candidate.token);
        tokens
    }
}
