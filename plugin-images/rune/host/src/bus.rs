//! The bus for a script: one connection, one thing at a time. What a script may do is judged by the broker alone.
//!
//! While the script waits for anything here, pings are answered, and calls, messages and changes line up for `next`.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::arrivals::{Arrival, Arrivals, WINDOW};
use crate::flow::{Flow, Served};
use crate::road::{self, Road};
use crate::signals;
use crate::trace::Trace;
use crate::wire::{self, Frame};

const HANDSHAKE: Duration = Duration::from_secs(10);
const DEFAULT_TIME: Duration = Duration::from_secs(30);
/// By how much the broker may be late with its word that a call is.
const GRACE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(200);
/// For how long a script that begins tries to connect: a pod's network may let it to the broker late.
const PATIENCE: Duration = Duration::from_secs(10);
/// Among the methods: new configurations are taken.
const CONFIG: &str = "$config";
const LATE: &str = "DeadlineExceeded: no answer came in time";
/// The longest wait there is: a year.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
const GONE: &str = "Unavailable: the bus went away; it is not known whether the call was done";

/// What went wrong, as `Code: why`.
pub type Outcome<T> = Result<T, String>;

/// What `next` found.
pub enum Next {
    Nothing,
    Stop,
    Call(Frame),
    Message(Frame),
    /// A key of the store, as its watch tells.
    Change(Frame),
    /// A watch has ended: what its keys begin with, and the error.
    Unwatched(String, Frame),
}

/// What goes with a call besides its payload.
#[derive(Default)]
pub struct With {
    pub headers: Vec<(String, String)>,
    /// None: 30 s, for a stream any.
    pub time: Option<Duration>,
    /// None: normal.
    pub priority: Option<u8>,
}

/// One connection to the broker, made anew when it breaks.
#[derive(Default)]
pub struct Bus {
    /// What came last: an answer, call, message, item or change.
    pub got: Frame,
    /// What is said now is a part of it.
    pub trace: Option<Trace>,
    /// The call that `next` brought and that waits for its answer.
    pub served: Option<Served>,
    pub(crate) flows: HashMap<u32, Flow>,
    pub(crate) arrivals: Arrivals,
    stream: Option<Road>,
    methods: Vec<String>,
    patterns: Vec<(u32, String)>,
    kept: Vec<u8>,
    ready: bool,
    stopping: bool,
    last: u32,
}

impl Bus {
    /// Connect, and offer methods.
    pub fn open(&mut self, methods: Vec<String>) -> Outcome<()> {
        self.methods = methods;
        self.hang_up();
        let until = Instant::now() + PATIENCE;
        loop {
            match self.connect() {
                Err(why) if why.contains(road::AWAY) && Instant::now() < until => std::thread::sleep(PAUSE),
                outcome => return outcome,
            }
        }
    }

    /// Say that the script can be used; after a new connection it is said again.
    pub fn say_ready(&mut self) -> Outcome<()> {
        self.ready = true;
        self.call("$bus.ready", b"", With::default()).map(drop)
    }

    /// Say that it cannot, and why.
    pub fn say_unready(&mut self, why: &str) -> Outcome<()> {
        self.ready = false;
        self.call("$bus.unready", why.as_bytes(), With::default()).map(drop)
    }

    /// Call a method and wait for its answer.
    pub fn call(&mut self, name: &str, payload: &[u8], with: With) -> Outcome<Frame> {
        let with = With { time: Some(with.time.unwrap_or(DEFAULT_TIME)), ..with };
        let id = self.begin(name, payload, with, 0, None)?;
        self.got = self.ended(id)?;
        Ok(self.got.clone())
    }

    /// Tell whoever listens; return how many subscriptions it reached.
    pub fn publish(&mut self, subject: &str, payload: &[u8]) -> Outcome<i64> {
        let headers = self.traced(Vec::new());
        let frame = Frame { headers, ..Frame::new(wire::PUBLISH, self.id(), subject, payload) };
        let id = self.ask(&frame, Flow::of(&frame, Some(Instant::now() + HANDSHAKE)))?;
        Ok(self.ended(id)?.header("reached").parse().unwrap_or(0))
    }

