//! The end of the time, being asked to stop, and running out of stack: all by signal, in one thread.

use std::mem::zeroed;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::exits;

static ASKED: AtomicBool = AtomicBool::new(false);
static POLITE: AtomicBool = AtomicBool::new(false);
static RUNNING: AtomicBool = AtomicBool::new(false);

/// Listen for SIGTERM, which the first process of a container otherwise never hears, and for faults.
pub fn listen() {
    handle(libc::SIGTERM, on_term as extern "C" fn(i32), 0);
    handle(libc::SIGSEGV, on_fault as extern "C" fn(i32), libc::SA_ONSTACK);
}

/// End the program when so much time has gone by.
pub fn end_after(time: Duration) {
    handle(libc::SIGALRM, on_alarm as extern "C" fn(i32), 0);
    let value = libc::timeval {
        tv_sec: time.as_secs().min(i64::MAX as u64) as libc::time_t,
        tv_usec: time.subsec_micros().max(u32::from(time.as_secs() == 0)) as libc::suseconds_t,
    };
    // SAFETY: the structure is plain data.
    unsafe {
        let timer = libc::itimerval { it_interval: zeroed(), it_value: value };
        libc::setitimer(libc::ITIMER_REAL, &timer, null_mut());
    }
}

/// From now on a fault is the running script's.
pub fn running() {
    RUNNING.store(true, Relaxed);
}

/// Wait, and return whether the program was asked to stop: then at once.
///
/// A script that calls this ends by itself; SIGTERM does not end it.
pub fn wait(time: Duration) -> bool {
    be_polite();
    readable(-1, time, false);
    asked()
}

/// From now on the script ends by itself: SIGTERM does not end it.
pub fn be_polite() {
    POLITE.store(true, Relaxed);
}

/// Whether the program was asked to stop, and its script is one that ends by itself.
pub fn asked() -> bool {
    POLITE.load(Relaxed) && ASKED.load(Relaxed)
}

/// Wait until something can be read; return early when the program is asked to stop, unless that is known.
pub fn readable(descriptor: i32, time: Duration, known: bool) -> bool {
    let mut watched = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    let mut ready = 0;
    let span = libc::timespec {
        tv_sec: time.as_secs().min(i64::MAX as u64) as libc::time_t,
        tv_nsec: libc::c_long::from(time.subsec_nanos() as i32),
    };
    // SAFETY: SIGTERM is held back but while waiting, so that none comes between the look and the wait.
    unsafe {
        let (mut held, mut before) = (zeroed(), zeroed());
        libc::sigemptyset(&mut held);
        libc::sigaddset(&mut held, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, &held, &mut before);
        if known || !asked() {
            ready = libc::ppoll(&mut watched, 1, &span, &before);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &before, null_mut());
    }
    ready > 0
}

fn handle(signal: i32, handler: extern "C" fn(i32), flags: i32) {
    // SAFETY: the handlers below call only what a handler may.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = flags;
        libc::sigaction(signal, &action, null::<libc::sigaction>() as *mut _);
    }
}

extern "C" fn on_term(_: i32) {
    ASKED.store(true, Relaxed);
    if !POLITE.load(Relaxed) {
        // SAFETY: always safe to call.
        unsafe { libc::_exit(exits::ASKED) }
    }
}

extern "C" fn on_alarm(_: i32) {
    exits::at_once("out of time: the limit is used up", exits::OUT_OF_TIME)
}

extern "C" fn on_fault(_: i32) {
    if RUNNING.load(Relaxed) {
        exits::at_once("out of stack: values nested too deeply", exits::FAILED)
    }
    exits::at_once("out of stack: the script is nested too deeply", exits::INVALID)
}
