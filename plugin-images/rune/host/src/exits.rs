//! How the program ends: its exit codes, and the one line that says why.

/// The arguments are wrong.
pub const USAGE: i32 = 64;
/// The script does not compile.
pub const INVALID: i32 = 65;
/// The script cannot be read.
pub const UNREADABLE: i32 = 66;
/// The script panicked, or called what is not there.
pub const FAILED: i32 = 70;
pub const OUT_OF_FUEL: i32 = 71;
pub const OUT_OF_MEMORY: i32 = 72;
pub const OUT_OF_TIME: i32 = 73;
/// Ended by SIGTERM.
pub const ASKED: i32 = 128 + libc::SIGTERM;

/// Say why, and end.
pub fn with(message: &str, code: i32) -> ! {
    eprintln!("crucible-rune: {message}");
    std::process::exit(code)
}

/// Say why, and end, from a signal handler or the allocator: nothing is flushed, nothing is allocated.
pub fn at_once(message: &str, code: i32) -> ! {
    for part in ["crucible-rune: ", message, "\n"] {
        // SAFETY: the pointer and the length are those of one string.
        unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: always safe to call.
    unsafe { libc::_exit(code) }
}
