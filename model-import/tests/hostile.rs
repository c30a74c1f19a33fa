//! Thousands of damaged copies of real files, and files made to harm: no panic, nothing run, and no more
//! memory than the file deserves.
//!
//! The damage is drawn from a fixed seed, so that a failure names a case that can be run again.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use model_import::{Checkpoint, ImportError};
use support::file;

/// Damaged copies of each file.
const CASES: u64 = 500;
const FILES: [&str; 10] = [
    "clip.safetensors",
    "clip.fp16.safetensors",
    "clip.bin",
    "clip.legacy.bin",
    "views.pt",
    "views.legacy.pt",
    "training.ckpt",
    "calls.pt",
    "llama.q8_0.gguf",
    "blocks.gguf",
];
#[cfg(feature = "onnx")]
const GRAPHS: [&str; 3] = ["picture.onnx", "picture.dynamo.onnx", "typed.onnx"];
#[cfg(not(feature = "onnx"))]
const GRAPHS: [&str; 0] = [];
/// An object of a pickle takes up to 40 times its bytes, and every path some buffers.
const MEMORY_PER_BYTE: usize = 64;
const MEMORY_AT_ALL: usize = 1 << 20;
/// The parser of graphs reserves this before it sees that a list is shorter.
const MEMORY_OF_GRAPHS: usize = 100 << 20;

/// The system's memory, counted.
struct Counted;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// The count is of the whole process: one test at a time.
static ONE: Mutex<()> = Mutex::new(());

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static MEMORY: Counted = Counted;

/// Opens a file and reads all of it; the most memory that took.
fn read(path: &Path) -> (Result<usize, ImportError>, usize) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = Checkpoint::open(path).and_then(|checkpoint| {
        for name in checkpoint.names() {
            checkpoint.tensor(name)?;
        }
        Ok(checkpoint.len())
    });
    (result, PEAK.load(Ordering::Relaxed) - before)
}

/// Numbers from a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }

    /// A place, rather near one of the ends, where headers and tables stand.
    fn place(&mut self, length: usize) -> usize {
        match self.below(4) {
            0 => self.below(length),
            1 => length - 1 - self.below(length.min(1500)),
            _ => self.below(length.min(1500)),
        }
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            if bytes.is_empty() {
                return;
            }
            let place = self.place(bytes.len());
            match self.below(7) {
                0 => bytes.truncate(place),
                1 => bytes[place] ^= 1 << self.below(8),
                2 => bytes[place] = self.below(256) as u8,
                3 => {
                    let extreme = [
                        u64::MAX,
                        0,
                        1 << 63,
                        u64::from(u32::MAX),
                        1 << 32,
                        i64::MAX as u64,
                    ][self.below(6)];
                    let width = [1, 2, 4, 8][self.below(4)].min(bytes.len() - place);
                    bytes[place..place + width].copy_from_slice(&extreme.to_le_bytes()[..width]);
                }
                4 => {
                    let end = (place + self.below(64)).min(bytes.len());
                    let copy = bytes[place..end].to_vec();
                    let to = self.place(bytes.len());
                    bytes.splice(to..to, copy);
                }
                5 => {
                    let end = (place + self.below(64)).min(bytes.len());
                    bytes.drain(place..end);
                }
                _ => {
                    let other = self.place(bytes.len());
                    bytes.swap(place, other);
                }
            }
        }
    }
}

#[test]
fn damaged_copies_of_real_files_do_no_harm() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let folder = tempfile::tempdir().expect("a folder");
    let (mut cases, mut refused) = (0, 0);
    for name in FILES.iter().chain(&GRAPHS) {
        let whole = std::fs::read(file(name)).expect("a file");
        let path = folder.path().join(name);
        for case in 1..=CASES {
            let mut bytes = whole.clone();
            Dice(case.wrapping_mul(0x9E37_79B9_7F4A_7C15)).damage(&mut bytes);
            std::fs::write(&path, &bytes).expect("a file");
            let Ok((result, memory)) = catch_unwind(AssertUnwindSafe(|| read(&path))) else {
                panic!("{name}, case {case}: a panic");
            };
            let more = if name.ends_with(".onnx") {
                MEMORY_OF_GRAPHS
            } else {
                0
            };
            let limit = MEMORY_AT_ALL + MEMORY_PER_BYTE * bytes.len() + more;
            assert!(
                memory <= limit,
                "{name}, case {case}: {memory} bytes of memory for a file of {}",
                bytes.len()
            );
            if let Err(error) = result {
                assert!(
                    error.to_string().contains(name),
                    "{name}, case {case}: {error}"
                );
                refused += 1;
            }
            cases += 1;
        }
    }
    println!("{cases} damaged files, {refused} of them refused");
}

/// A file of pickles in a row with this one where the tensors are described.
fn row(pickle: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e".to_vec();
    bytes.extend_from_slice(b"\x80\x02M\xe9\x03.\x80\x02}.");
    bytes.extend_from_slice(pickle);
    bytes.extend_from_slice(b"\x80\x02].");
    bytes
}

#[test]
fn pickles_made_to_harm_are_refused() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    // Each list holds the one before twice: 2^12 tensors, were there one, and so on for every level more.
    let mut doubled = b"}q\xffX\x01\0\0\0a]q\x00".to_vec();
    for level in 0..12u8 {
        let list = [b']', b'(', b'h', level, b'h', level, b'e', b'q', level + 1];
        doubled.extend_from_slice(&list);
    }
    doubled.extend_from_slice(b"0h\xffX\x01\0\0\0ah\x0cs.");
    let deep = [
        b"}X\x01\0\0\0a".as_slice(),
        &b"]".repeat(100_000),
        &b"a".repeat(99_999),
        b"s.",
    ]
    .concat();
    let cases: [(&[u8], &str); 9] = [
        (&doubled, "same collection"),
        (&deep, "nested too deep"),
        (b"X\xff\xff\xff\xff.", "ends in the middle"),
        (b"\x8b\xff\xff\xff\x7f.", "ends in the middle"),
        (b"h\x05.", "before it is there"),
        (b"(ios\nsystem\n.", "`os.system`"),
        (b"cposix\nsystem\nX\x04\0\0\0true\x85R.", "`posix.system`"),
        (b"c__builtin__\neval\n)\x81.", "`__builtin__.eval`"),
        (b"t.", "lacks its mark"),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("harm.pt");
    for (pickle, part) in cases {
        let bytes = row(pickle);
        std::fs::write(&path, &bytes).expect("a file");
        let (result, memory) = read(&path);
        let text = result.expect_err("a refusal").to_string();
        assert!(
            text.contains(part) && text.contains("harm.pt"),
            "{part} in {text}"
        );
        assert!(
            memory <= MEMORY_AT_ALL + MEMORY_PER_BYTE * bytes.len(),
            "{part}: {memory}"
        );
    }
}
