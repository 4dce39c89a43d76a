//! One end of a call: what came of it, and how many items may go.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::wire::{self, Frame};

/// Items that may be on their way before they are asked for again.
const WINDOW: u32 = 16;

/// A call under way, of ours or of somebody else.
#[derive(Default)]
pub struct Flow {
    pub id: u32,
    pub priority: u8,
    /// When its time is over; None: never.
    pub due: Option<Instant>,
    /// The call that it is made for; None: none.
    pub under: Option<u32>,
    /// What keys begin with whose changes it tells; None: it is no watch.
    pub watched: Option<String>,
    /// The frame that ended it.
    pub end: Option<Frame>,
    pub items: VecDeque<Frame>,
    /// How many items may go.
    pub credit: u32,
    finished: bool,
    owed: u32,
}

impl Flow {
    /// Return one end of the call that a frame begins.
    pub fn of(call: &Frame, due: Option<Instant>) -> Self {
        Self { id: call.id, priority: call.priority, due, ..Self::default() }
    }

    /// No more items come.
    pub fn is_over(&self) -> bool {
        self.end.is_some() || self.finished
    }

    /// The time that is left; None: any.
    pub fn left(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Note what the other side said.
    pub fn take(&mut self, frame: Frame) {
        match frame.kind {
            wire::ITEM => {
                self.finished = frame.flags & wire::LAST != 0;
                if !frame.payload.is_empty() || !self.finished {
                    self.items.push_back(frame);
                }
            }
            wire::CREDIT => {
                let more = frame.payload.try_into().map_or(0, u32::from_be_bytes);
                self.credit = self.credit.saturating_add(more);
            }
            _ => self.end = Some(frame),
        }
    }

    /// Return the item that came first.
    pub fn item(&mut self) -> Option<Frame> {
        let found = self.items.pop_front()?;
        self.owed = self.owed.saturating_sub(1);
        Some(found)
    }

    /// Return the frame that lets the other side send more, once half of what it may is used up.
    pub fn asks(&mut self) -> Option<Frame> {
        if self.is_over() || self.owed > WINDOW / 2 {
            return None;
        }
        let more = WINDOW - self.owed;
        self.owed = WINDOW;
        Some(self.says(wire::CREDIT, &more.to_be_bytes()))
    }

    /// Return an item; there is credit for it.
    pub fn gives(&mut self, payload: &[u8], flags: u8) -> Frame {
        self.credit = self.credit.saturating_sub(1);
        Frame { flags, ..self.says(wire::ITEM, payload) }
    }

    /// Return what says that the answer is not wanted.
    pub fn cancels(&self) -> Frame {
        self.says(wire::CANCEL, b"")
    }

    fn says(&self, kind: u8, payload: &[u8]) -> Frame {
        Frame { priority: self.priority, ..Frame::new(kind, self.id, "", payload) }
    }
}

/// A call that somebody made of this script.
pub struct Served {
    pub flow: Flow,
    pub frame: Frame,
    /// Nobody waits for its answer any more.
    pub unwanted: bool,
    collected: Option<Vec<u8>>,
}

impl Served {
    /// Take a call that came just now.
    pub fn of(frame: Frame) -> Self {
        let time = Duration::from_millis(frame.deadline.into());
        let due = (frame.deadline > 0).then(|| Instant::now() + time);
        Self { flow: Flow::of(&frame, due), frame, unwanted: false, collected: None }
    }

    /// Its caller takes items.
    pub fn streams(&self) -> bool {
        self.frame.flags & wire::STREAM != 0
    }

    /// Keep an item for a caller that takes none; false: the list would be larger than an answer may be.
    pub fn collect(&mut self, item: &[u8]) -> bool {
        let kept = self.collected.get_or_insert_with(Vec::new);
        if kept.len() + item.len() + 2 > wire::PAYLOAD_LIMIT {
            return false;
        }
        kept.push(if kept.is_empty() { b'[' } else { b',' });
        kept.extend(item);
        true
    }

    /// Return the answer: what the script says, or the items it sent to who takes no stream.
    pub fn result(&mut self, payload: &[u8]) -> Vec<u8> {
        match self.collected.take() {
            Some(mut list) => {
                list.push(b']');
                list
            }
            None => payload.to_vec(),
        }
    }
}