    /// Listen from now on.
    pub fn subscribe(&mut self, pattern: &str) -> Outcome<()> {
        let frame = Frame::new(wire::SUBSCRIBE, self.id(), pattern, b"");
        let id = self.ask(&frame, Flow::of(&frame, Some(Instant::now() + HANDSHAKE)))?;
        self.ended(id)?;
        self.patterns.push((id, pattern.to_owned()));
        Ok(())
    }

    /// Call a method and wait for nothing; return the call's number. The caller's own time is never exceeded.
    pub fn begin(
        &mut self,
        name: &str,
        payload: &[u8],
        with: With,
        flags: u8,
        watched: Option<String>,
    ) -> Outcome<u32> {
        let mut due = with.time.and_then(|time| Instant::now().checked_add(time));
        let mut under = None;
        if let (Some(served), None) = (&self.served, &watched) {
            if served.unwanted {
                return Err("Cancelled: the caller went away".to_owned());
            }
            due = due.into_iter().chain(served.flow.due).min();
            under = Some(served.flow.id);
        }
        let left = due.map(|due| due.saturating_duration_since(Instant::now()).as_millis());
        let deadline = left.map_or(0, |left| u32::try_from(left).unwrap_or(u32::MAX).clamp(1, 86_400_000));
        let headers = self.traced(with.headers);
        let priority = with.priority.unwrap_or(2);
        let call = Frame::new(wire::CALL, self.id(), name, payload);
        let frame = Frame { headers, deadline, priority, flags, ..call };
        let mut flow = Flow::of(&frame, due);
        (flow.under, flow.watched) = (under, watched);
        self.ask(&frame, flow)
    }

    /// Take what came first, or SIGTERM; wait for it so long.
    pub fn next(&mut self, time: Duration) -> Next {
        if self.served.is_some() {
            let _ = self.fail("Failed", "the script went on without an answer");
        }
        self.trace = None;
        signals::be_polite();
        let due = Instant::now() + time;
        let mut last_look = false;
        loop {
            if let Some(found) = self.arrivals.next() {
                return self.bring(found);
            }
            if signals::asked() {
                return Next::Stop;
            }
            if last_look {
                return Next::Nothing;
            }
            let left = due.saturating_duration_since(Instant::now());
            last_look = left.is_zero();
            if self.connect().and_then(|()| self.look(Some(left))).is_err() {
                signals::wait(left.min(PAUSE));
            }
        }
    }

    fn bring(&mut self, found: Arrival) -> Next {
        match found {
            Arrival::Call(served) => {
                self.trace = Trace::of(&served.frame);
                self.got = served.frame.clone();
                self.served = Some(*served);
                Next::Call(self.got.clone())
            }
            Arrival::Message(frame) => {
                self.trace = Trace::of(&frame);
                self.got = frame.clone();
                Next::Message(frame)
            }
            Arrival::Watch(id) => match self.flows.get_mut(&id).and_then(Flow::item) {
                Some(item) => {
                    self.grant(id);
                    self.got = item.clone();
                    Next::Change(item)
                }
                None => {
                    let flow = self.flows.remove(&id).unwrap_or_default();
                    Next::Unwatched(flow.watched.unwrap_or_default(), flow.end.unwrap_or_default())
                }
            },
        }
    }

    /// Answer the call that was taken last.
    pub fn answer(&mut self, payload: &[u8]) -> Outcome<()> {
        let payload = self.served.as_mut().map(|served| served.result(payload)).unwrap_or_default();
        self.reply(Frame::new(wire::ANSWER, 0, "", &payload))
    }

    /// Say that it could not be done.
    pub fn fail(&mut self, code: &str, why: &str) -> Outcome<()> {
        self.reply(Frame::new(wire::ERROR, 0, code, why.as_bytes()))
    }

    fn reply(&mut self, frame: Frame) -> Outcome<()> {
        match self.served.take() {
            Some(call) if !call.unwanted => {
                self.tell(&Frame { id: call.flow.id, priority: call.flow.priority, ..frame })
            }
            _ => Ok(()),
        }
    }

    /// Whether nobody waits for the answer any more, as far as has come in.
    pub fn is_unwanted(&mut self) -> bool {
        if self.served.as_ref().is_some_and(|call| !call.unwanted) {
            let _ = self.look(Some(Duration::ZERO));
        }
        self.served.as_ref().is_some_and(|call| call.unwanted)
    }

