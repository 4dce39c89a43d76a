//! What came in and waits for `next`.

use std::collections::VecDeque;

use crate::flow::Served;
use crate::wire::Frame;

/// Calls that line up at most; the broker holds back further ones.
pub const WINDOW: u32 = 8;
/// Messages that line up at most; later ones are lost, and counted.
const MESSAGES: usize = 64;

/// One thing that came.
pub enum Arrival {
    Call(Box<Served>),
    Message(Frame),
    /// The number of a watch with a change, or which has ended.
    Watch(u32),
}

/// A queue in the order in which things came.
#[derive(Default)]
pub struct Arrivals {
    waiting: VecDeque<Arrival>,
    messages: usize,
    missed: u64,
}

impl Arrivals {
    /// Line up a call.
    pub fn call(&mut self, served: Served) {
        self.waiting.push_back(Arrival::Call(Box::new(served)));
    }

    /// Line up a watch, once for each change and once for its end.
    pub fn watch(&mut self, id: u32) {
        self.waiting.push_back(Arrival::Watch(id));
    }

    /// Line up a message, or count it as lost.
    pub fn tell(&mut self, mut frame: Frame) {
        self.missed += frame.number("missed");
        if self.messages >= MESSAGES {
            self.missed += 1;
            return;
        }
        frame.headers.retain(|(name, _)| name != "missed");
        frame.headers.push(("missed".to_owned(), std::mem::take(&mut self.missed).to_string()));
        self.messages += 1;
        self.waiting.push_back(Arrival::Message(frame));
    }

    /// Take what came first.
    pub fn next(&mut self) -> Option<Arrival> {
        let found = self.waiting.pop_front();
        if let Some(Arrival::Message(_)) = found {
            self.messages -= 1;
        }
        found
    }

    /// Return a call that waits.
    pub fn of(&mut self, id: u32) -> Option<&mut Served> {
        self.waiting.iter_mut().find_map(|one| match one {
            Arrival::Call(served) if served.flow.id == id => Some(served.as_mut()),
            _ => None,
        })
    }

    /// Forget a call or watch.
    pub fn drop(&mut self, unwanted: u32) {
        self.waiting.retain(|one| match one {
            Arrival::Call(served) => served.flow.id != unwanted,
            Arrival::Watch(id) => *id != unwanted,
            Arrival::Message(_) => true,
        });
    }

    /// Forget all calls: whoever made them hears that this script went away.
    pub fn lose_calls(&mut self) {
        self.waiting.retain(|one| !matches!(one, Arrival::Call(_)));
    }
}
