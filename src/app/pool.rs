//! The threads that compute.

/// Of the threads' stack: as much as a program's first thread usually has.
const STACK: usize = 8 << 20;

/// Runs `work` on one of the threads that compute, of which there are `threads`, or as many as `RAYON_NUM_THREADS` or the
/// processor says.
///
/// From outside, every kernel that shares its work out is handed to the pool and waited for: a small network is hundreds of
/// them, and a fifth of its time goes there (`docs/performance.md`).
///
/// `work` must not wait for a thread of its own making that computes: in a pool of one, that thread would wait for `work`.
pub fn in_pool<R: Send>(threads: Option<usize>, work: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().stack_size(STACK);
    // Zero is what the environment or the processor says. An error says that there is a pool already.
    let _ = pool.num_threads(threads.unwrap_or(0)).build_global();
    rayon::scope(|_| work())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_on_a_thread_of_the_pool() {
        assert_eq!(rayon::current_thread_index(), None);
        assert!(in_pool(None, rayon::current_thread_index).is_some());
    }
}