    fn traced(&self, mut headers: Vec<(String, String)>) -> Vec<(String, String)> {
        for (name, value) in self.trace.iter().flat_map(Trace::headers) {
            if !headers.iter().any(|(given, _)| *given == name) {
                headers.push((name, value));
            }
        }
        headers
    }

    fn id(&mut self) -> u32 {
        self.last = if self.last == 0 { 1 } else { self.last.wrapping_add(2) };
        self.last
    }

    /// Send what waits for an end; return its number.
    fn ask(&mut self, frame: &Frame, flow: Flow) -> Outcome<u32> {
        self.connect()?;
        self.flows.insert(frame.id, flow);
        if let Err(why) = self.send(frame) {
            self.flows.remove(&frame.id);
            return Err(why);
        }
        Ok(frame.id)
    }

    /// Wait for the end of a call, and return its answer.
    fn ended(&mut self, id: u32) -> Outcome<Frame> {
        loop {
            let Some(flow) = self.flows.get(&id) else { return Err(GONE.to_owned()) };
            if flow.end.is_some() {
                break;
            }
            let left = flow.due.map(|due| (due + GRACE).saturating_duration_since(Instant::now()));
            let late = left.is_some_and(|left| left.is_zero());
            let looked = if late { Err(LATE.to_owned()) } else { self.look(left) };
            if looked.is_err() && self.flows.get(&id).is_none_or(|flow| flow.end.is_none()) {
                self.flows.remove(&id);
                looked?;
            }
        }
        let end = self.flows.remove(&id).and_then(|flow| flow.end).unwrap_or_default();
        if end.kind == wire::ERROR {
            return Err(said(&end));
        }
        Ok(end)
    }

