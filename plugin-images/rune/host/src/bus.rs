//! The bus for a script: one connection, one thing at a time. What a script may do is judged by the broker alone.
//!
//! While the script waits for anything here, pings are answered, and calls and messages line up for `next`.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::signals;
use crate::wire::{self, Frame};

/// Calls that line up at most; the broker holds back further ones.
const WINDOW: u32 = 8;
/// Messages that line up at most; later ones are lost, and counted.
const MESSAGES: usize = 64;
const HANDSHAKE: Duration = Duration::from_secs(10);
const DEFAULT_TIME: Duration = Duration::from_secs(30);
/// By how much the broker may be late with its word that a call is.
const GRACE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(200);
/// Among the methods: new configurations are taken.
const CONFIG: &str = "$config";
const GONE: &str = "Unavailable: the bus went away; it is not known whether the call was done";

/// What went wrong, as `Code: why`.
pub type Outcome<T> = Result<T, String>;

/// What `next` found.
pub enum Next {
    Nothing,
    Stop,
    Came(Frame),
}

/// One connection to the broker, made anew when it breaks.
#[derive(Default)]
pub struct Bus {
    stream: Option<UnixStream>,
    methods: Vec<String>,
    patterns: Vec<(u32, String)>,
    kept: Vec<u8>,
    awaited: Option<(u32, Option<Frame>)>,
    events: VecDeque<Frame>,
    missed: u64,
    serving: Option<Frame>,
    last: u32,
}

impl Bus {
    /// Connect, and offer methods.
    pub fn open(&mut self, methods: Vec<String>) -> Outcome<()> {
        self.methods = methods;
        self.hang_up();
        self.connect()
    }

    /// Call a method and wait for its answer.
    pub fn call(
        &mut self,
        name: &str,
        payload: &[u8],
        headers: Vec<(String, String)>,
        time: Option<Duration>,
    ) -> Outcome<Frame> {
        let time = time.unwrap_or(DEFAULT_TIME);
        let deadline = u32::try_from(time.as_millis()).unwrap_or(86_400_000).clamp(1, 86_400_000);
        let frame = Frame { headers, deadline, ..Frame::new(wire::CALL, self.id(), name, payload) };
        self.ask(&frame, time + GRACE)
    }

    /// Tell whoever listens; return how many subscriptions it reached.
    pub fn publish(&mut self, subject: &str, payload: &[u8]) -> Outcome<i64> {
        let frame = Frame::new(wire::PUBLISH, self.id(), subject, payload);
        Ok(self.ask(&frame, HANDSHAKE)?.header("reached").parse().unwrap_or(0))
    }

    /// Listen from now on.
    pub fn subscribe(&mut self, pattern: &str) -> Outcome<()> {
        let id = self.id();
        self.ask(&Frame::new(wire::SUBSCRIBE, id, pattern, b""), HANDSHAKE)?;
        self.patterns.push((id, pattern.to_owned()));
        Ok(())
    }

    /// Take the call, message or configuration that came first, or SIGTERM; wait for it so long.
    pub fn next(&mut self, time: Duration) -> Next {
        if self.serving.is_some() {
            let _ = self.fail("the script went on without an answer");
        }
        let due = Instant::now() + time;
        loop {
            if let Some(frame) = self.events.pop_front() {
                if frame.kind == wire::CALL {
                    self.serving = Some(frame.clone());
                }
                return Next::Came(frame);
            }
            let left = due.saturating_duration_since(Instant::now());
            let connected = self.connect().is_ok();
            let waited = match (&self.stream, connected) {
                (Some(stream), true) => signals::wait_for(Some(stream.as_raw_fd()), left),
                _ => signals::wait_for(None, left.min(PAUSE)),
            };
            if waited.asked {
                return Next::Stop;
            }
            if waited.readable {
                let _ = self.read();
            } else if Instant::now() >= due {
                return Next::Nothing;
            }
        }
    }

    /// Answer the call that was taken last.
    pub fn answer(&mut self, payload: &[u8]) -> Outcome<()> {
        self.reply(Frame::new(wire::ANSWER, 0, "", payload))
    }

    /// Say that it could not be done.
    pub fn fail(&mut self, why: &str) -> Outcome<()> {
        self.reply(Frame::new(wire::ERROR, 0, "Failed", why.as_bytes()))
    }

    fn reply(&mut self, frame: Frame) -> Outcome<()> {
        match self.serving.take() {
            Some(call) => self.send(&Frame { id: call.id, priority: call.priority, ..frame }),
            None => Ok(()),
        }
    }

    fn id(&mut self) -> u32 {
        self.last = if self.last == 0 { 1 } else { self.last.wrapping_add(2) };
        self.last
    }

    fn ask(&mut self, frame: &Frame, time: Duration) -> Outcome<Frame> {
        self.connect()?;
        self.awaited = Some((frame.id, None));
        let answer = self.send(frame).and_then(|()| self.await_answer(time));
        self.awaited = None;
        let answer = answer?;
        if answer.kind == wire::ERROR {
            return Err(format!("{}: {}", answer.name, answer.text()));
        }
        Ok(answer)
    }

