//! What a script may use up: instructions and bytes.
//!
//! Rune without its `std` feature asks its embedder for both budgets through the functions at the end. With the
//! feature, code that the library calls back (the closure of a `sort_by`, say) would run without any budget.
//!
//! Everything here runs in the program's one thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::{addr_of_mut, replace};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use rune::no_std::RawEnv;

use crate::exits;

/// Instructions taken from the budget at a time by the script's own code.
const SLICE: usize = 10_000;

/// What Rune's budget says for "none": the most there can be.
const UNLIMITED: usize = usize::MAX;

/// Answers the one call that comes before a slice begins; handed back when it ends.
const OUTERMOST: usize = usize::MAX - 1;

/// Bytes beyond the script's limit, for reporting that it was reached.
const MARGIN: usize = 1 << 20;

static FUEL: AtomicUsize = AtomicUsize::new(UNLIMITED);
static DEPTH: AtomicUsize = AtomicUsize::new(0);
static ANNOUNCED: AtomicBool = AtomicBool::new(false);
static STEPPING: AtomicBool = AtomicBool::new(false);
static STARVED: AtomicBool = AtomicBool::new(false);

static HELD_BY_SCRIPT: AtomicUsize = AtomicUsize::new(0);
static MOST_FOR_SCRIPT: AtomicUsize = AtomicUsize::new(UNLIMITED);
static REFUSED: AtomicBool = AtomicBool::new(false);

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(UNLIMITED);

/// Give the script so many instructions and no more.
pub fn set_fuel(instructions: usize) {
    FUEL.store(instructions.min(OUTERMOST - 1), Relaxed);
}

/// Let nothing hold more than so many bytes beyond what is held now.
pub fn set_memory(bytes: usize) {
    let now = HELD_BY_SCRIPT.load(Relaxed);
    MOST_FOR_SCRIPT.store(now.saturating_add(bytes), Relaxed);
    let now = HELD.load(Relaxed);
    MOST.store(now.saturating_add(bytes).saturating_add(MARGIN), Relaxed);
}

/// Whether the instructions are used up, or what a library function called back had used up its part.
pub fn out_of_fuel() -> bool {
    FUEL.load(Relaxed) == 0 || STARVED.load(Relaxed)
}

/// Whether memory was asked for and not given.
pub fn out_of_memory() -> bool {
    REFUSED.load(Relaxed)
}

/// Counts what the program holds, the compiler's own memory included, and ends it beyond the limit.
pub struct Counting;

impl Counting {
    fn take(bytes: usize) {
        if HELD.fetch_add(bytes, Relaxed).saturating_add(bytes) > MOST.load(Relaxed) {
            exits::at_once("out of memory: the limit is used up", exits::OUT_OF_MEMORY);
        }
    }
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::take(layout.size());
        System.alloc(layout)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::take(layout.size());
        System.alloc_zeroed(layout)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        System.dealloc(memory, layout);
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::take(size);
        HELD.fetch_sub(layout.size(), Relaxed);
        System.realloc(memory, layout, size)
    }
}

/// Lend instructions to code that begins to run, or take back what it left.
///
/// `main` gets a slice and comes back for another: each of its steps is announced by a budget of its own. Code
/// that a library function calls, or that is awaited, cannot come back: it gets half of all that is left, so
/// that what it calls in turn has some too.
#[no_mangle]
extern "C" fn __rune_budget_replace(value: usize) -> usize {
    let left = FUEL.load(Relaxed);
    if left == UNLIMITED {
        return UNLIMITED;
    }
    let depth = DEPTH.load(Relaxed);
    match value {
        UNLIMITED => {
            if depth == 0 {
                STEPPING.store(ANNOUNCED.swap(false, Relaxed), Relaxed);
            }
            let returns = depth == 0 && STEPPING.load(Relaxed);
            let lent = if returns { left.min(SLICE) } else { left.div_ceil(2) };
            FUEL.store(left - lent, Relaxed);
            DEPTH.store(depth + 1, Relaxed);
            lent
        }
        OUTERMOST => 0,
        _ if depth == 0 => {
            ANNOUNCED.store(true, Relaxed);
            OUTERMOST
        }
        unused => {
            FUEL.store(left + unused, Relaxed);
            DEPTH.store(depth - 1, Relaxed);
            let returns = depth == 1 && STEPPING.load(Relaxed);
            if unused == 0 && !returns {
                STARVED.store(true, Relaxed);
            }
            0
        }
    }
}

#[no_mangle]
extern "C" fn __rune_budget_get() -> usize {
    FUEL.load(Relaxed)
}

#[no_mangle]
extern "C" fn __rune_alloc_memory_take(amount: usize) -> bool {
    let wanted = HELD_BY_SCRIPT.load(Relaxed).saturating_add(amount);
    if wanted > MOST_FOR_SCRIPT.load(Relaxed) {
        REFUSED.store(true, Relaxed);
        return false;
    }
    HELD_BY_SCRIPT.store(wanted, Relaxed);
    true
}

#[no_mangle]
extern "C" fn __rune_alloc_memory_release(amount: usize) {
    HELD_BY_SCRIPT.fetch_sub(amount, Relaxed);
}

#[no_mangle]
extern "C" fn __rune_alloc_memory_get() -> usize {
    MOST_FOR_SCRIPT.load(Relaxed).saturating_sub(HELD_BY_SCRIPT.load(Relaxed))
}

#[no_mangle]
extern "C" fn __rune_alloc_memory_replace(_: usize) -> usize {
    __rune_alloc_memory_get()
}

#[no_mangle]
extern "C" fn __rune_alloc_abort() -> ! {
    std::process::abort()
}

static mut ENVIRONMENT: RawEnv = RawEnv::null();

#[no_mangle]
extern "C" fn __rune_env_get() -> RawEnv {
    // SAFETY: one thread.
    unsafe { *addr_of_mut!(ENVIRONMENT) }
}

#[no_mangle]
extern "C" fn __rune_env_replace(environment: RawEnv) -> RawEnv {
    // SAFETY: one thread.
    unsafe { replace(addr_of_mut!(ENVIRONMENT), environment) }
}