    /// Send a frame that nothing waits for: it is lost when the bus is. What is too large ends its call.
    pub(crate) fn tell(&mut self, frame: &Frame) -> Outcome<()> {
        match self.send(frame) {
            Err(why) if why.starts_with("Unavailable") => Ok(()),
            Err(why) => {
                let (code, text) = why.split_once(": ").unwrap_or(("Failed", &why));
                let error = Frame::new(wire::ERROR, frame.id, code, text.as_bytes());
                let _ = self.send(&Frame { priority: frame.priority, ..error });
                Err(why)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Take in what comes within so much time, after one look; SIGTERM ends it for a script that ends by itself.
    pub(crate) fn look(&mut self, time: Option<Duration>) -> Outcome<()> {
        let Some(stream) = &self.stream else { return Err(GONE.to_owned()) };
        let readable = signals::readable(stream.as_raw_fd(), time.unwrap_or(LONGEST), self.stopping);
        if signals::asked() && !self.stopping {
            self.stopping = true;
            let unready = Frame::new(wire::CALL, self.id(), "$bus.unready", b"stopping");
            self.tell(&Frame { priority: 1, ..unready })?;
        }
        if readable {
            self.read()?;
        }
        Ok(())
    }

    fn connect(&mut self) -> Outcome<()> {
        if self.stream.is_some() {
            return Ok(());
        }
        let Ok(address) = std::env::var("CRUCIBLE_BUS") else {
            return Err(
                "Unavailable: this plugin has no bus: grant it something under capabilities.bus".to_owned()
            );
        };
        let authority = std::env::var("CRUCIBLE_BUS_CA").unwrap_or_default();
        let road = Road::to(&address, &authority, HANDSHAKE).map_err(|why| format!("Unavailable: {why}"))?;
        self.stream = Some(road);
        if let Err(why) = self.greet() {
            self.flows.remove(&0);
            self.hang_up();
            return Err(why);
        }
        for (id, pattern) in self.patterns.clone() {
            self.send(&Frame::new(wire::SUBSCRIBE, id, &pattern, b""))?;
        }
        if self.ready && !self.stopping {
            let ready = Frame::new(wire::CALL, self.id(), "$bus.ready", b"");
            self.send(&Frame { priority: 1, ..ready })?;
        }
        Ok(())
    }

    /// Introduce the script, and wait until it is welcome.
    fn greet(&mut self) -> Outcome<()> {
        let methods: Vec<&String> = self.methods.iter().filter(|name| *name != CONFIG).collect();
        let hello = serde_json::json!({"wire": [1], "client": "crucible-rune/1", "methods": methods, "window": WINDOW});
        let hello = Frame::new(wire::HELLO, 0, "", hello.to_string().as_bytes());
        // Both ends have the number 0, so that it is awaited as calls are.
        self.flows.insert(0, Flow::of(&hello, Some(Instant::now() + HANDSHAKE)));
        self.send(&hello)?;
        self.ended(0).map(drop)
    }

    fn send(&mut self, frame: &Frame) -> Outcome<()> {
        let Some(bytes) = frame.encode() else {
            return Err("TooLarge: name, headers and payload: 255, 4096 and 1048576 bytes at most".to_owned());
        };
        let Some(stream) = &mut self.stream else { return Err(GONE.to_owned()) };
        if let Err(error) = stream.send(&bytes) {
            self.hang_up();
            return Err(format!("Unavailable: the bus went away: {error}"));
        }
        Ok(())
    }

    /// Take in what comes; return after one look.
    fn read(&mut self) -> Outcome<()> {
        let Some(stream) = &mut self.stream else { return Err(GONE.to_owned()) };
        match stream.take(&mut self.kept) {
            Ok(size) if size > 0 => {}
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
        match frame.kind {
            wire::MESSAGE => self.arrivals.tell(frame),
            wire::CALL => return self.called(frame),
            _ if frame.id % 2 == 1 || frame.id == 0 => {
                let id = frame.id;
                let Some(flow) = self.flows.get_mut(&id) else {
                    refused(&frame);
                    return Ok(());
                };
                let watched = flow.watched.is_some();
                flow.take(frame);
                if watched {
                    self.arrivals.watch(id);
                }
            }
            _ => return self.heard(frame),
        }
        Ok(())
    }

    /// Take what belongs to a call that somebody made of this script.
    fn heard(&mut self, frame: Frame) -> Outcome<()> {
        let id = frame.id;
        match self.served.as_mut().filter(|served| served.flow.id == id) {
            Some(served) if frame.kind == wire::CANCEL => {
                served.unwanted = true;
                let made = self.flows.values().filter(|flow| flow.under == Some(id) && flow.end.is_none());
                for cancel in made.map(Flow::cancels).collect::<Vec<_>>() {
                    self.tell(&cancel)?;
                }
            }
            Some(served) => served.flow.take(frame),
            None if frame.kind == wire::CANCEL => self.arrivals.drop(id),
            None => {
                if let Some(served) = self.arrivals.of(id) {
                    served.flow.take(frame);
                }
            }
        }
        Ok(())
    }

    fn called(&mut self, frame: Frame) -> Outcome<()> {
        let taken = !frame.name.starts_with('$')
            || (frame.name == CONFIG && self.methods.iter().any(|name| name == CONFIG));
        let (kind, name, payload) = match frame.name.as_str() {
            "$ping" => (wire::ANSWER, "", frame.payload.as_slice()),
            _ if !taken => (wire::ERROR, "NoSuchMethod", b"no such method".as_slice()),
            _ if self.stopping => (wire::ERROR, "Unavailable", b"stopping".as_slice()),
            _ => {
                self.arrivals.call(Served::of(frame));
                return Ok(());
            }
        };
        let priority = frame.priority;
        self.tell(&Frame { priority, ..Frame::new(kind, frame.id, name, payload) })
    }

    fn hang_up(&mut self) {
        self.stream = None;
        self.kept.clear();
        if let Some(served) = &mut self.served {
            served.unwanted = true;
        }
        self.arrivals.lose_calls();
        let (code, why) = GONE.split_once(": ").unwrap_or_default();
        for (id, flow) in self.flows.iter_mut().filter(|(_, flow)| flow.end.is_none()) {
            flow.take(Frame::new(wire::ERROR, *id, code, why.as_bytes()));
            if flow.watched.is_some() {
                self.arrivals.watch(*id);
            }
        }
    }
}

/// Return what an ERROR says, as scripts see it.
pub(crate) fn said(error: &Frame) -> String {
    format!("{}: {}", error.name, error.text())
}

/// Log an error that no call waits for.
fn refused(frame: &Frame) {
    if frame.kind == wire::ERROR && frame.id == 0 {
        let fields = serde_json::json!({"code": frame.name, "why": frame.text()});
        crate::log::write(2, "refused", fields.as_object().cloned().unwrap_or_default(), None);
    }
}

fn is_late(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}