    fn await_answer(&mut self, time: Duration) -> Outcome<Frame> {
        let due = Instant::now() + time;
        loop {
            if let Some((_, Some(answer))) = &self.awaited {
                return Ok(answer.clone());
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("DeadlineExceeded: no answer came in time".to_owned());
            }
            let Some(stream) = &self.stream else { return Err(GONE.to_owned()) };
            stream.set_read_timeout(Some(left)).map_err(|error| format!("Unavailable: {error}"))?;
            self.read()?;
        }
    }

    fn connect(&mut self) -> Outcome<()> {
        if self.stream.is_some() {
            return Ok(());
        }
        let Ok(path) = std::env::var("CRUCIBLE_BUS") else {
            return Err(
                "Unavailable: this plugin has no bus: grant it something under capabilities.bus".to_owned()
            );
        };
        let stream = UnixStream::connect(path)
            .map_err(|error| format!("Unavailable: the bus is not there: {error}"))?;
        stream.set_write_timeout(Some(HANDSHAKE)).map_err(|error| format!("Unavailable: {error}"))?;
        self.stream = Some(stream);
        let awaited = self.awaited.replace((0, None));
        let welcome = self.greet();
        self.awaited = awaited;
        match welcome {
            Ok(frame) if frame.kind != wire::ERROR => {}
            other => {
                self.hang_up();
                return Err(other.map_or_else(|why| why, |frame| format!("{}: {}", frame.name, frame.text())));
            }
        }
        for (id, pattern) in self.patterns.clone() {
            self.send(&Frame::new(wire::SUBSCRIBE, id, &pattern, b""))?;
        }
        Ok(())
    }

    fn greet(&mut self) -> Outcome<Frame> {
        let methods: Vec<&String> = self.methods.iter().filter(|name| *name != CONFIG).collect();
        let hello = serde_json::json!({"wire": [1], "client": "crucible-rune/1", "methods": methods, "window": WINDOW});
        self.send(&Frame::new(wire::HELLO, 0, "", hello.to_string().as_bytes()))?;
        self.await_answer(HANDSHAKE)
    }

    fn send(&mut self, frame: &Frame) -> Outcome<()> {
        let Some(bytes) = frame.encode() else {
            return Err("TooLarge: name, headers and payload: 255, 4096 and 1048576 bytes at most".to_owned());
        };
        let Some(stream) = &mut self.stream else { return Err(GONE.to_owned()) };
        if let Err(error) = stream.write_all(&bytes) {
            self.hang_up();
            return Err(format!("Unavailable: the bus went away: {error}"));
        }
        Ok(())
    }

    /// Take in what comes; return after one look.
    fn read(&mut self) -> Outcome<()> {
        let Some(stream) = &mut self.stream else { return Err(GONE.to_owned()) };
        let mut chunk = [0; 16384];
        match stream.read(&mut chunk) {
            Ok(size) if size > 0 => self.kept.extend(&chunk[..size]),
            Err(error) if is_late(&error) => return Ok(()),
            _ => {
                self.hang_up();
                return Err(GONE.to_owned());
            }
        }
        loop {
            match wire::decode(&mut self.kept) {
                Ok(Some(frame)) => self.receive(frame)?,
                Ok(None) => return Ok(()),
                Err(()) => {
                    self.hang_up();
                    return Err("Unavailable: what came is no frame of the bus".to_owned());
                }
            }
        }
    }

    fn receive(&mut self, frame: Frame) -> Outcome<()> {
        match (&mut self.awaited, frame.kind) {
            (_, wire::MESSAGE) => self.told(frame),
            (_, wire::CANCEL) => {
                self.serving.take_if(|call| call.id == frame.id);
                self.events.retain(|one| one.kind != wire::CALL || one.id != frame.id);
            }
            (_, wire::CALL) => return self.called(frame),
            (Some((id, answer)), _) if *id == frame.id => *answer = Some(frame),
            _ => {}
        }
        Ok(())
    }

    fn told(&mut self, mut frame: Frame) {
        self.missed += frame.number("missed");
        if self.events.len() >= MESSAGES {
            self.missed += 1;
            return;
        }
        frame.headers.retain(|(name, _)| name != "missed");
        frame.headers.push(("missed".to_owned(), std::mem::take(&mut self.missed).to_string()));
        self.events.push_back(frame);
    }

    fn called(&mut self, frame: Frame) -> Outcome<()> {
        let taken = !frame.name.starts_with('$')
            || (frame.name == CONFIG && self.methods.iter().any(|name| name == CONFIG));
        if taken {
            self.events.push_back(frame);
            return Ok(());
        }
        let (kind, name, payload) = match frame.name.as_str() {
            "$ping" => (wire::ANSWER, "", frame.payload.as_slice()),
            _ => (wire::ERROR, "NoSuchMethod", b"".as_slice()),
        };
        self.send(&Frame { priority: frame.priority, ..Frame::new(kind, frame.id, name, payload) })
    }

    fn hang_up(&mut self) {
        self.stream = None;
        self.serving = None;
        self.kept.clear();
        self.events.retain(|one| one.kind == wire::MESSAGE);
    }
}

fn is_late(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}
